"""A loaded model that answers requests from any thread: admission, the preparing threads, the engine's thread."""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import torch
from PIL import Image

from sa2va_bento.engine.bridge import EngineThread
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.sequence import Generation, MaskLogits, Sequence
from sa2va_bento.engine.warmup import warm_up
from sa2va_bento.errors import InferenceError, OverloadedError, PayloadTooLargeError, Sa2VAError
from sa2va_bento.model.checkpoint import Placement, choose_placement, load_model
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.families import read_config
from sa2va_bento.model.family import Sa2VA, parameter_dtype
from sa2va_bento.model.hub import description, resolve
from sa2va_bento.model.memory import estimate
from sa2va_bento.model.spread import DeviceMap, place
from sa2va_bento.model.tokenizer import PromptTokenizer
from sa2va_bento.pipeline import Pipeline, Prepared
from sa2va_bento.prompt import TEMPLATES
from sa2va_bento.result import Prediction, PredictRequest, Segment, SegmentReady, StreamEvent, TextDelta
from sa2va_bento.settings import Settings
from sa2va_bento.streaming import Strand
from sa2va_bento.workload import limits_of, workload_of

logger = logging.getLogger(__name__)

PREPARE_THREADS = 2
"""Threads that turn pictures into tensors and logits into masks, beside the engine's own."""

WARM_UP = PredictRequest("Please segment everything.", Image.new("RGB", (448, 448)), max_new_tokens=2)

OnEvent = Callable[[StreamEvent], None]


class Predictor:
    """Made by `load`. `submit` and `predict` may be called from any thread."""

    def __init__(self, model: Sa2VA, tokenizer: PromptTokenizer, settings: Settings) -> None:
        self._pipeline = Pipeline(model.config, tokenizer, settings)
        limits = limits_of(settings, model.config)
        image_token = tokenizer.id_of(TEMPLATES[model.config.template].image_token)
        self._runner = Runner(
            model,
            image_token,
            limits,
            feature_cache_bytes=settings.feature_cache_bytes,
            prefix_cache_bytes=settings.prefix_cache_bytes,
        )
        if self._runner.device.type == "cuda":  # on a CPU there is little to gain, and a large model takes a minute
            self.warm_up()
        self._engine = EngineThread(self._runner, Scheduler(limits))
        self._pool = ThreadPoolExecutor(PREPARE_THREADS, thread_name_prefix="sa2va-prepare")
        self._max_pending = settings.max_queue
        self._pending, self._lock = 0, threading.Lock()
        self.info = _info(model)

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
        parts = _fit(read_config(description(*wanted) / "config.json"), placement, settings)
        folder = resolve(*wanted)  # gigabytes, which a model that does not fit is spared
        tokenizer = PromptTokenizer.from_dir(folder)
        return cls(load_model(folder, placement, settings.quantization, parts), tokenizer, settings)

    def warm_up(self) -> None:
        """Answers a black square that nobody asks about, unless a picture is more than the context holds."""
        with suppress(PayloadTooLargeError):
            sequence = self._pipeline.prepare(WARM_UP).sequence
            warm_up(self._runner, sequence, self._runner.limits.max_prefill)

    @property
    def is_ready(self) -> bool:
        return self._engine.is_alive

    @property
    def is_alive(self) -> bool:
        return self._engine.is_alive

    @property
    def queue_depth(self) -> int:
        """Requests accepted and not yet answered."""
        return self._pending

    def predict(self, request: PredictRequest) -> Prediction:
        """Blocking form of `submit`."""
        return self.submit(request).result()

    def submit(self, request: PredictRequest, on_event: OnEvent | None = None) -> "Future[Prediction]":
        """Queues a request. Cancelling the future takes it out of the engine within one token.

        The future fails with what is wrong with the request: BadRequestError, PayloadTooLargeError,
        DeadlineExceededError, InferenceError. `on_event` is told how the answer grows, on threads of the predictor and
        before the future is done; it must be quick.

        Raises:
            OverloadedError: at once, when `max_queue` requests are pending.
        """
        self._admit()
        job = _Job(request, self._pipeline, self._runner, self._engine, self._pool, on_event)
        job.answer.add_done_callback(lambda _: self._leave())
        self._pool.submit(job.prepare)
        return job.answer

    def close(self) -> None:
        """Stops the engine; unfinished requests fail with NotReadyError."""
        self._engine.close()
        self._pool.shutdown(wait=True)

    def _admit(self) -> None:
        with self._lock:
            if self._pending >= self._max_pending:
                raise OverloadedError(f"{self._pending} requests are waiting already; try again later")
            self._pending += 1

    def _leave(self) -> None:
        with self._lock:
            self._pending -= 1


