"""A model that isn't one: deterministic answers in no time, as slow, full or broken as a test asks."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from sa2va_bento.clips import ClipReply, ClipRequest, ClipWatcher, FrameSegments, Track
from sa2va_bento.errors import OverloadedError, RequestCancelledError
from sa2va_bento.types import Exchange, Prediction, PredictRequest, Segment, SegmentReady, StreamEvent, TextDelta, Usage

Made = TypeVar("Made")
Rendered = TypeVar("Rendered")


class FakePredictor:
    """Segments the left half of every picture when the prompt asks to segment, else says what it was asked.

    While `gate` is closed (cleared) requests wait; while `rest` is closed a watched answer stops after its first
    words. `failure` is raised instead of an answer, or of the rest of one.
    """

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self.gate = threading.Event()
        self.gate.set()
        self.rest = threading.Event()
        self.rest.set()
        self.frames_left = threading.Semaphore(10**9)
        self.clips: list[ClipRequest] = []
        self.told_at: list[float] = []
        self.failure: Exception | None = None
        self.requests: list[PredictRequest] = []
        self.cancelled = 0
        self.is_ready = True
        self.is_alive = True
        self.closed = False
        self.info = {"family": "fake", "device": "cpu", "dtype": "float32"}
        self._pending = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(64, "fake-worker")

    @property
    def queue_depth(self) -> int:
        return self._pending

    def answer(self, exchange: Exchange[Rendered]) -> "Future[Rendered]":
        with self._lock:
            if self._pending >= self.capacity:
                raise OverloadedError("the queue is full")
            self._pending += 1
        future: Future[Rendered] = Future()
        future.add_done_callback(self._leave)
        self._pool.submit(self._work, exchange, future)
        return future

    def check_room(self, left_s: float, coming: int = 0) -> None:
        if self._pending >= self.capacity:
            raise OverloadedError("the queue is full")

    def in_worker(self, work: Callable[[], Made]) -> "Future[Made]":
        return self._pool.submit(work)

    def answer_clip(self, request: ClipRequest, watcher: ClipWatcher) -> None:
        """Follows the left half of a clip where the prompt asks to segment; `frames_left` frames, then it waits."""
        self.clips.append(request)
        wants = ["segment" in question.prompt.lower() for question in request.questions]
        for number, question in enumerate(request.questions):
            watcher.on_text(number, "Sure, ")
            if self.failure:
                raise self.failure
            result = "Sure, [SEG]." if wants[number] else f"You asked: {question.prompt}"
            tracks = (Track(sum(wants[:number]), number, None, None),) if wants[number] else ()
            watcher.on_reply(ClipReply(number, result, result, tracks, Usage(10, 5, 3), "stop"))
        for frame in request.clip.frames() if any(wants) else ():
            self._next_frame(request)
            width, height = frame.image.size
            half = np.zeros((height, width), bool)
            half[:, : width // 2] = True
            soft = half.astype(np.uint8) * 255 if request.soft_masks else None
            segments = (Segment(half, 0.9, 0.8, request.mask_threshold, probability=soft),) * sum(wants)
            watcher.on_frame(FrameSegments(frame.index, frame.source_index, frame.time_s, frame.image.size, segments))

    def _next_frame(self, request: ClipRequest) -> None:
        while not self.frames_left.acquire(timeout=0.02):
            if request.is_cancelled():
                raise RequestCancelledError("cancelled")
        if request.is_cancelled():
            raise RequestCancelledError("cancelled")

    def close(self) -> None:
        self.closed = True
        self.gate.set()
        self.rest.set()
        self._pool.shutdown(wait=False)

    def _leave(self, future: "Future[Any]") -> None:
        with self._lock:
            self._pending -= 1
            self.cancelled += future.cancelled()

    def _work(self, exchange: Exchange[Rendered], future: "Future[Rendered]") -> None:
        try:
            rendered = self._rendered(exchange, future)
        except Exception as error:
            if not future.cancelled():
                future.set_exception(error)
            return
        if future.set_running_or_notify_cancel():
            future.set_result(rendered)

    def _rendered(self, exchange: Exchange[Rendered], future: "Future[Rendered]") -> Rendered:
        request = exchange.read()
        self.requests.append(request)
        watched = exchange.begin()
        self._wait(self.gate, future)
        for number, event in enumerate(events(answer(request)) if watched else ()):
            if number:
                self._wait(self.rest, future)
            if future.cancelled() or (self.failure and number):
                break
            self.told_at.append(time.monotonic())
            exchange.tell(event)
        if self.failure is not None:
            raise self.failure
        return exchange.render(answer(request))

    def _wait(self, event: threading.Event, future: "Future[Any]") -> None:
        while not event.wait(0.01) and not future.cancelled():
            pass

    def wait_for_requests(self, count: int) -> None:
        """Returns once that many requests have arrived in all."""
        deadline = time.monotonic() + 10
        while len(self.requests) < count:
            assert time.monotonic() < deadline, f"{len(self.requests)} of {count} requests arrived"
            time.sleep(0.005)


def answer(request: PredictRequest) -> Prediction:
    """What the fake says."""
    segments = request.image is not None and "segment" in request.prompt.lower()
    return Prediction(
        result="Sure, <p> the left half </p> [SEG]." if segments else f"You asked: {request.prompt}",
        text="Sure, the left half." if segments else f"You asked: {request.prompt}",
        segments=(_left_half(request),) if segments else (),
        image_size=request.image.size if request.image else None,
        usage=Usage(prompt_tokens=300, image_tokens=256 if request.image else 0, completion_tokens=5),
        finish_reason="stop",
        timings_ms={"queue": 0.1, "preprocess": 1.0, "prefill": 2.0, "decode": 3.0, "segment": 4.0, "total": 10.1},
    )


def events(prediction: Prediction) -> Iterator[StreamEvent]:
    """The prediction's text word by word, then its segments."""
    for word in re.findall(r"\s*\S+", prediction.result):
        yield TextDelta(word)
    for index, segment in enumerate(prediction.segments):
        yield SegmentReady(index, segment)


def _left_half(request: PredictRequest) -> Segment:
    assert request.image is not None
    width, height = request.image.size
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return Segment(
        mask=mask,
        score=0.93,
        object_score=0.99,
        threshold=request.mask_threshold,
        phrase="the left half",
        text_span=(6, 19),
    )
