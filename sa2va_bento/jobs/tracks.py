"""What is said of a track as a whole, gathered while its frames go by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sa2va_bento.clips import Track
from sa2va_bento.types import Segment

VISIBLE = 0.5
"""Probability at which SAM2 counts an object as visible: a score of 0 before the sigmoid."""


def is_present(segment: Segment, area: int) -> bool:
    """Whether the object is seen on a frame: SAM2 says that it is visible, and gives it some pixels."""
    return segment.object_score > VISIBLE and area > 0


@dataclass
class TrackSummary:
    """A track and the frames that show it."""

    track: Track
    frames_present: int = 0
    _seen: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Runs of frames, first and last."""

    def add(self, index: int, present: bool) -> None:
        """Notes a frame, in whatever order they come."""
        if not present:
            return
        self.frames_present += 1
        if self._seen and self._seen[-1][1] == index - 1:
            self._seen[-1] = (self._seen[-1][0], index)
        else:
            self._seen.append((index, index))

    def to_dict(self) -> dict[str, Any]:
        runs = _merged(self._seen)
        return {
            "id": self.track.id,
            "question": self.track.question,
            "phrase": self.track.phrase,
            "text_span": self.track.text_span,
            "first_frame": runs[0][0] if runs else None,
            "last_frame": runs[-1][1] if runs else None,
            "frames_present": self.frames_present,
            "gaps": [[end + 1, start - 1] for (_, end), (start, _) in pairwise(runs)],
        }


def _merged(runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(runs):
        if merged and start == merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return merged
