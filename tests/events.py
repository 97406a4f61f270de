"""Server-sent events as a client reads them."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One event: its name (empty for a comment), its data, and when it was read (s, monotonic)."""

    name: str
    data: Any
    at: float


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream as they come, each with one line of JSON."""
    name = ""
    for line in lines:
        if line.startswith(":"):
            yield Event("", line[1:].strip(), time.monotonic())
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield Event(name, json.loads(value), time.monotonic())
            name = ""
