"""TIFF files around Pillow (TIFF 6.0, and BigTIFF): what they cost, from their first directory alone, and what Pillow
tells wrong of them or not at all.

A directory can announce millions of strips, tiles far larger than the picture, or the same bytes again and again.
"""

from collections.abc import Iterable
from dataclasses import replace

from PIL import Image, TiffImagePlugin

from sa2va_bento.media import jpeg
from sa2va_bento.media.orientation import MOST_TEXT
from sa2va_bento.media.stripped import Stripped, damaged, too_complex, unsupported
from sa2va_bento.media.tiff_directory import INTEGERS, MOST_ENTRIES, Directory, Entry, read_directory

MOST_PIECES = 2**16
"""Most strips or tiles: writers fill 8 KB or more with one, 18,000 of them with 50 million pixels."""

MOST_JPEGS = 2**14
"""Most strips or tiles that are JPEG files, at 45 us each: tiles of 64 x 64 hold 50 million pixels."""

MOST_JPEG_SEGMENTS = 2**17
"""Most segments in all of these, at 2 us each. One that stands alone has 8, one that uses the file's tables 3."""

MOST_PACKED = 2**26
"""Bytes of packed strips that are no more than a file may have, however long it is; they may share their bytes, but
are unpacked one by one."""

MOST_PADDING = 2**22
"""Pixels that tiles may hold beyond four times those of the picture: one of 2048 x 2048 may hold an icon."""

_MOST_VALUES = 256
"""Most values of a tag that is not listed below: pictures have one, or one for each channel, or six."""

_WIDTH, _HEIGHT, _COMPRESSION, _STRIPS, _CHANNELS, _ROWS, _STRIP_BYTES = 256, 257, 259, 273, 277, 278, 279
_PLANES, _COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 284, 320, 322, 323, 324, 325
_FORMAT, _JPEG_TABLES, _YCBCR_COEFFICIENTS, _REFERENCE_LEVELS, _XMP = 339, 347, 529, 532, 700

_MOST = {_COLOURS: 3 * 2**16, _JPEG_TABLES: 2**16}
_PIECES = frozenset({_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES})
_OF_OTHER_TYPES = frozenset({_JPEG_TABLES, _YCBCR_COEFFICIENTS, _REFERENCE_LEVELS})
_SEEN = frozenset({*range(254, 260), 262, 266, _STRIPS, *range(_CHANNELS, 280), _PLANES, 292, 293, 317, _COLOURS})
_SEEN |= frozenset({*range(322, 326), 332, 338, _FORMAT, _JPEG_TABLES, *range(512, 522), *range(529, 533)})
"""Tags that tell what the pixels are: no metadata, no further directories, and no orientation, which is read here."""

_UNPACKED = 1
_PACKED_JPEG = 7
_FLOATS = frozenset({3, 6})
"""Values of SampleFormat: IEEE floating point, and complex of the same."""

_WHITE_IS_ZERO = 0
"""Value of PhotometricInterpretation; Pillow takes a file without one for this too."""

TiffImagePlugin.OPEN_INFO[(b"MM", _WHITE_IS_ZERO, (1,), 1, (16,), ())] = ("I;16B", "I;16B")
"""Pillow knows this layout in the other byte order only."""


def strip(data: bytes, name: str) -> Stripped:
    """A TIFF whose first directory holds what tells the pixels, and is the last; `name` is its field in the request.

    Raises:
        BadRequestError: it has no directory.
        PayloadTooLargeError: over one of this module's limits.
        UnsupportedMediaError: floating-point samples, or a BigTIFF that is big-endian.
    """
    if data.startswith(b"MM\0+"):  # Pillow takes it for another
        raise unsupported("a big-endian BigTIFF", name)
    directory = _read(data, name)
    if not _FLOATS.isdisjoint(directory.values(_FORMAT)):
        raise unsupported("a TIFF of floating-point numbers", name)
    entries = {tag: entry for tag, entry in directory.entries.items() if _is_seen(tag, entry, len(data))}
    seen = replace(directory, entries=entries)
    patch = seen.packed()
    _check_places(seen, seen.place + len(patch), name)
    _check_pieces(seen, name)
    metadata = {"exif": data, "xmp": directory.content(_XMP, MOST_TEXT)}
    return Stripped(data, metadata, patch=(seen.place, patch))


