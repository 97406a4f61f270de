"""A loaded model that answers requests from any thread: admission, the worker pool, the engine's thread."""

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from PIL import Image

from sa2va_bento import metrics
from sa2va_bento.engine.engine import Observer
from sa2va_bento.engine.limits import limits_of
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence
from sa2va_bento.engine.thread import EngineThread
from sa2va_bento.engine.warmup import warm_up
from sa2va_bento.engine.workload import workload_of
from sa2va_bento.errors import (
    DeadlineExceededError,
    InferenceError,
    PayloadTooLargeError,
    RequestCancelledError,
    Sa2VAError,
)
from sa2va_bento.model.base import Sa2VA, parameter_dtype
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.checkpoint import Placement, choose_placement, load_model
from sa2va_bento.model.loading.device_map import DeviceMap, place
from sa2va_bento.model.loading.hub import fetch_config, resolve
from sa2va_bento.model.loading.memory import device_memory, estimate
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.model.registry import read_config
from sa2va_bento.processing.admission import Admission
from sa2va_bento.processing.processor import Processor
from sa2va_bento.processing.workers import SerialQueue, WorkerPool, give_back_memory
from sa2va_bento.settings import Settings
from sa2va_bento.types import (
    EngineStats,
    Exchange,
    Prediction,
    PredictRequest,
    RequestContext,
    Segment,
    SegmentReady,
    Stage,
    StreamEvent,
    TextDelta,
)

logger = logging.getLogger(__name__)

MOST_WORKERS = 4
"""Most threads that decode pictures, turn them into tensors, and logits into masks and answers, beside the engine's."""

WARM_UP = PredictRequest("Please segment everything.", Image.new("RGB", (448, 448)), max_new_tokens=2)

Made = TypeVar("Made")
Rendered = TypeVar("Rendered")
OnEvent = Callable[[StreamEvent], None]


class Predictor:
    """Made by `load`. `predict`, `submit` and `answer` may be called from any thread."""

    def __init__(self, model: Sa2VA, tokenizer: PromptTokenizer, settings: Settings) -> None:
        self._processor = Processor(model.config, tokenizer, settings)
        limits = limits_of(settings, model.config)
        self._runner = Runner(
            model,
            self._processor.image_token_id,
            limits,
            feature_cache_bytes=settings.feature_cache_bytes,
            prefix_cache_bytes=settings.prefix_cache_bytes,
        )
        if self._runner.device.type == "cuda":  # on a CPU there is little to gain, and a large model takes a minute
            self.warm_up()
        self._workers = WorkerPool(min(MOST_WORKERS, max(2, os.cpu_count() or 1)), on_idle=give_back_memory)
        self._is_out_of_memory = False
        self._admission, self._running = Admission(limits.slots, settings.max_queue), 0
        self.info = _info(model)
        observer = _MetricsObserver(self)
        observer.on_step(0, 0)
        self._engine = EngineThread(self._runner, Scheduler(limits), observer)

    @classmethod
    def load(cls, settings: Settings) -> "Predictor":
        """Loads the model that the settings name and starts its thread.

        Raises:
            CheckpointError: one line that names what is wrong.
        """
        placement = choose_placement(settings.device, settings.dtype)
        if threads := settings.threads or _cpu_threads(placement.device):
            torch.set_num_threads(threads)
        wanted = (settings.model_dir_or_id, settings.model_revision, settings.cache_dir)
        parts = _fit(read_config(fetch_config(*wanted) / "config.json"), placement, settings)
        folder = resolve(*wanted)  # gigabytes, which a model that does not fit is spared
        tokenizer = PromptTokenizer.from_dir(folder)
        return cls(load_model(folder, placement, settings.quantization, parts), tokenizer, settings)

    def warm_up(self) -> None:
        """Answers a black square that nobody asks about, unless a picture is more than the context holds."""
        with suppress(PayloadTooLargeError):
            warm_up(self._runner, self._processor.prepare(WARM_UP), self._runner.limits.max_prefill)

    @property
    def is_ready(self) -> bool:
        return self._engine.is_alive

    @property
    def is_alive(self) -> bool:
        return self._engine.is_alive and not self._is_out_of_memory

    @property
    def queue_depth(self) -> int:
        """Requests accepted and not yet answered."""
        return self._admission.pending

    def check_room(self, left_s: float) -> None:
        """Raises OverloadedError where a request whose deadline is `left_s` seconds away would be refused now."""
        self._admission.check(left_s)

    def stats(self) -> EngineStats:
        """What the engine holds: its KV cache, its feature and prefix caches."""
        return self._runner.stats()

    def device_memory(self) -> tuple[int, int]:
        """Bytes in use and in all on the model's device."""
        return device_memory(self._runner.device)

    def predict(self, request: PredictRequest) -> Prediction:
        """Blocking form of `submit`."""
        return self.submit(request).result()

    def submit(self, request: PredictRequest, on_event: OnEvent | None = None) -> "Future[Prediction]":
        """`answer` for a request that is there already, as a prediction. `on_event` is told how the answer grows."""
        return self.answer(_Plain(request, on_event))

    def answer(self, exchange: Exchange[Rendered]) -> "Future[Rendered]":
        """Queues a request. Cancelling the future takes it out of the engine within one token.

        The future fails with what is wrong with the request: BadRequestError, PayloadTooLargeError,
        DeadlineExceededError, InferenceError.

        Raises:
            OverloadedError: at once, when too many requests are pending or its answer would come too late.
        """
        self._admission.enter(exchange.context.left_s)
        self.note_running(self._running)
        task = _Task(exchange, self._processor, self._runner, self._engine, self._workers)
        task.answer.add_done_callback(lambda _: self._leave(task.is_out_of_memory))
        self._workers.submit(task.prepare)
        return task.answer

    def in_worker(self, work: Callable[[], Made]) -> "Future[Made]":
        """What `work` will have returned, done in a worker thread."""
        return self._workers.submit(work)

    def close(self) -> None:
        """Stops the engine; unfinished requests fail with NotReadyError."""
        self._engine.close()
        self._workers.close()

    def _leave(self, is_out_of_memory: bool) -> None:
        self._is_out_of_memory |= is_out_of_memory  # it may have cost a lock or a thread: another process is needed
        self._admission.leave()
        self.note_running(self._running)

    def note_running(self, running: int) -> None:
        """Sets the gauges: of the requests that are pending, so many are with the engine."""
        self._running = running
        metrics.requests_running.set(running)
        metrics.requests_waiting.set(max(0, self._admission.pending - running))


