"""What a job is."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sa2va_bento.media.videos.selection import EVERY_FRAME, Selection

VIDEO = "video"
"""Name of a job's only file where it is a video; pictures have others."""


class State(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class JobError:
    """Why a job failed, as a request would have been answered."""

    status: int
    message: str


@dataclass(frozen=True)
class JobRequest:
    """What is asked, in the terms of the HTTP API and as it is stored; `files` are the names of its input, in order:
    one video, or the pictures of a sequence."""

    prompts: tuple[str, ...]
    histories: tuple[tuple[tuple[str, str], ...], ...]
    """Earlier turns (role, content) before each prompt."""
    files: tuple[str, ...]
    selection: Selection = EVERY_FRAME
    frames_seen: str | tuple[int, ...] = "model"
    frames_seen_count: int = 5
    mask_threshold: float = 0.5
    mask_format: str = "rle"
    max_new_tokens: int | None = None
    warnings: tuple[str, ...] = ()
    mode: str | None = None
    selected: tuple[int, ...] = ()
    adapter: str | None = None

    def to_json(self) -> str:
        return json.dumps({**self.__dict__, "selection": self.selection.to_dict()})

    @classmethod
    def from_json(cls, text: str) -> "JobRequest":
        given: dict[str, Any] = json.loads(text)
        seen = given["frames_seen"]
        return cls(
            **{
                **given,
                "prompts": tuple(given["prompts"]),
                "files": tuple(given["files"]),
                "selection": Selection(**given["selection"]),
                "histories": tuple(tuple((r, c) for r, c in turns) for turns in given["histories"]),
                "frames_seen": seen if isinstance(seen, str) else tuple(seen),
                "warnings": tuple(given["warnings"]),
                "selected": tuple(given.get("selected", ())),
            }
        )


@dataclass(frozen=True)
class Job:
    """A job at a moment. Times are seconds of the epoch. `place` counts the jobs before it while it is queued;
    `attempt` is above 1 where the process that worked on it ended, and it was started again."""

    id: str
    owner: str
    state: State
    request: JobRequest
    created: float
    started: float | None
    finished: float | None
    attempt: int
    frames_done: int
    frames_total: int | None
    error: JobError | None
    place: int | None = None
    is_cancel_wanted: bool = False
