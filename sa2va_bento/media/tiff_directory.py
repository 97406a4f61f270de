"""The first directory of a TIFF file, which EXIF is too (TIFF 6.0, and BigTIFF): entries, without their values."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MOST_ENTRIES = 1024
"""Most entries of a directory. Cameras write 10 to 60; GeoTIFF and DNG define some 300 tags."""

INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""Types of integers (BYTE, SHORT, LONG, their signed kin, IFD, and BigTIFF's of 8 bytes), with struct's signs."""

MOST_VALUES = 2**16
"""Most values of an entry that are read."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type."""

_LEAST = 16
"""Bytes of BigTIFF's header; no classic file with an entry has fewer."""


class _Form(NamedTuple):
    """Layouts for struct; `header` is where the place of the first directory stands."""

    header: int
    count: str
    entry: str
    offset: str


_CLASSIC = _Form(4, "H", "HHI4s", "I")
_BIG = _Form(8, "Q", "HHQ8s", "Q")


@dataclass(frozen=True)
class Entry:
    """`count` values of type `kind`: `size` bytes at `place` of the file, which may be inside the entry itself.

    `raw` is the whole entry as it stands in the directory.
    """

    kind: int
    count: int
    size: int
    place: int
    is_inside: bool
    raw: bytes


@dataclass(frozen=True)
class Directory:
    """Entries by tag, the first of each. `order` is struct's sign for the byte order, `place` that of the directory."""

    data: bytes
    order: str
    form: _Form
    place: int
    entries: dict[int, Entry]
    is_too_long: bool

    def values(self, tag: int, most: int = MOST_VALUES) -> Sequence[int]:
        """The first values of a tag: none where it is missing, of no integers, or outside the file."""
        entry = self.entries.get(tag)
        code = INTEGERS.get(entry.kind) if entry else None
        if entry is None or code is None:
            return ()
        layout = f"{self.order}{min(entry.count, most)}{code}"
        inside = entry.place + struct.calcsize(layout) <= len(self.data)
        return struct.unpack_from(layout, self.data, entry.place) if inside else ()

    def first(self, tag: int) -> int | None:
        """The first value of a tag."""
        return next(iter(self.values(tag, 1)), None)

    def content(self, tag: int, most: int) -> bytes:
        """The first bytes of a tag of bytes (BYTE, ASCII, UNDEFINED)."""
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in (1, 2, 7):
            return b""
        return self.data[entry.place : entry.place + min(entry.count, most)]

    def packed(self) -> bytes:
        """A directory of these entries, which has none after it."""
        kept = [self.entries[tag].raw for tag in sorted(self.entries)]
        count, following = self.order + self.form.count, self.order + self.form.offset
        return struct.pack(count, len(kept)) + b"".join(kept) + struct.pack(following, 0)


def read_directory(data: bytes) -> Directory | None:
    """The first directory of a TIFF file, in time linear in its entries; None if it has none.

    Of more than `MOST_ENTRIES` none is read.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < _LEAST or struct.unpack_from(order + "H", data, 2)[0] not in (42, 43):
        return None
    form = _BIG if 43 in (data[2], data[3]) else _CLASSIC
    place = struct.unpack_from(order + form.offset, data, form.header)[0]
    start = place + struct.calcsize("=" + form.count)
    if start > len(data):
        return None
    size = struct.calcsize("=" + form.entry)
    count = min(struct.unpack_from(order + form.count, data, place)[0], (len(data) - start) // size)
    if count > MOST_ENTRIES:
        return Directory(data, order, form, place, {}, True)
    entries: dict[int, Entry] = {}
    for at in range(start, start + count * size, size):
        tag, entry = _read_entry(data, order, form, at)
        entries.setdefault(tag, entry)
    return Directory(data, order, form, place, entries, False)


def _read_entry(data: bytes, order: str, form: _Form, at: int) -> tuple[int, Entry]:
    """Tag, type, count, and then the values where they fit, or else their place."""
    tag, kind, count, _ = struct.unpack_from(order + form.entry, data, at)
    length, inside = struct.calcsize("=" + form.entry), struct.calcsize("=" + form.offset)
    size, place = count * _SIZES.get(kind, 0), at + length - inside
    if size > inside:
        place = struct.unpack_from(order + form.offset, data, place)[0]
    return tag, Entry(kind, count, size, place, size <= inside, data[at : at + length])
