"""PNG, GIF, WebP and BMP files of more parts than a picture needs, and EXIF that is a burden of its own."""

import io
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.media import gif
from sa2va_bento.media.images import decode_image
from sa2va_bento.media.orientation import read_orientation
from sa2va_bento.media.regions import png_to_mask
from tests.media.files import PNG, chunk, riff, run_lengths, segment, shorts, tiff_of_tags, with_chunks
from tests.pictures import b64, encode, quarters

LIMIT = 50_000_000
RED = encode(Image.new("RGB", (16, 16), "red"), "WEBP", lossless=True)[12:]
CANVAS = struct.pack("<I", 0) + b"\x0f\0\0" * 2
"""Content of VP8X: no flags, 16 x 16."""


def gif_with(*extensions: bytes, options: dict[str, object] | None = None) -> bytes:
    """A GIF of `quarters` with extensions before its picture."""
    data = encode(quarters().convert("P"), "GIF", **(options or {}))
    header = 13 + (3 << (data[10] & 7) + 1)
    return data[:header] + b"".join(extensions) + data[header:]


@pytest.fixture
def quick() -> Iterator[None]:
    """No more than 1.5 s within the test, the making of its files included."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 1.5


def refused(data: bytes, match: str) -> None:
    with pytest.raises(PayloadTooLargeError, match=f"^picture: the picture is too complex: {match}"):
        decode_image(data, LIMIT, "picture")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", [b"abCd", b"IDAT", b"tEXt", b"fdAT", b"PLTE", b"QQQQ"])
def test_too_many_chunks_of_a_png_are_refused(kind: bytes) -> None:
    refused(with_chunks(chunk(kind, b"") * 700_000), "over 65536 chunks")
    with pytest.raises(PayloadTooLargeError, match=r"^mask: the picture is too complex: over 65536 chunks"):
        png_to_mask(b64(with_chunks(chunk(kind, b"") * 100_000)), (48, 32), "mask")


@pytest.mark.parametrize("interlaced", [False, True])
def test_many_chunks_and_interlaced_pictures_are_fine(interlaced: bool) -> None:
    begun = time.monotonic()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 50, 3), np.uint8))
    data = encode(noise, interlace=interlaced)
    start = data.index(b"IDAT") - 4
    packed = data[start + 8 : data.index(b"IEND") - 8]
    pieces = b"".join(chunk(b"IDAT", packed[at : at + 1]) for at in range(len(packed)))
    image = decode_image(data[:start] + chunk(b"IDAT", b"") * 40_000 + pieces + data[-12:], LIMIT)
    assert image.tobytes() == noise.tobytes()
    assert time.monotonic() - begun < 3


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("block", [b"\1a", b"\xff" + bytes(255)])
@pytest.mark.parametrize("label", [b"\xfe", b"\xff", b"\1", b"\xf9"])
def test_too_many_blocks_of_a_gif_are_refused(label: bytes, block: bytes) -> None:
    refused(gif_with(b"!" + label + block * 70_000 + b"\0"), "over 65536 blocks")
    refused(gif_with((b"!" + label + b"\0") * 70_000), "over 65536 blocks")


@pytest.mark.usefixtures("quick")
def test_comments_and_junk_of_a_gif_are_passed_over() -> None:
    wanted = decode_image(gif_with(), LIMIT).tobytes()
    comment = b"!\xfe" + (b"\xff" + bytes(255)) * 10_000 + b"\0"
    assert decode_image(gif_with(comment, bytes(2_000_000), b"!\xff\3XMP\2,;\0"), LIMIT).tobytes() == wanted


def test_the_clear_colour_of_a_gif_is_kept_and_what_is_for_further_frames_is_not() -> None:
    with Image.open(io.BytesIO(gif_with())) as picture:
        clear = picture.getpixel((4, 4))
    assert isinstance(clear, int)
    data = gif_with(b"!\xfe\2hi\0", b"!\xf9\4\x0d\1\2" + bytes([clear, 0]))
    assert decode_image(data, LIMIT).getpixel((4, 4)) == (255, 255, 255)
    assert b"!\xf9\4\1\0\0" in gif.strip(data, "picture").data
    assert decode_image(gif_with(b"!\xf9\2\1\2\0"), LIMIT).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data", [b"GIF89a", b"GIF89a" + bytes(8), gif_with()[:13], gif_with()[:25] + b"!", gif_with(b";")]
)
def test_a_gif_without_a_picture_is_damaged(data: bytes) -> None:
    with pytest.raises(BadRequestError, match="truncated or damaged"):
        decode_image(data, LIMIT)


@pytest.mark.usefixtures("quick")
def test_chunks_of_a_webp_are_bounded() -> None:
    many = [(b"abcd", b"")] * 200_000
    refused(riff((b"VP8X", CANVAS), (b"VP8L", RED[8:]), *many), "over 65536 chunks")
    image = decode_image(riff((b"VP8X", CANVAS), (b"VP8L", RED[8:]), *many[:50_000]), LIMIT)
    assert image.getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.usefixtures("quick")
def test_of_many_frames_one_is_decoded() -> None:
    frame = (b"ANMF", bytes(6) + b"\x0f\0\0" * 2 + bytes(4) + RED)
    animated = riff((b"VP8X", b"\2" + CANVAS[1:]), (b"ANIM", bytes(6)), *[frame] * 20_000)
    assert decode_image(animated, LIMIT).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("size", "runs"),
    [((2049, 2048), b"\0\0" * 2048), ((7000, 7000), b"\0\1"), ((100, -50_000), b"\0\1"), ((4, 4), b"\1\1" * 2**20)],
)
def test_run_lengths_of_a_bmp_are_bounded(size: tuple[int, int], runs: bytes) -> None:
    refused(run_lengths(size, runs), "run lengths of")


def test_run_lengths_are_decoded() -> None:
    assert decode_image(run_lengths((4, 1), b"\2\x09\2\x07\0\1"), LIMIT).tobytes() == bytes([9] * 6 + [7] * 6)


EXIF = tiff_of_tags({0x0112: shorts(6)}, b"")
HEAVY = {
    "repeated names": b"Exif\0\0" * 500_000 + EXIF,
    "a million rationals": tiff_of_tags({0x0112: shorts(6), 33_434: (5, 1_000_000, bytes(8_000_000))}, b""),
    "overlapping values": tiff_of_tags(
        dict.fromkeys(range(300, 1300), (1, 1_000_000, struct.pack("<I", 8))), bytes(1_000_000)
    ),
    "a loop": EXIF[:-4] + struct.pack("<I", 8),
    "too many entries": b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x0112, 3, 1, 6) * 65_535,
    "no directory": b"II*\0\xff\xff\xff\xff" + bytes(20),
    "zeros": bytes(1_000_000),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", HEAVY)
def test_exif_of_any_weight_is_no_burden(name: str) -> None:
    size = (32, 48) if name in ("a million rationals", "a loop") else (48, 32)
    webp = encode(quarters(), "WEBP", exif=b"Exif\0\0" + HEAVY[name])
    jpeg = encode(quarters(), "JPEG")
    assert decode_image(with_chunks(chunk(b"eXIf", HEAVY[name])), LIMIT).size == size
    assert decode_image(webp, LIMIT).size == size
    if len(HEAVY[name]) < 65_000:
        assert decode_image(jpeg[:2] + segment(0xE1, b"Exif\0\0" + HEAVY[name]) + jpeg[2:], LIMIT).size == size


@pytest.mark.parametrize(
    ("info", "orientation"),
    [
        ({}, 1),
        ({"exif": EXIF}, 6),
        ({"exif": b"Exif\0\0" + EXIF}, 6),
        ({"exif": tiff_of_tags({0x0112: (4, 1, struct.pack("<I", 3))}, b"")}, 3),
        ({"exif": tiff_of_tags({0x0112: shorts(0)}, b""), "xmp": b'tiff:Orientation="8"'}, 1),
        ({"exif": b"Exif\0\0", "xmp": b"<tiff:Orientation>8</tiff:Orientation>"}, 8),
        ({"XML:com.adobe.xmp": 'tiff:Orientation="5"'}, 5),
        ({"xmp": b" " * 2**20 + b'tiff:Orientation="5"'}, 1),
        ({"Raw profile type exif": "\nexif\n 34\n" + EXIF.hex() + "\n"}, 6),
        ({"Raw profile type exif": "\nexif\n 34\nxyz"}, 1),
        ({"exif": "text", "xmp": 7}, 1),
    ],
)
def test_the_orientation_is_read_from_exif_or_else_xmp(info: dict[str, object], orientation: int) -> None:
    assert read_orientation(info) == orientation


def test_the_picture_itself_is_what_it_was() -> None:
    assert decode_image(PNG, LIMIT).tobytes() == quarters().tobytes()
