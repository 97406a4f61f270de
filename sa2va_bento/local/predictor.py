"""A predictor for Python: pictures in any form, answers that show themselves, streams and batches."""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.clips import ClipRequest
from sa2va_bento.errors import BadRequestError, Sa2VAError
from sa2va_bento.local.answer import Answer
from sa2va_bento.local.following import AnyVideo, ClipEvent, Watcher, clip_request, put
from sa2va_bento.local.pictures import AnyPicture, to_image
from sa2va_bento.predictor import Predictor as Core
from sa2va_bento.settings import Settings, load_settings
from sa2va_bento.types import (
    Prediction,
    PredictRequest,
    RequestContext,
    Sampling,
    SegmentReady,
    StreamEvent,
    TextDelta,
    Turn,
)

NO_DEADLINE_S = 10.0 * 365 * 86_400
"""Nobody waits at the other end of a connection."""

Asked = tuple[AnyPicture | None, str]
"""A picture and a prompt."""


class Predictor(Core):
    """A loaded model. Made by `load`; to be closed, or used as a context manager."""

    @classmethod
    def load(cls, model: "Settings | str | PathLike[str] | None" = None, **options: Any) -> "Predictor":
        """Loads a model: a Hub id, a folder, settings, or what the variables name (the embedded model otherwise).

        Args:
            model: Which.
            options: Fields of `Settings`, e.g. `device="cuda"`, `max_new_tokens=256`; `adapters` may be a mapping of
                names to folders or Hub ids.

        Raises:
            CheckpointError: one line that names what is wrong.
        """
        settings = model if isinstance(model, Settings) else load_settings()
        if model is not None and not isinstance(model, Settings):
            options = {"model_path": str(model), **options}
        if isinstance(adapters := options.get("adapters"), Mapping):
            options["adapters"] = ",".join(f"{name}={source}" for name, source in adapters.items())
        chosen = Settings.model_validate({**settings.model_dump(exclude_unset=True), **options})
        return cast("Predictor", super().load(chosen.model_copy(update={"max_queue": MOST_WAITING})))

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def predict(self, picture: PredictRequest) -> Prediction: ...

    @overload
    def predict(self, picture: AnyPicture | None, prompt: str, **options: Any) -> Answer: ...

    def predict(
        self, picture: PredictRequest | AnyPicture | None, prompt: str | None = None, **options: Any
    ) -> Prediction | Answer:
        """The answer to a prompt about a picture.

        Args:
            picture: A path, bytes, an image of Pillow in any mode, an array (H, W, 3), or None; or a whole
                `PredictRequest`, which is answered with a plain `Prediction`.
            prompt: What to do or say.
            options: `regions` (boolean masks (H, W)), `history` ((role, text) pairs), `mask_threshold`,
                `max_new_tokens`, `max_tiles`, `temperature`, `top_p`, `seed`, `stop`, `soft_masks`, `adapter` (a name).

        Raises:
            Sa2VAError: what is wrong with it.
        """
        if isinstance(picture, PredictRequest):
            return super().predict(picture)
        request, name = _request(picture, prompt, options)
        return Answer(self.submit(request).result(), request.image, request.prompt, name)

    def stream(
        self, picture: AnyPicture | None, prompt: str, **options: Any
    ) -> Iterator[TextDelta | SegmentReady | Answer]:
        """The answer as it grows: text, segments, at last the whole `Answer`. Leaving the loop frees the model."""
        request, name = _request(picture, prompt, options)
        told: queue.SimpleQueue[StreamEvent | None] = queue.SimpleQueue()
        future = self.submit(request, told.put)
        future.add_done_callback(lambda _: told.put(None))
        try:
            while (event := told.get()) is not None:
                yield event
            yield Answer(future.result(), request.image, request.prompt, name)
        finally:
            future.cancel()

    def predict_many(
        self, asked: Iterable[Asked], *, keep_going: bool = False, **options: Any
    ) -> "Iterator[Answer | Sa2VAError]":
        """Answers in the order of what is asked; as many at once as the model takes, so that its batch is always full,
        and no more pictures in memory than that.

        Args:
            asked: Pairs of a picture and a prompt; read as they are needed.
            keep_going: Whether what fails is given as its error, in its place, instead of raised.
            options: As for `predict`, for all.
        """
        window: deque[_Pending] = deque()
        try:
            for picture, prompt in asked:
                window.append(self._pending(picture, prompt, options))
                if len(window) >= self._at_once:
                    yield _settled(window.popleft(), keep_going)
            while window:
                yield _settled(window.popleft(), keep_going)
        finally:
            for pending in window:
                pending.cancel()

    def follow(self, video: AnyVideo, *prompts: str, **options: Any) -> Iterator[ClipEvent]:
        """A video's replies, one a prompt, then for each frame a segment for each `[SEG]` of them (`sa2va_bento.clips`
        has the types). Leaving the loop frees the model.

        Args:
            video: A file: MP4, MOV, WebM, MKV, AVI, or an animated GIF, WebP or PNG; or the files of its frames.
            prompts: What to do or say.
            options: `start_s`, `end_s`, `every_nth`, `fps`, `max_frames`; `frames_seen` ("model", "first", "uniform" or
                places), `frames_seen_count`; `mode` and `selected`, where the checkpoint samples clips;
                `mask_threshold`, `max_new_tokens`, `soft_masks`, `adapter`.
        """
        told: queue.Queue[ClipEvent | BaseException | None] = queue.Queue(maxsize=8)
        stop = threading.Event()
        request = clip_request(video, prompts, options, stop)
        thread = threading.Thread(target=self._follow, args=(request, told, stop), daemon=True)
        thread.start()
        try:
            while (event := told.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            stop.set()
            thread.join()

    @property
    def _at_once(self) -> int:
        return 2 * self._runner.limits.slots

    def _pending(self, picture: AnyPicture | None, prompt: str, options: dict[str, Any]) -> "_Pending":
        """Decoding is the worker threads' business, too."""
        made: Future[tuple[PredictRequest, str]] = self.in_worker(lambda: _request(picture, prompt, options))
        return _Pending(self, made)

    def _follow(
        self, request: ClipRequest, told: "queue.Queue[ClipEvent | BaseException | None]", stop: threading.Event
    ) -> None:
        end: BaseException | None = None
        try:
            self.answer_clip(request, Watcher(told, stop))
        except BaseException as error:
            end = error
        put(told, end, stop)


MOST_WAITING = 1_000_000
"""A caller in the same process is its own queue."""


class _Pending:
    """One of many: its picture being decoded, then its answer being made."""

    def __init__(self, predictor: Predictor, made: "Future[tuple[PredictRequest, str]]") -> None:
        self._answer: Future[Answer] = Future()
        self._running: Future[Any] = made
        self._predictor = predictor
        made.add_done_callback(self._submit)

    def result(self) -> Answer:
        return self._answer.result()

    def cancel(self) -> None:
        self._running.cancel()

    def _submit(self, made: "Future[tuple[PredictRequest, str]]") -> None:
        try:
            request, name = made.result()
            running = self._running = self._predictor.submit(request)
        except BaseException as error:
            self._answer.set_exception(error)
            return
        running.add_done_callback(lambda done: self._finish(done, request, name))

    def _finish(self, done: "Future[Prediction]", request: PredictRequest, name: str) -> None:
        try:
            self._answer.set_result(Answer(done.result(), request.image, request.prompt, name))
        except BaseException as error:
            self._answer.set_exception(error)


def _settled(pending: _Pending, keep_going: bool) -> Answer | Sa2VAError:
    try:
        return pending.result()
    except Sa2VAError as error:
        if keep_going:
            return error
        raise
    except OSError as error:
        if keep_going:
            return BadRequestError(str(error))
        raise


_SAMPLING = ("temperature", "top_p", "seed")
_OPTIONS = ("regions", "history", "mask_threshold", "max_new_tokens", "max_tiles", "stop", "soft_masks", "adapter")


def _request(picture: AnyPicture | None, prompt: str | None, options: dict[str, Any]) -> tuple[PredictRequest, str]:
    """The core's request, and what the picture is called. Raises BadRequestError."""
    if prompt is None:
        raise BadRequestError("predict takes a picture and a prompt")
    if unknown := sorted(options.keys() - {*_OPTIONS, *_SAMPLING}):
        raise BadRequestError(f"unknown option: {unknown[0]}")
    image = None if picture is None else to_image(picture)
    chosen = {name: options[name] for name in _OPTIONS if name in options}
    chosen["regions"] = tuple(_region(region) for region in chosen.get("regions", ()))
    chosen["history"] = tuple(Turn(*turn) if isinstance(turn, Sequence) else turn for turn in chosen.get("history", ()))
    sampling = Sampling(**{name: options[name] for name in _SAMPLING if name in options})
    request = PredictRequest(prompt, image, **chosen, sampling=sampling)
    name = Path(picture).name if isinstance(picture, str | PathLike) else "picture.png"
    return replace(request, context=RequestContext(timeout_s=NO_DEADLINE_S)), name


def _region(region: Any) -> NDArray[np.bool_]:
    return np.asarray(region).astype(bool)
