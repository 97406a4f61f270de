"""What a reading process says, on its standard output: messages of a kind, a JSON head and bytes."""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

_HEAD = struct.Struct("<cII")

INFO, FRAME, DONE, ERROR = b"I", b"F", b"D", b"X"


class Message(NamedTuple):
    """`kind` is INFO, FRAME, DONE or ERROR."""

    kind: bytes
    head: Mapping[str, Any]
    data: bytes


def write(stream: BinaryIO, kind: bytes, head: Mapping[str, Any], data: "bytes | memoryview" = b"") -> None:
    """Sends one message."""
    encoded = json.dumps(head).encode()
    stream.write(_HEAD.pack(kind, len(encoded), len(data)) + encoded)
    stream.write(data)
    stream.flush()


def read(stream: BinaryIO) -> Message | None:
    """The next message; None where the stream ends."""
    start = stream.read(_HEAD.size)
    if len(start) < _HEAD.size:
        return None
    kind, head, size = _HEAD.unpack(start)
    encoded, data = stream.read(head), stream.read(size)
    if len(encoded) < head or len(data) < size:
        return None
    return Message(kind, json.loads(encoded), data)