@dataclass(frozen=True)
class _Plain:
    """The exchange of a caller in the same process."""

    request: PredictRequest
    on_event: OnEvent | None = None

    @property
    def context(self) -> RequestContext:
        return self.request.context

    def read(self) -> PredictRequest:
        return self.request

    def begin(self) -> bool:
        return self.on_event is not None

    def tell(self, event: StreamEvent) -> None:
        if self.on_event:
            self.on_event(event)

    def render(self, prediction: Prediction) -> Prediction:
        return prediction


class _Task(Generic[Rendered]):
    """One request on its way: read and prepared by a worker, generated on the engine's thread, finished and rendered by
    a worker. Whatever goes wrong ends in its `answer`. It is the sequence's listener where the answer is watched."""

    def __init__(
        self,
        exchange: Exchange[Rendered],
        processor: Processor,
        runner: Runner,
        engine: EngineThread,
        workers: WorkerPool,
    ) -> None:
        self.answer: Future[Rendered] = Future()
        self._exchange, self._context = exchange, exchange.context
        self._processor, self._runner, self._engine = processor, runner, engine
        self._workers = workers
        self._segments: tuple[Segment, ...] = ()
        self._told = ""
        self.is_out_of_memory = False

    def prepare(self) -> None:
        """By a worker: pixels and prompt, then over to the engine."""
        self._context.lap(Stage.QUEUE)
        try:
            self._check_wanted()
            request = self._exchange.read()
            self._context.lap(Stage.IMAGE_DECODE)
            self._check_wanted()
            sequence = self._sequence = self._processor.prepare(request)
            self._request = replace(request, image=None, regions=())  # the picture's pixels are its processor's now
            sequence.pinned = self._runner.pin(sequence.picture)
            if sequence.picture:
                sequence.picture.tiles.prepare(sequence.picture.tiles_key in sequence.pinned)
            self._context.lap(Stage.PREPROCESS)
            self._check_wanted()
            self._start(sequence)
            if sequence.picture:  # while the language model reads
                sequence.picture.sam_pixels.prepare(sequence.picture.key in sequence.pinned)
        except BaseException as error:
            self._fail(error)

    def _check_wanted(self) -> None:
        """Raises where nobody waits for the answer any more: nothing runs on past its deadline."""
        if self.answer.cancelled():
            raise RequestCancelledError("cancelled")
        if self._context.left_s <= 0:
            raise DeadlineExceededError("no answer in time")

    def on_token(self, token: int) -> None:
        self._tell_text(self._detokenizer.push(token))

    def on_masks(self, sequence: Sequence) -> None:
        ids, masks = tuple(sequence.output_ids), sequence.masks
        self._in_worker(lambda: self._show_segments(ids, masks))

    def _start(self, sequence: Sequence) -> None:
        self._parser = self._processor.reply_parser(self._request)
        sequence.is_cancelled = self.answer.cancelled
        self._is_watched = self._is_told = self._exchange.begin()
        if self._is_watched:
            self._detokenizer = self._processor.detokenizer(self._request)
            self._queue = SerialQueue(self._workers)
            sequence.listener = self
        self._engine.submit(sequence).add_done_callback(lambda done: self._in_worker(lambda: self._finish(done)))

    def _in_worker(self, work: Callable[[], None]) -> None:
        try:
            if self._is_watched:
                self._queue.submit(work)
            else:  # the one job there is
                self._workers.submit(work, first=True)
        except RuntimeError as error:  # the pool has closed meanwhile
            self._fail(error)

    def _show_segments(self, ids: tuple[int, ...], masks: tuple[MaskLogits, ...]) -> None:
        start, picture = len(self._segments), self._sequence.picture
        try:
            phrases = self._parser.phrases(ids)
            if picture:
                self._segments += self._processor.segments(self._request, picture, masks[start:], phrases[start:])
        except BaseException as error:
            self._fail(error)
        for index, segment in enumerate(self._segments[start:], start):
            self._tell(SegmentReady(index, segment))

    def _finish(self, generated: "Future[Generation]") -> None:
        try:
            generation = generated.result()
            self._context.lap(Stage.QUEUE)
            self._check_wanted()
            prediction = self._predict(generation)
            self._check_wanted()
            if self._is_watched:
                self._tell_text(prediction.result.removeprefix(self._told))
            rendered = self._exchange.render(prediction)
        except BaseException as error:
            self._fail(error)
            return
        _count(self._sequence, prediction)
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(rendered)

    def _predict(self, generation: Generation) -> Prediction:
        prediction = self._processor.finish(self._request, self._sequence, generation, self._parser, self._segments)
        self._context.lap(Stage.SEGMENT)
        return prediction.with_timings(self._context.timings_ms)

    def _tell_text(self, text: str) -> None:
        if text:
            self._told += text
            self._tell(TextDelta(text))

    def _tell(self, event: StreamEvent) -> None:
        if not self._is_told:
            return
        try:
            self._exchange.tell(event)
        except Exception:  # a watcher that breaks does not break the engine
            logger.exception("request %s: its watcher failed", self._context.request_id)
            self._is_told = False

    def _fail(self, error: BaseException) -> None:
        self.is_out_of_memory = isinstance(error, MemoryError)
        if not isinstance(error, Sa2VAError):
            logger.error("request %s failed", self._context.request_id, exc_info=error)
            error = InferenceError("the request failed")
        error.__traceback__ = error.__context__ = None  # whose frames keep whole pictures alive
        with suppress(InvalidStateError):  # cancelled, or failed before
            self.answer.set_exception(error)


