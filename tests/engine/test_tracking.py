"""Tracking as a stage: turns between clips and everybody else, failures that stay alone, ends that come once."""

import numpy as np
import pytest

from sa2va_bento.engine.sequence import MaskLogits
from sa2va_bento.engine.tracking import FRAMES_TOGETHER, ClipTracking, FramePixels, TimeShare, TrackingStage
from sa2va_bento.errors import DeviceLostError, InferenceError, RequestCancelledError, Sa2VAError

PIXELS = np.zeros((3, 2, 2), np.float32)
MASK = MaskLogits(np.zeros((2, 2), np.float32), 0.5, 0.5)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeRunner:
    """A frame takes `cost_s` of the clock; clips in `broken` fail."""

    def __init__(self, clock: Clock | None = None, cost_s: float = 0.0) -> None:
        self.clock, self.cost_s = clock or Clock(), cost_s
        self.batches: list[int] = []
        self.broken: set[ClipTracking] = set()
        self.released: list[ClipTracking] = []
        self.is_alive = True

    def track(self, clip: ClipTracking, frames: list[FramePixels]) -> list[tuple[MaskLogits, ...]]:
        if clip in self.broken:
            raise RuntimeError("out of memory")
        self.clock.now += self.cost_s * len(frames)
        self.batches.append(len(frames))
        return [(MASK,)] * len(frames)

    def release_clip(self, clip: ClipTracking) -> None:
        self.released.append(clip)

    def is_device_alive(self) -> bool:
        return self.is_alive


class Followed:
    """A clip in a stage, and what was told of it."""

    def __init__(self, stage: TrackingStage, frames: int, fed: bool = True) -> None:
        self.frames: list[int] = []
        self.ends: list[Sa2VAError | None] = []
        self.is_cancelled = False
        self.clip = ClipTracking(
            [1], frozenset(), lambda index, masks: self.frames.append(index), lambda: self.is_cancelled
        )
        self.clip.ready.extend(FramePixels(index, PIXELS) for index in range(frames))
        self.clip.is_fed = fed
        stage.add(self.clip, self.ends.append)


def test_a_clip_goes_through_and_leaves_once() -> None:
    runner = FakeRunner()
    stage = TrackingStage(runner, 0.3)
    followed = Followed(stage, 10)
    while stage.has_work:
        stage.step(others_wait=False)
    assert followed.frames == list(range(10))
    assert followed.ends == [None]
    assert runner.released == [followed.clip]
    assert max(runner.batches) == FRAMES_TOGETHER


def test_a_clip_that_waits_for_its_frames_is_no_work() -> None:
    stage = TrackingStage(FakeRunner(), 0.3)
    followed = Followed(stage, 0, fed=False)
    assert not stage.has_work
    followed.clip.ready.append(FramePixels(0, PIXELS))
    assert stage.has_work
    stage.step(others_wait=False)
    assert (followed.frames, stage.has_work, followed.ends) == ([0], False, [])
    followed.clip.is_fed = True
    stage.step(others_wait=False)
    assert followed.ends == [None]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("other_s", [0.002, 0.02, 0.5])
def test_clips_take_no_more_than_their_share_while_others_wait(share: float, other_s: float) -> None:
    clock = Clock()
    runner = FakeRunner(clock, cost_s=0.05)
    stage = TrackingStage(runner, share, clock)
    Followed(stage, 10_000)
    stage.step(others_wait=True)
    began, longest = clock.now, 0.0
    while clock.now - began < 60:
        before = clock.now
        clock.now += other_s  # a step of the others
        stage.step(others_wait=True)
        longest = max(longest, clock.now - before - other_s)
    spent = 0.05 * (sum(runner.batches) - 1)
    assert spent / (clock.now - began) <= share + 0.02
    assert spent / (clock.now - began) >= min(share, 0.05 / (0.05 + other_s)) * 0.9
    assert longest == pytest.approx(0.05)  # one frame: what a step of the others waits at most


def test_a_clip_alone_has_all_the_time() -> None:
    clock = Clock()
    runner = FakeRunner(clock, cost_s=0.05)
    stage = TrackingStage(runner, 0.1, clock)
    followed = Followed(stage, 40)
    steps = 0
    while stage.has_work:
        stage.step(others_wait=False)
        steps += 1
    assert steps <= 40 / FRAMES_TOGETHER + 1
    assert len(followed.frames) == 40


def test_share_is_not_saved_up_while_nobody_waits() -> None:
    clock = Clock()
    share = TimeShare(0.5, clock)
    clock.now += 1000
    assert share.may_run(others_wait=True)
    clock.now += 1
    share.has_run()
    assert not share.may_run(others_wait=True)
    clock.now += 1.01
    assert share.may_run(others_wait=True)


def test_a_clip_that_fails_fails_alone() -> None:
    runner = FakeRunner()
    stage = TrackingStage(runner, 0.3)
    broken, sound = Followed(stage, 5), Followed(stage, 5)
    runner.broken.add(broken.clip)
    while stage.has_work:
        stage.step(others_wait=False)
    assert [type(end) for end in broken.ends] == [InferenceError]
    assert sound.ends == [None]
    assert set(runner.released) == {broken.clip, sound.clip}


def test_a_lost_device_ends_the_engine() -> None:
    runner = FakeRunner()
    stage = TrackingStage(runner, 0.3)
    runner.broken.add(Followed(stage, 5).clip)
    runner.is_alive = False
    with pytest.raises(DeviceLostError):
        stage.step(others_wait=False)


def test_a_cancelled_clip_leaves_before_its_next_frame() -> None:
    stage = TrackingStage(FakeRunner(), 0.3)
    followed = Followed(stage, 100)
    stage.step(others_wait=True)
    followed.is_cancelled = True
    stage.step(others_wait=True)
    assert followed.frames == [0]
    assert [type(end) for end in followed.ends] == [RequestCancelledError]
    assert not stage.has_work
