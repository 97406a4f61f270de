"""Which frames of a video are looked at, decided frame by frame while it is read."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class Selection:
    """Frames between `start_s` and `end_s`, of these every `every_nth` or as many as `fps` a second, of these the first
    `max_frames`. With `fps`, each tick of a clock that starts with the first frame takes the frame that is shown
    then: of a slower video each frame once."""

    start_s: float = 0.0
    end_s: float | None = None
    every_nth: int = 1
    fps: float | None = None
    max_frames: int | None = None

    def to_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


EVERY_FRAME = Selection()


@dataclass(frozen=True)
class Selected(Generic[Picture]):
    """A frame that is looked at: its place among these, its place in the file, the time at which it is shown."""

    index: int
    source_index: int
    time_s: float | None
    picture: Picture


def select(frames: Iterable[tuple[float | None, Picture]], selection: Selection) -> Iterator[Selected[Picture]]:
    """Those of the frames (time, picture), in order, that a selection takes. A frame without a time counts as shown
    after the one before it; where no frame has one, `start_s`, `end_s` and `fps` can't be kept to, and are not."""
    taken, matching, next_tick = 0, 0, None
    for source_index, (time_s, picture) in enumerate(frames):
        if selection.max_frames is not None and taken >= selection.max_frames:
            return
        if time_s is not None:
            if time_s < selection.start_s:
                continue
            if selection.end_s is not None and time_s > selection.end_s:
                return
            if selection.fps is not None:
                next_tick = time_s if next_tick is None else next_tick
                if time_s < next_tick - _EPSILON_S:
                    continue
                missed = int((time_s - next_tick + _EPSILON_S) * selection.fps)
                next_tick += (missed + 1) / selection.fps
        matching += 1
        if (matching - 1) % selection.every_nth == 0:
            yield Selected(taken, source_index, time_s, picture)
            taken += 1


_EPSILON_S = 1e-6
