"""A loaded model that answers requests from any thread: admission, the preparing threads, the engine's thread."""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from sa2va_bento.engine.bridge import EngineThread
from sa2va_bento.engine.runner import Runner, TokenIds
from sa2va_bento.engine.scheduler import Limits, Scheduler
from sa2va_bento.engine.sequence import Generation
from sa2va_bento.errors import InferenceError, OverloadedError, Sa2VAError
from sa2va_bento.model.checkpoint import choose_placement, load_model, resolve
from sa2va_bento.model.internvl import InternVLSa2VA, parameter_dtype
from sa2va_bento.model.tokenizer import PromptTokenizer
from sa2va_bento.pipeline import Pipeline, Prepared
from sa2va_bento.prompt import IMAGE_CONTEXT, SEG
from sa2va_bento.result import Prediction, PredictRequest
from sa2va_bento.settings import Settings

logger = logging.getLogger(__name__)

PREPARE_THREADS = 2
"""Threads that turn pictures into tensors and logits into masks, beside the engine's own."""


class Predictor:
    """Made by `load`. `submit` and `predict` may be called from any thread."""

    def __init__(self, model: InternVLSa2VA, tokenizer: PromptTokenizer, settings: Settings) -> None:
        tokens = TokenIds(image_context=tokenizer.id_of(IMAGE_CONTEXT), seg=tokenizer.id_of(SEG))
        self._pipeline = Pipeline(model.config, tokenizer, settings)
        limits = Limits(slots=settings.slots, context=self._pipeline.context, max_prefill=settings.max_prefill)
        self._runner = Runner(model, tokens, limits, int(settings.feature_cache_mb * 2**20))
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
        if settings.threads:
            torch.set_num_threads(settings.threads)
        placement = choose_placement(settings.device, settings.dtype)
        folder = resolve(settings.model_dir_or_id, settings.model_revision, settings.cache_dir)
        tokenizer = PromptTokenizer.from_dir(folder)
        return cls(load_model(folder, placement), tokenizer, settings)

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

    def submit(self, request: PredictRequest) -> "Future[Prediction]":
        """Queues a request. Cancelling the future takes it out of the engine within one token.

        The future fails with what is wrong with the request: BadRequestError, PayloadTooLargeError,
        DeadlineExceededError, InferenceError.

        Raises:
            OverloadedError: at once, when `max_queue` requests are pending.
        """
        self._admit()
        answer: Future[Prediction] = Future()
        answer.add_done_callback(lambda _: self._leave())
        self._pool.submit(self._prepare, request, answer, time.perf_counter())
        return answer

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

    def _prepare(self, request: PredictRequest, answer: "Future[Prediction]", started: float) -> None:
        """In the pool: pixels and prompt, then over to the engine."""
        if answer.cancelled():
            return
        try:
            prepared = self._pipeline.prepare(request)
            picture, sequence = prepared.picture, prepared.sequence
            if picture and picture.tiles_key not in self._runner.tile_features:
                picture.tiles()
            sequence.is_cancelled = answer.cancelled
            sequence.spent("preprocess", time.perf_counter() - started)
            generated = self._engine.submit(sequence)
            generated.add_done_callback(lambda done: self._generated(done, prepared, answer, started))
            if picture and picture.key not in self._runner.sam_features:
                picture.sam_pixels()  # while the language model reads
        except Exception as error:
            _fail(answer, error)

    def _generated(
        self, generated: "Future[Generation]", prepared: Prepared, answer: "Future[Prediction]", started: float
    ) -> None:
        """On the engine's thread: straight back to the pool."""
        try:
            self._pool.submit(self._finish, generated, prepared, answer, started)
        except RuntimeError as error:  # the pool has closed meanwhile
            _fail(answer, generated.exception() or error)

    def _finish(
        self, generated: "Future[Generation]", prepared: Prepared, answer: "Future[Prediction]", started: float
    ) -> None:
        """In the pool: masks at the picture's size."""
        try:
            prediction = self._pipeline.finish(prepared, generated.result())
        except Exception as error:
            _fail(answer, error)
            return
        total = {"total": 1e3 * (time.perf_counter() - started)}
        if answer.set_running_or_notify_cancel():
            answer.set_result(replace(prediction, timings_ms={**prediction.timings_ms, **total}))


def _fail(answer: "Future[Prediction]", error: BaseException) -> None:
    if not isinstance(error, Sa2VAError):
        logger.error("a request failed", exc_info=error)
        error = InferenceError("the request failed")
    if answer.set_running_or_notify_cancel():
        answer.set_exception(error)


def _info(model: InternVLSa2VA) -> dict[str, str]:
    device, dtype = next(model.parameters()).device, parameter_dtype(model)
    return {"family": model.config.family, "device": str(device), "dtype": str(dtype).removeprefix("torch.")}
