"""A loaded model that answers requests from any thread: admission, the worker pool, the engine's thread."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from sa2va_bento import metrics
from sa2va_bento.clips import ClipRequest, ClipWatcher
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.scheduler import Scheduler
from sa2va_bento.engine.thread import EngineThread
from sa2va_bento.engine.warmup import warm_up
from sa2va_bento.errors import PayloadTooLargeError
from sa2va_bento.model.adapters import NO_ADAPTERS, Adapters
from sa2va_bento.model.base import Sa2VA, parameter_dtype
from sa2va_bento.model.loading.memory import device_memory
from sa2va_bento.model.loading.tokenizers import PromptTokenizer
from sa2va_bento.predictor.clip import ClipTask
from sa2va_bento.predictor.loading import load
from sa2va_bento.predictor.observer import MetricsObserver
from sa2va_bento.predictor.task import Task
from sa2va_bento.processing.admission import Admission
from sa2va_bento.processing.processor import Processor
from sa2va_bento.processing.workers import WorkerPool, give_back_memory
from sa2va_bento.settings import Settings
from sa2va_bento.types import (
    EngineStats,
    Exchange,
    Prediction,
    PredictRequest,
    RequestContext,
    StreamEvent,
)

MOST_WORKERS = 4
"""Most threads that decode pictures, turn them into tensors, and logits into masks and answers, beside the engine's."""

WARM_UP = PredictRequest("Please segment everything.", Image.new("RGB", (448, 448)), max_new_tokens=2)

Made = TypeVar("Made")
Rendered = TypeVar("Rendered")
OnEvent = Callable[[StreamEvent], None]


class Predictor:
    """Made by `load`. `predict`, `submit` and `answer` may be called from any thread."""

    def __init__(
        self,
        model: Sa2VA,
        tokenizer: PromptTokenizer,
        settings: Settings,
        limits: Limits,
        adapters: Adapters = NO_ADAPTERS,
    ) -> None:
        self._processor = Processor(model.config, tokenizer, settings, limits.context, adapters)
        self._runner = Runner(
            model,
            self._processor.image_token_id,
            limits,
            feature_cache_bytes=limits.feature_cache_bytes,
            prefix_cache_bytes=limits.prefix_cache_bytes,
            adapters=adapters,
        )
        if self._runner.device.type == "cuda":  # on a CPU there is little to gain, and a large model takes a minute
            self.warm_up()
        self._workers = WorkerPool(min(MOST_WORKERS, max(2, os.cpu_count() or 1)), on_idle=give_back_memory)
        self._is_out_of_memory = False
        self._admission, self._running = Admission(limits.slots, settings.max_queue), 0
        self.info = _info(model)
        observer = MetricsObserver(self)
        observer.on_step(0, 0)
        self._engine = EngineThread(self._runner, Scheduler(limits), observer)

    @classmethod
    def load(cls, settings: Settings) -> "Predictor":
        """Loads the model that the settings name and starts its thread.

        Raises:
            CheckpointError: one line that names what is wrong.
        """
        loaded = load(settings)
        return cls(loaded.model, loaded.tokenizer, settings, loaded.limits, loaded.adapters)

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

    def check_room(self, left_s: float, coming: int = 0) -> None:
        """Raises OverloadedError where a request whose deadline is `left_s` seconds away would be refused now."""
        self._admission.check(left_s, coming)

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
        task = Task(exchange, self._processor, self._runner, self._engine, self._workers)
        task.answer.add_done_callback(lambda _: self._leave(task.is_out_of_memory))
        self._workers.submit(task.prepare)
        return task.answer

    def answer_clip(self, request: ClipRequest, watcher: ClipWatcher) -> None:
        """Answers questions about a clip; runs in the caller's thread, which is told through `watcher` as it goes.

        Raises:
            Sa2VAError: what is wrong with the request, or RequestCancelledError.
        """
        ClipTask(request, watcher, self._processor, self._engine, self._runner.join_prompts).run()

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


def _info(model: Sa2VA) -> dict[str, str]:
    device, dtype = next(model.parameters()).device, parameter_dtype(model)
    return {"family": model.config.family, "device": str(device), "dtype": str(dtype).removeprefix("torch.")}