class _Job:
    """One request on its way: prepared in the pool, generated on the engine's thread, finished in the pool. Whatever
    goes wrong ends in its `answer`. It is the sequence's listener where the answer is watched."""

    def __init__(
        self,
        request: PredictRequest,
        pipeline: Pipeline,
        runner: Runner,
        engine: EngineThread,
        pool: ThreadPoolExecutor,
        on_event: OnEvent | None,
    ) -> None:
        self.answer: Future[Prediction] = Future()
        self._request, self._pipeline, self._runner, self._engine = request, pipeline, runner, engine
        self._strand, self._on_event = Strand(pool), on_event
        self._text = pipeline.reply_text(request)
        self._segments: tuple[Segment, ...] = ()
        self._started = time.perf_counter()

    def prepare(self) -> None:
        """In the pool: pixels and prompt, then over to the engine."""
        if self.answer.cancelled():
            return
        try:
            prepared = self._prepared = self._pipeline.prepare(self._request)
            if prepared.picture and prepared.picture.tiles_key not in self._runner.tile_features:
                prepared.picture.tiles()
            self._start(prepared)
            if prepared.picture and prepared.picture.key not in self._runner.sam_features:
                prepared.picture.sam_pixels()  # while the language model reads
        except Exception as error:
            self._fail(error)

    def on_token(self, token: int) -> None:
        self._tell_text(self._text.push(token))

    def on_masks(self, sequence: Sequence) -> None:
        ids, masks = tuple(sequence.output_ids), sequence.masks
        self._in_pool(lambda: self._show_segments(ids, masks))

    def _start(self, prepared: Prepared) -> None:
        sequence = prepared.sequence
        sequence.is_cancelled = self.answer.cancelled
        sequence.listener = self if self._on_event else None
        sequence.spent("preprocess", time.perf_counter() - self._started)
        self._engine.submit(sequence).add_done_callback(lambda done: self._in_pool(lambda: self._finish(done)))

    def _in_pool(self, work: Callable[[], None]) -> None:
        try:
            self._strand.submit(work)
        except RuntimeError as error:  # the pool has closed meanwhile
            self._fail(error)

    def _show_segments(self, ids: tuple[int, ...], masks: tuple[MaskLogits, ...]) -> None:
        start = len(self._segments)
        try:
            self._segments += self._pipeline.segments(self._prepared, ids, masks, start)
        except Exception as error:
            self._fail(error)
        for index, segment in enumerate(self._segments[start:], start):
            self._tell(SegmentReady(index, segment))

    def _finish(self, generated: "Future[Generation]") -> None:
        try:
            prediction = self._pipeline.finish(self._prepared, generated.result(), self._segments)
        except Exception as error:
            self._fail(error)
            return
        self._tell_text(self._text.rest())
        total = {"total": 1e3 * (time.perf_counter() - self._started)}
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_result(replace(prediction, timings_ms={**prediction.timings_ms, **total}))

    def _tell_text(self, text: str) -> None:
        if text:
            self._tell(TextDelta(text))

    def _tell(self, event: StreamEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except Exception:  # a watcher that breaks does not break the engine
            logger.exception("an answer's watcher failed")
            self._on_event = None

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Sa2VAError):
            logger.error("a request failed", exc_info=error)
            error = InferenceError("the request failed")
        with suppress(InvalidStateError):  # cancelled, or failed before
            self.answer.set_exception(error)


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