def _read(data: bytes, name: str) -> Directory:
    directory = read_directory(data)
    if directory is None or directory.place < directory.form.header:
        raise damaged(name)
    if directory.is_too_long:
        raise too_complex(name, f"over {MOST_ENTRIES} tags")
    return directory


def _is_seen(tag: int, entry: Entry, size: int) -> bool:
    """Whether Pillow is to see an entry. One whose values lie beyond the file, or are far too many, tells nothing."""
    is_typed = entry.kind in INTEGERS or tag in _OF_OTHER_TYPES
    is_there = entry.is_inside or entry.place + entry.size <= size
    return tag in _SEEN and is_typed and is_there and (tag in _PIECES or entry.count <= _MOST.get(tag, _MOST_VALUES))


def _check_places(directory: Directory, end: int, name: str) -> None:
    """That no values lie within the directory, which is written anew up to `end`."""
    for entry in directory.entries.values():
        if not entry.is_inside and entry.place < end and entry.place + entry.size > directory.place:
            raise damaged(name)


def _check_pieces(directory: Directory, name: str) -> None:
    """That no more strips or tiles are there than hold the picture, nor far larger ones."""
    width, height = _positive(directory, _WIDTH, 1), _positive(directory, _HEIGHT, 1)
    across, down = _positive(directory, _TILE_WIDTH, width), _positive(directory, _TILE_HEIGHT, height)
    planes = _positive(directory, _CHANNELS, 1) if directory.first(_PLANES) == 2 else 1
    strips = -(-height // _positive(directory, _ROWS, height))
    tiles = -(-width // across) * -(-height // down)
    for tag, needed in ((_STRIPS, strips), (_STRIP_BYTES, strips), (_TILES, tiles), (_TILE_BYTES, tiles)):
        _check_number(directory, tag, min(needed * planes, MOST_PIECES), name)
    if tiles * across * down > 4 * width * height + MOST_PADDING:
        raise too_complex(name, f"tiles of {across}x{down} pixels for a picture of {width}x{height}")
    if (directory.first(_COMPRESSION) or _UNPACKED) != _UNPACKED:
        _check_packed(directory, _STRIPS, _STRIP_BYTES, name)
        _check_packed(directory, _TILES, _TILE_BYTES, name)


def _positive(directory: Directory, tag: int, default: int) -> int:
    return max(1, directory.first(tag) or default)


def _check_number(directory: Directory, tag: int, most: int, name: str) -> None:
    entry = directory.entries.get(tag)
    if entry and entry.count > most:
        raise too_complex(name, f"{entry.count} strips or tiles, {most} at most are taken with its size")


def _check_packed(directory: Directory, tag: int, bytes_tag: int, name: str) -> None:
    """Of packed strips or tiles: the bytes in all of them, and the scans of those that are JPEG files."""
    size, starts, counts = len(directory.data), directory.values(tag), directory.values(bytes_tag)
    counts = counts if len(counts) >= len(starts) else [size] * len(starts)
    if sum(map(abs, counts)) > max(size, MOST_PACKED):
        raise too_complex(name, f"{len(starts)} strips or tiles that share their bytes")
    if directory.first(_COMPRESSION) == _PACKED_JPEG:
        if len(starts) > MOST_JPEGS:
            raise too_complex(name, f"{len(starts)} JPEG strips or tiles, {MOST_JPEGS} at most are taken")
        _check_scans(directory.data, zip(starts, counts, strict=False), name)


def _check_scans(data: bytes, pieces: Iterable[tuple[int, int]], name: str) -> None:
    blocks = segments = 0
    for start, count in pieces:
        outline = jpeg.read_outline(data, start, min(start + count, len(data)), name)
        blocks, segments = blocks + outline.blocks, segments + outline.segments
        if blocks > jpeg.MOST_SCAN_BLOCKS:
            raise too_complex(name, f"over {jpeg.MOST_SCAN_BLOCKS} blocks in its scans")
        if segments > MOST_JPEG_SEGMENTS:
            raise too_complex(name, f"over {MOST_JPEG_SEGMENTS} segments")


def has_white_at_zero(image: Image.Image) -> bool:
    """Whether an image's levels rise from white to black. Pillow turns those of up to 8 bits round, no others."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, _WHITE_IS_ZERO) == _WHITE_IS_ZERO
