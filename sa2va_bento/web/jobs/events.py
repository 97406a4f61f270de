"""A job's events (server-sent): what it has said and found so far, then what comes, until it ends.

Each event that is stored has an id, `ATTEMPT-NUMBER`; who comes again with the last one that it saw (`Last-Event-ID`)
misses nothing. Where the job was started again meanwhile, `restart` says so and everything is told from the beginning.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from pathlib import Path

from sa2va_bento.jobs.desk import JobDesk
from sa2va_bento.jobs.files import FRAMES, SPOKEN, JobFiles
from sa2va_bento.jobs.job import Job, State
from sa2va_bento.web.jobs.rendering import status_of, to_frame
from sa2va_bento.web.schemas import MaskFormat
from sa2va_bento.web.sse import HEARTBEAT

LOOK_S = 0.1
"""Between two looks whether there is something new."""
STATE_S = 1.0
"""Between two `state` events."""
PIECE = 2**20
"""Bytes of a log that are read at once."""


class _Tail:
    """The lines of a file that grows, each once."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0

    def lines(self) -> Iterator[bytes]:
        """Whole lines that were not given yet, at most a piece of the file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._place)
                piece = file.read(PIECE)
                if b"\n" not in piece:  # a line that is longer, or not whole yet
                    piece += file.readline()
        except FileNotFoundError:
            return
        whole = piece[: piece.rfind(b"\n") + 1]
        self._place += len(whole)
        yield from whole.splitlines()


class JobEvents:
    """One reader's way through a job's events."""

    def __init__(self, desk: JobDesk, job: Job, mask_format: MaskFormat, last_seen: str, heartbeat_s: float) -> None:
        self._desk, self._job, self._heartbeat_s = desk, job, heartbeat_s
        self._format: MaskFormat = mask_format
        self._last_attempt, self._last_number = _parsed(last_seen)

    async def stream(self) -> AsyncIterator[bytes]:
        """Events until the job has ended; comments where it is silent."""
        loop = asyncio.get_running_loop()
        told_state, spoke = 0.0, loop.time()
        self._open(self._job.attempt)
        while True:
            job = self._job
            pieces = await asyncio.to_thread(self._fresh)
            for piece in pieces:
                yield piece
            if loop.time() - told_state >= STATE_S or job.state.is_final:
                told_state = loop.time()
                yield _event("state", status_of(job).model_dump_json())
                spoke = loop.time()
            if pieces:
                spoke = loop.time()
                continue
            if job.state.is_final:
                yield self._last()
                return
            if loop.time() - spoke >= self._heartbeat_s:
                spoke = loop.time()
                yield HEARTBEAT
            await asyncio.sleep(LOOK_S)
            self._job = await asyncio.to_thread(self._desk.job, job.id, job.owner)

    def _open(self, attempt: int) -> None:
        files: JobFiles = self._desk.files(self._job.id)
        self._attempt, self._number = attempt, -1
        self._spoken, self._frames = _Tail(files.folder / SPOKEN), _Tail(files.folder / FRAMES)

    def _fresh(self) -> list[bytes]:
        """What is new. Words come before frames, all of them."""
        events: list[bytes] = []
        if self._job.attempt != self._attempt:
            if self._attempt:
                events.append(_event("restart", json.dumps({"attempt": self._job.attempt})))
            self._open(self._job.attempt)
        frames = list(self._frames.lines())  # first: where there are any, all words were there before
        for line in chain.from_iterable(iter(lambda: list(self._spoken.lines()), [])):
            told = json.loads(line)
            events += self._numbered(told.pop("event"), json.dumps(told))
        for line in frames:
            self._number += 1
            if not self._was_seen():
                frame = json.dumps(to_frame(json.loads(line), self._format), separators=(",", ":"))
                events.append(_event("frame", frame, self._id))
        return events

    def _numbered(self, name: str, data: str) -> list[bytes]:
        self._number += 1
        return [] if self._was_seen() else [_event(name, data, self._id)]

    def _was_seen(self) -> bool:
        return self._attempt == self._last_attempt and self._number <= self._last_number

    @property
    def _id(self) -> str:
        return f"{self._attempt}-{self._number}"

    def _last(self) -> bytes:
        job = self._job
        if job.state is State.DONE:
            return _event("done", json.dumps({"id": job.id, "result": f"/jobs/{job.id}/result"}))
        if job.state is State.FAILED and job.error:
            return _event("error", json.dumps({"error": job.error.message, "status": job.error.status}))
        return _event("cancelled", json.dumps({"id": job.id}))


def _event(name: str, data: str, number: str | None = None) -> bytes:
    head = f"id: {number}\n" if number else ""
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


def _parsed(last_seen: str) -> tuple[int, int]:
    """Attempt and number of a `Last-Event-ID`; (0, -1), which nothing has, of none."""
    attempt, dash, number = last_seen.strip().partition("-")
    if dash and attempt.isdecimal() and number.isdecimal() and len(last_seen) < 24:
        return int(attempt), int(number)
    return 0, -1
