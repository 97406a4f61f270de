"""A clip as the language model reads it: which of its frames, and how they are one picture."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from sa2va_bento.clips import FramesSeen
from sa2va_bento.errors import BadRequestError
from sa2va_bento.types import Picture, Pixels


def frames_to_show(seen: FramesSeen | tuple[int, ...], count: int, frames: int) -> tuple[int, ...]:
    """The places, in order, of the frames that the language model sees.

    Args:
        seen: A rule, `FIRST` or `UNIFORM`, or the places themselves.
        count: How many a rule shows at most.
        frames: Length of the clip; for `FIRST` any number that is not more than that serves.

    Raises:
        BadRequestError: a place that the clip does not have.
    """
    if isinstance(seen, tuple):
        if beyond := [place for place in seen if place >= frames]:
            raise BadRequestError(f"frames_seen: the clip has {frames} frames, none at {beyond[0]}")
        return tuple(sorted(set(seen)))
    if seen is FramesSeen.UNIFORM and count > 1:
        return tuple(sorted({place * (frames - 1) // (count - 1) for place in range(count)}))
    return tuple(range(min(count, frames)))


def join_frames(frames: Sequence[Picture]) -> Picture:
    """Frames of one size as one picture, whose tiles are all of theirs."""
    first = frames[0]
    return Picture(
        key=first.key,
        tiles_key="/".join(frame.tiles_key for frame in frames),
        tile_count=sum(frame.tile_count for frame in frames),
        tiles=Pixels(lambda: np.concatenate([frame.tiles() for frame in frames])),
        sam_pixels=first.sam_pixels,
        grids=tuple(chain.from_iterable(frame.grids for frame in frames)),
        size=first.size,
        frames=len(frames),
        is_clip=True,
    )
