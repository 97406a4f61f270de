"""TIFF files whose directory costs more than the picture, in both sizes of the format."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaError
from sa2va_bento.media.images import decode_image
from sa2va_bento.media.tiff import strip
from sa2va_bento.media.tiff_directory import read_directory
from tests.media.files import Values, grey_tags, longs, refinements, shorts, tiff_of_tags
from tests.pictures import encode

LIMIT = 50_000_000
LEVELS = bytes(range(100))
GREY = {**grey_tags(10, 10), 273: longs(8), 278: longs(10), 279: longs(100)}
"""The tags of a picture whose levels are 0 to 99, right behind the header."""


def pieces(number: int, start: int, size: int, tiles: bool = False) -> dict[int, Values]:
    """Tags of strips of a row, or tiles of 16 x 16, which all hold the same bytes."""
    starts = (4, number, struct.pack("<I", start) * number)
    sizes = (4, number, struct.pack("<I", size) * number)
    if tiles:
        return {322: shorts(16), 323: shorts(16), 324: starts, 325: sizes}
    return {273: starts, 278: longs(1), 279: sizes}


def levels_of(data: bytes) -> bytes:
    return decode_image(data, LIMIT, "picture").tobytes()[::3]


def refused(data: bytes, match: str, seconds: float = 0.2) -> None:
    begun = time.monotonic()
    with pytest.raises(PayloadTooLargeError, match=f"^picture: the picture is too complex: {match}"):
        decode_image(data, LIMIT, "picture")
    assert time.monotonic() - begun < seconds


@pytest.mark.parametrize("is_big", [False, True], ids=["classic", "big"])
@pytest.mark.parametrize("tiles", [False, True], ids=["strips", "tiles"])
def test_millions_of_strips_or_tiles_are_refused_at_once(tiles: bool, is_big: bool) -> None:
    tags = grey_tags(100, 100) | pieces(3_000_000, 8, 100, tiles)
    refused(tiff_of_tags(tags, bytes(10_000), is_big), "3000000 strips or tiles, (49|100) at most are taken")


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        (grey_tags(10, 10) | pieces(11, 8, 10), "11 strips or tiles, 10 at most"),
        (grey_tags(10, 10) | pieces(10, 8, 10) | {278: longs(5)}, "10 strips or tiles, 2 at most"),
        (grey_tags(100, 100) | pieces(50, 8, 100, tiles=True), "50 strips or tiles, 49 at most"),
        ({**GREY, 279: longs(*[1] * 70_000)}, "70000 strips or tiles, 1 at most"),
        (grey_tags(1, 65_537) | pieces(65_537, 8, 1), "65537 strips or tiles, 65536 at most"),
        (grey_tags(1, 100_000_000) | pieces(100_000, 8, 1), "100000 strips or tiles, 65536 at most"),
        ({**GREY, 284: shorts(2), 277: longs(3), **pieces(31, 8, 9)}, "31 strips or tiles, 30 at most"),
        ({**grey_tags(1, 1, 8), 322: longs(30_000), 323: longs(30_000), 324: longs(8)}, "tiles of 30000x30000 pixels"),
        ({**GREY, 322: longs(65_535), 323: longs(65_535)}, "tiles of 65535x65535 pixels"),
    ],
)
def test_more_pieces_than_hold_the_picture_are_refused(tags: dict[int, Values], match: str) -> None:
    refused(tiff_of_tags(tags, LEVELS), match)


def test_many_strips_and_large_tiles_are_decoded_in_a_bounded_time() -> None:
    begun = time.monotonic()
    row = zlib.compress(bytes(60))
    tags = grey_tags(60, 20_000, 8) | pieces(20_000, 8, len(row))
    assert decode_image(tiff_of_tags(tags, row), LIMIT).size == (60, 20_000)
    assert decode_image(tiff_of_tags(grey_tags(60, 20_000) | pieces(20_000, 8, 60), bytes(60)), LIMIT).size[1] == 20_000
    tile = zlib.compress(bytes(2048**2))
    tags = {**grey_tags(1, 1, 8), 322: longs(2048), 323: longs(2048), 324: longs(8), 325: longs(len(tile))}
    assert decode_image(tiff_of_tags(tags, tile), LIMIT).size == (1, 1)
    assert time.monotonic() - begun < 3


def test_strips_that_share_their_bytes_are_refused() -> None:
    """A stream with a million empty blocks, for each of thousands of rows."""
    junk = zlib.compress(b"")[:2] + b"\0\0\0\xff\xff" * 100_000 + zlib.compress(bytes(60))[2:]
    counted = grey_tags(60, 10_000, 8) | pieces(10_000, 8, len(junk))
    refused(tiff_of_tags(counted, junk), "10000 strips or tiles that share their bytes")
    del counted[279]  # libtiff would take the rest of the file for each
    refused(tiff_of_tags(counted, junk), "10000 strips or tiles that share their bytes")


def test_strips_of_jpeg_are_weighed_as_jpeg_is() -> None:
    bomb = refinements((4000, 2000), 200)
    tags = {**grey_tags(4000, 2000, 7), 273: longs(8), 278: longs(2000), 279: longs(len(bomb))}
    refused(tiff_of_tags(tags, bomb), "over 20000000 blocks")
    small = refinements((1000, 100), 90)
    shared = grey_tags(1000, 20_000, 7) | pieces(200, 8, len(small)) | {278: longs(100)}
    refused(tiff_of_tags(shared, small), "over 20000000 blocks")
    idle = b"\xff\xd8" + b"\xff\xfe\0\2" * 2000
    refused(tiff_of_tags(grey_tags(60, 5000, 7) | pieces(5000, 8, len(idle)), idle), "over 131072 segments", 2)
    row = encode(Image.new("L", (60, 1)), "JPEG")
    refused(tiff_of_tags(grey_tags(60, 20_000, 7) | pieces(20_000, 8, len(row)), row), "20000 JPEG strips or tiles")


def test_ordinary_strips_of_jpeg_decode() -> None:
    picture = Image.effect_noise((200, 100), 60).convert("RGB")
    image = decode_image(encode(picture, "TIFF", compression="jpeg", quality=95), LIMIT)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture)).mean() < 5


@pytest.mark.parametrize("is_big", [False, True], ids=["classic", "big"])
def test_too_many_tags_are_refused(is_big: bool) -> None:
    tags = dict.fromkeys(range(1000, 2100), (7, 4_000_000, bytes(8)))
    refused(tiff_of_tags(tags, LEVELS, is_big), "over 1024 tags")


def test_what_holds_no_pixels_is_not_read() -> None:
    begun = time.monotonic()
    rationals = (5, 1_000_000, bytes(8_000_000))
    private = dict.fromkeys(range(40_000, 40_900), (5, 100_000, struct.pack("<I", 8)))
    place = 8 + len(LEVELS)
    exif = struct.pack("<HHHII", 1, 33_434, 5, 1_000_000, 8) + bytes(4)
    data = tiff_of_tags({**GREY, **private, 34_665: longs(place), 700: rationals}, LEVELS + exif)
    assert levels_of(data) == LEVELS
    assert time.monotonic() - begun < 0.5


def test_directories_that_follow_are_not_read() -> None:
    data = bytearray(tiff_of_tags(GREY, LEVELS))
    at = struct.unpack_from("<I", data, 4)[0]
    end = at + 2 + 12 * len(GREY)
    for following in (at, 2**32 - 1, 8):
        data[end : end + 4] = struct.pack("<I", following)
        assert levels_of(bytes(data)) == LEVELS


def test_tags_of_odd_values_tell_nothing() -> None:
    odd = {258: (3, 1_000_000, struct.pack("<I", 8)), 262: (12, 1, struct.pack("<I", 8)), 266: shorts(*[1] * 300)}
    with pytest.raises(BadRequestError, match="truncated or damaged"):  # of 1 bit then, and too short for that
        decode_image(tiff_of_tags({**GREY, **odd, 257: longs(1000), 278: longs(1000)}, LEVELS), LIMIT)
    resolution = {282: (5, 1, struct.pack("<I", 2**31)), 320: (3, 2**31, struct.pack("<I", 8))}
    assert levels_of(tiff_of_tags({**GREY, **resolution}, LEVELS)) == LEVELS


def test_values_within_the_directory_are_damage() -> None:
    """The directory is written anew, and they would change with it."""
    data = bytearray(tiff_of_tags(grey_tags(10, 10) | pieces(10, 8, 10), LEVELS))
    at = struct.unpack_from("<I", data, 4)[0]
    entry = data.index(struct.pack("<HHI", 273, 4, 10))
    data[entry + 8 : entry + 12] = struct.pack("<I", at + 2)
    with pytest.raises(BadRequestError, match="truncated or damaged"):
        decode_image(bytes(data), LIMIT)


@pytest.mark.parametrize("place", [0, 4, 7, 2**31])
def test_a_directory_in_the_header_or_nowhere_is_damage(place: int) -> None:
    data = bytearray(tiff_of_tags(GREY, LEVELS))
    data[4:8] = struct.pack("<I", place)
    with pytest.raises(BadRequestError, match="truncated or damaged"):
        decode_image(bytes(data), LIMIT)


def test_a_big_endian_bigtiff_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedMediaError, match=r"^base64Image: a big-endian BigTIFF is not supported"):
        decode_image(b"MM\0+" + bytes(200), LIMIT)


def test_a_file_that_ends_with_its_directory_is_read() -> None:
    data = tiff_of_tags(GREY, LEVELS)
    at = struct.unpack_from("<I", data, 4)[0]
    assert levels_of(data[: at + 2 + 12 * len(GREY)]) == LEVELS


@pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9, 13])
def test_integers_of_every_type_are_read(kind: int) -> None:
    code = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I"}[kind]
    directory = read_directory(tiff_of_tags({256: (kind, 3, struct.pack(f"<3{code}", 1, 2, 3))}, LEVELS))
    assert directory
    assert tuple(directory.values(256)) == (1, 2, 3)


def test_the_patched_file_is_what_pillow_sees() -> None:
    data = tiff_of_tags({**GREY, 305: (2, 4, b"abc\0"), 274: shorts(6)}, LEVELS)
    stripped = strip(data, "picture")
    place, patch = stripped.patch
    with Image.open(io.BytesIO(data[:place] + patch + data[place + len(patch) :])) as image:
        assert set(image.tag_v2) == set(GREY)  # type: ignore[attr-defined]
    assert decode_image(data, LIMIT).size == (10, 10)
    assert levels_of(data) == np.rot90(np.arange(100).reshape(10, 10), -1).astype(np.uint8).tobytes()