class _MetricsObserver(Observer):
    """Keeps the gauges of a predictor's engine."""

    INTERVAL_S = 1.0
    """Between two looks at caches and memory."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor, self._caches = predictor, metrics.CacheCounters()
        self._looked_at = 0.0

    def on_batch(self, stage: Stage, size: int) -> None:
        metrics.batch_size.labels(stage).observe(size)

    def on_step(self, running: int, waiting: int) -> None:
        self._predictor.note_running(running)
        if running and time.monotonic() - self._looked_at < self.INTERVAL_S:
            return
        self._looked_at = time.monotonic()
        stats, (used, total) = self._predictor.stats(), self._predictor.device_memory()
        self._caches.update(stats)
        metrics.kv_cache_usage_ratio.set(stats.kv_tokens / stats.kv_capacity)
        metrics.device_memory_used.set(used)
        metrics.device_memory_total.set(total)


def _count(sequence: Sequence, prediction: Prediction) -> None:
    """Adds an answer to the counters."""
    usage, context = prediction.usage, sequence.context
    metrics.requests_total.inc()
    metrics.prompt_tokens.inc(usage.prompt_tokens)
    metrics.generation_tokens.inc(usage.completion_tokens)
    metrics.segments.inc(len(prediction.segments))
    for stage, seconds in context.seconds.items():
        metrics.stage_seconds.labels(stage).observe(seconds)
    if sequence.first_token_at is not None:
        metrics.time_to_first_token.observe(sequence.first_token_at - context.arrived)
    if usage.completion_tokens > 1:
        decoding = context.seconds.get(Stage.DECODE, 0.0)
        metrics.time_per_output_token.observe(decoding / (usage.completion_tokens - 1))


def _fit(config: CheckpointConfig, placement: Placement, settings: Settings) -> DeviceMap | None:
    """Where the parts of a model go. Raises CheckpointError, with the numbers, where there is no room for it."""
    element, quantization = placement.dtype.itemsize, settings.quantization
    needed = estimate(config, element, workload_of(settings, limits_of(settings, config)), quantization)
    return place(config, needed, (placement.device, *placement.others), element, quantization)


def _cpu_threads(device: torch.device) -> int | None:
    """Half of the processors for a model on the CPU: the others serve HTTP and prepare pictures meanwhile, and threads
    that wait for each other cost a small model more than they bring. None leaves torch's choice."""
    return max(1, len(os.sched_getaffinity(0)) // 2) if device.type == "cpu" else None


def _info(model: Sa2VA) -> dict[str, str]:
    device, dtype = next(model.parameters()).device, parameter_dtype(model)
    return {"family": model.config.family, "device": str(device), "dtype": str(dtype).removeprefix("torch.")}
