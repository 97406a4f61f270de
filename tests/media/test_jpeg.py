"""JPEG files that cost more than they show, and those that only look so."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.media import jpeg
from sa2va_bento.media.images import decode_image
from tests.media.files import jpeg_head, refinements, scan, segment
from tests.pictures import encode, quarters

LIMIT = 50_000_000
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8))
EMPTY = jpeg_head((8, 8))


def refused(data: bytes, match: str) -> float:
    """Seconds until a file is refused."""
    begun = time.monotonic()
    with pytest.raises(PayloadTooLargeError, match=f"^picture: the picture is too complex: {match}"):
        decode_image(data, LIMIT, "picture")
    return time.monotonic() - begun


def with_segments(*segments: bytes, data: bytes | None = None) -> bytes:
    """A JPEG with more segments at its beginning."""
    data = data or encode(quarters(), "JPEG")
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize(
    ("size", "count", "components", "match"),
    [
        ((7000, 7000), 10_000, 1, "over 20000000 blocks in its scans"),
        ((7000, 7000), 9, 3, "over 20000000 blocks in its scans"),
        ((2000, 2000), 400, 1, "over 20000000 blocks in its scans"),
        ((65_535, 700), 10_000, 1, "over 20000000 blocks in its scans"),
        ((8, 8), 10_000, 1, "over 500 scans"),
        ((500, 500), 600, 1, "over 500 scans"),
    ],
)
def test_scans_that_would_take_too_long_are_refused_at_once(
    size: tuple[int, int], count: int, components: int, match: str
) -> None:
    assert refused(refinements(size, count, components), match) < 0.3


def test_the_most_scans_are_decoded_in_a_bounded_time() -> None:
    begun = time.monotonic()
    assert decode_image(refinements((8, 8), 490), LIMIT).size == (8, 8)
    assert decode_image(refinements((1000, 500), 490), LIMIT).size == (1000, 500)
    assert time.monotonic() - begun < 3


def test_scans_of_a_sequential_picture_count_too() -> None:
    one = scan([1], (0, 63), (0, 0), bytes(100))
    head = jpeg_head((200, 160), 3, 0xC0)
    refused(head + one * 600, "over 500 scans")
    refused(jpeg_head((5000, 5000), 3, 0xC0) + one * 60, "over 20000000 blocks")
    outline = jpeg.strip(head + scan([1, 2, 3], (0, 63), (0, 0), bytes(100)) + one * 600, "picture")
    assert outline.data.startswith(head)  # libjpeg reads the first scan only: it holds everything


def test_scans_hide_behind_nothing() -> None:
    """Fill bytes, restarts, stuffed bytes, junk and other segments between scans: libjpeg passes over them all."""
    one = scan([1], (1, 63), (1, 0), b"\0\xff\0\xff\xd3\xff\xff")
    between = b"junk" + segment(0xE5, b"\xff\xda\xff\xda") + segment(0xFE, b"") + b"\xff\x01" + segment(0xC4, b"")
    data = EMPTY + scan([1], (0, 0), (0, 0), b"\0") + (between + one) * 600 + b"\xff\xd9"
    refused(data, "over 500 scans")
    few = EMPTY + scan([1], (0, 0), (0, 0), b"\0") + (between + one) * 5 + b"\xff\xd9" + one * 600
    assert jpeg.read_outline(few, 0, len(few), "picture").scans == 6


def test_components_of_one_name_hide_nothing() -> None:
    """libjpeg tells them apart by names that it makes up, and so waits for further scans."""
    head = jpeg_head((200, 160), 3, 0xC0)
    frame = head.index(b"\xff\xc0")
    same = head[:frame] + head[frame:].replace(b"\2\x11\0\3\x11\0", b"\1\x11\0\1\x11\0")
    assert same != head
    refused(same + scan([1], (0, 63), (0, 0), bytes(100)) * 600, "over 500 scans")


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"progressive": True, "subsampling": 0, "quality": 95},
        {"progressive": True, "restart_marker_blocks": 1},
        {"restart_marker_blocks": 1},
        {"optimize": True, "comment": b"text"},
    ],
    ids=str,
)
def test_ordinary_files_decode_as_pillow_alone_does(options: dict[str, object]) -> None:
    for picture in (NOISE, NOISE.convert("L"), NOISE.convert("CMYK")):
        data = encode(picture, "JPEG", **options)
        image = decode_image(with_segments(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(500)), data=data), LIMIT)
        with Image.open(io.BytesIO(data)) as alone:
            assert image.tobytes() == alone.convert("RGB").tobytes()


def test_a_progressive_picture_of_the_largest_size_is_within_the_limits() -> None:
    """By its structure: the blocks of libjpeg's scans of a picture of 50 million pixels without subsampling."""
    data = encode(NOISE, "JPEG", progressive=True, subsampling=0)
    per_block = jpeg.read_outline(data, 0, len(data), "picture").blocks / (25 * 15)
    assert per_block * 50e6 / 64 < jpeg.MOST_SCAN_BLOCKS


