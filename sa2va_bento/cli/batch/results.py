"""`results.jsonl`: a line a row, in the order of the rows, so that where it ends is where to go on."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sa2va_bento.cli.batch.rows import Row
from sa2va_bento.errors import BadRequestError

FILE = "results.jsonl"
SYNCED_EVERY_S = 1.0


class Results:
    """The file of a run, opened where an earlier one left it. A line that was not whole is written again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self.path.touch()
        self._keep_whole_lines()
        self.done, self.failed = self._count()
        self._file = self.path.open("ab")
        self._synced_at = time.monotonic()

    def check(self, number: int, row: Row) -> None:
        """Raises BadRequestError where line `number` is about another row: the source or the prompts are others now."""
        if self._keys[number] != row.key:
            raise BadRequestError(f"{self.path}: row {number + 1} is about something else; choose another folder")

    def add(self, row: Row, answer: dict[str, Any] | None, error: str | None = None) -> None:
        """Writes a row's answer, or why it has none."""
        about = {"id": row.id, "image": row.image, "prompt": row.prompt, "status": "failed" if error else "ok"}
        answered = {"image_size" if name == "image" else name: value for name, value in (answer or {}).items()}
        line = {**answered, **about, **({"error": error} if error else {})}
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        self.failed += error is not None
        if time.monotonic() - self._synced_at > SYNCED_EVERY_S:
            os.fsync(self._file.fileno())
            self._synced_at = time.monotonic()

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def lines(self) -> Iterator[dict[str, Any]]:
        """What was written, row by row."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def _keep_whole_lines(self) -> None:
        size = self.path.stat().st_size
        with self.path.open("rb+") as file:
            place = size
            while place > 0:
                start = max(0, place - 2**16)
                file.seek(start)
                found = file.read(place - start).rfind(b"\n")
                if found >= 0:
                    place = start + found + 1
                    break
                place = start
            file.truncate(place)

    def _count(self) -> tuple[int, int]:
        self._keys: list[str] = []
        failed = 0
        for line in self.lines():
            self._keys.append(json.dumps([line["image"], line["prompt"], line["id"]]))
            failed += line["status"] == "failed"
        return len(self._keys), failed
