"""A clip through the predictor: which frames are read, how often, how many are alive, and who may stop it."""

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest
from PIL import Image

from sa2va_bento.clips import ClipFrame, ClipQuestion, ClipRequest, FramesSeen
from sa2va_bento.errors import BadRequestError, PromptTooLongError, RequestCancelledError
from sa2va_bento.predictor import Predictor
from sa2va_bento.predictor.clip import WINDOW
from sa2va_bento.settings import Settings
from tests import films
from tests.clips import ListedClip, Notes

SIZE = (160, 120)
RED = (ClipQuestion("Please segment the red circle."),)


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    predictor = Predictor.load(Settings())
    yield predictor
    predictor.close()


def clip(count: int) -> ListedClip:
    return ListedClip(films.frames(count, SIZE))


def test_a_clip_is_read_once_and_encoded_once(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    sam = predictor._runner.model.grounding_encoder
    original = sam.vision_encoder.backbone.forward

    def counted(pixels: object) -> object:
        encoded.append(len(pixels))  # type: ignore[arg-type]
        return original(pixels)

    monkeypatch.setattr(sam.vision_encoder.backbone, "forward", counted)
    film, notes = clip(20), Notes()
    predictor.answer_clip(ClipRequest(film, (*RED, ClipQuestion("Segment the red circle."))), notes)
    assert film.read == 20 == sum(encoded)
    assert [frame.index for frame in notes.frames] == list(range(20))
    assert [len(frame.segments) for frame in notes.frames] == [2] * 20
    assert len(predictor._runner._tracker) == 0


def test_frames_that_masks_start_from_come_first(predictor: Predictor) -> None:
    for seen, count, expected in (
        (FramesSeen.UNIFORM, 3, [0, 5, 11, 1, 2, 3, 4, 6, 7, 8, 9, 10]),
        ((7, 2), 5, [2, 7, 0, 1, 3, 4, 5, 6, 8, 9, 10, 11]),
        (FramesSeen.FIRST, 2, list(range(12))),
        (FramesSeen.FIRST, 50, list(range(12))),
    ):
        notes = Notes()
        predictor.answer_clip(ClipRequest(clip(12), RED, seen=seen, seen_count=count), notes)
        assert [frame.index for frame in notes.frames] == expected


def test_a_frame_that_there_is_not(predictor: Predictor) -> None:
    with pytest.raises(BadRequestError, match="the clip has 3 frames, none at 3"):
        predictor.answer_clip(ClipRequest(clip(3), RED, seen=(3,)), Notes())
    with pytest.raises(BadRequestError, match="no frame"):
        predictor.answer_clip(ClipRequest(clip(0), RED), Notes())
    with pytest.raises(PromptTooLongError):
        predictor.answer_clip(ClipRequest(clip(3), (ClipQuestion("word " * 9000),)), Notes())


class _Watched:
    """Counts how many of its pictures are alive."""

    def __init__(self, count: int) -> None:
        self._images = count
        self._made: list[weakref.ref[Image.Image]] = []
        self.most = 0

    @property
    def alive(self) -> int:
        return sum(made() is not None for made in self._made)

    def frames(self) -> Iterator[ClipFrame]:
        for index in range(self._images):
            image = films.frames(8, SIZE)[index % 8].copy()
            self._made.append(weakref.ref(image))
            self.most = max(self.most, self.alive)
            yield ClipFrame(index, index, None, image)
            del image

    def count(self) -> int:
        return self._images


def test_few_frames_are_alive_however_long_the_clip(predictor: Predictor) -> None:
    film = _Watched(30)
    predictor.answer_clip(ClipRequest(film, RED), Notes())
    assert film.most <= WINDOW + 5 + 2
    gc.collect()
    assert film.alive == 0


def test_a_clip_is_stopped_from_another_thread(predictor: Predictor) -> None:
    stop, notes = threading.Event(), Notes()
    request = ClipRequest(clip(500), RED, is_cancelled=stop.is_set)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            predictor.answer_clip(request, notes)
        except RequestCancelledError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while len(notes.frames) < 2:
        assert thread.is_alive()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert len(failures) == 1
    assert len(notes.frames) < 500
    predictor.answer_clip(ClipRequest(clip(6), RED), Notes())
    assert len(predictor._runner._tracker) == 0


def test_a_watcher_that_fails_fails_its_clip_alone(predictor: Predictor) -> None:
    class Broken(Notes):
        def on_frame(self, frame: object) -> None:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        predictor.answer_clip(ClipRequest(clip(30), RED), Broken())
    notes = Notes()
    predictor.answer_clip(ClipRequest(clip(6), RED), notes)
    assert len(notes.frames) == 6


def test_soft_masks_are_those_that_are_cut(predictor: Predictor) -> None:
    notes = Notes()
    predictor.answer_clip(ClipRequest(clip(3), RED, soft_masks=True, mask_threshold=0.5), notes)
    for frame in notes.frames:
        soft = frame.segments[0].probability
        assert soft is not None
        assert (frame.segments[0].mask == (soft > 127)).mean() > 0.999