def test_decoding_pauses_between_scans_that_cost_much() -> None:
    data = refinements((3000, 2000), 40)
    stops = jpeg.strip(data, "picture").stops
    assert len(stops) == 40 * 375 * 250 // 2**20
    assert all(data[stop : stop + 2] == b"\xff\xda" for stop in stops)
    assert jpeg.strip(encode(NOISE, "JPEG", progressive=True), "picture").stops == []


def test_too_many_segments_and_tables_are_refused() -> None:
    assert refused(with_segments(segment(0xFE, b"") * 100_000), "over 4096 segments") < 0.3
    tables = segment(0xDB, (b"\0" + b"\1" * 64) * 1000)
    assert refused(with_segments(tables * 100), "over 262144 bytes of tables") < 0.3


def test_metadata_are_left_out_whatever_their_size() -> None:
    begun = time.monotonic()
    exif = segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 100 + segment(0xE1, b"Exif\0\0") * 3000
    data = with_segments(
        exif, segment(0xED, b"Photoshop 3.0\0" + bytes(60_000)) * 100, segment(0xFE, bytes(60_000)) * 99
    )
    assert decode_image(data, LIMIT).tobytes() == decode_image(encode(quarters(), "JPEG"), LIMIT).tobytes()
    assert len(jpeg.strip(data, "picture").data) == len(encode(quarters(), "JPEG"))
    assert time.monotonic() - begun < 1


def test_junk_before_the_first_scan_takes_linear_time() -> None:
    begun = time.monotonic()
    for junk in (
        b"\xff" * 4_000_000,
        b"\xff\0" * 2_000_000,
        b"\xff\xd0" * 2_000_000,
        b"\xff\xfe\0\2" + bytes(4_000_000),
    ):
        assert decode_image(with_segments(junk), LIMIT).size == (48, 32)
    assert time.monotonic() - begun < 3


def test_the_colours_of_adobe_are_kept() -> None:
    """Its segment says that the components are RGB as they are; without it they would be taken for YCbCr."""
    data = encode(quarters(), "JPEG", quality=100, subsampling=0, keep_rgb=True)
    assert decode_image(data, LIMIT).getpixel((4, 4)) == (255, 0, 0)


def test_an_orientation_in_xmp_counts_where_exif_has_none() -> None:
    xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<a tiff:Orientation="6"/>')
    turned = Image.Exif()
    turned[0x0112] = 3
    assert decode_image(with_segments(xmp), LIMIT).size == (32, 48)
    assert decode_image(with_segments(xmp, data=encode(quarters(), "JPEG", exif=turned)), LIMIT).size == (48, 32)


def test_arithmetic_coding_is_given_in_one_piece() -> None:
    data = jpeg_head((8, 8), frame=0xC9) + scan([1], (0, 63), (0, 0), bytes(100_000)) + b"\xff\xd9"
    assert jpeg.strip(data, "picture").block == len(data)
    assert decode_image(data, LIMIT).size == (8, 8)


@pytest.mark.parametrize("data", [EMPTY, EMPTY[:30], EMPTY + b"\xff\xd9", b"\xff\xd8\xff", EMPTY + b"\xff\xda\0\0"])
def test_files_without_a_scan_are_damaged(data: bytes) -> None:
    with pytest.raises(BadRequestError, match="truncated or damaged"):
        decode_image(data, LIMIT)
