"""PNG and TIFF files that Pillow alone refuses, or reads otherwise than their standards say."""

import io
import struct
import time
import zlib
from typing import Literal

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, UnsupportedMediaError
from sa2va_bento.media.images import decode_image
from sa2va_bento.media.png import without_metadata
from sa2va_bento.media.regions import png_to_mask
from tests.media.files import PNG, chunk, tiff, with_chunks, with_last_chunks
from tests.pictures import b64, encode, quarters

LIMIT = 1_000_000
LONG = b"x" * 2_100_000


TEXTS = {
    "zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG, 9)),
    "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG, 9)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG, 9)),
    "XMP plain": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + LONG),
    "EXIF": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(LONG, 9)),
    "tEXt": chunk(b"tEXt", b"workflow\0" + LONG),
    "many": b"".join(chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(LONG[:1_000_000], 9)) for i in range(70)),
    "ICC": chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(range(250)) * 8400, 9)),
    "ICC of no method": chunk(b"iCCP", b"p\0\7"),
    "a key of Pillow's own": chunk(b"tEXt", b"transparency\0red"),
    "wrong sum": chunk(b"tEXt", b"a\0b")[:-4] + b"\0\0\0\0",
}


@pytest.mark.parametrize("added", TEXTS.values(), ids=TEXTS)
def test_metadata_of_any_size_hold_no_pixels(added: bytes) -> None:
    for data in (with_chunks(added), with_last_chunks(added)):
        assert decode_image(data, LIMIT).tobytes() == quarters().tobytes()
    mask = encode(Image.new("L", (6, 4), 255))
    assert png_to_mask(b64(with_chunks(added, data=mask)), (6, 4), "mask").all()


def test_pillow_keeps_its_limit_for_texts() -> None:
    before = PngImagePlugin.MAX_TEXT_CHUNK
    decode_image(with_chunks(*TEXTS.values()), LIMIT)
    assert before == PngImagePlugin.MAX_TEXT_CHUNK


def test_leaving_metadata_out_takes_linear_time() -> None:
    begun = time.monotonic()
    bomb = chunk(b"zTXt", b"exif\0\0" + zlib.compress(bytes(1_000_000), 9))
    image = decode_image(with_chunks(chunk(b"abCd", b"") * 60_000, bomb * 5000), LIMIT)
    assert image.size == (48, 32)
    assert time.monotonic() - begun < 3


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PROFILE = b"\nexif\n%8d\n%s\n" % (len(exif_of(6)), exif_of(6).hex().encode())
TURNED = {
    "eXIf": chunk(b"eXIf", exif_of(6)[6:]),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0key\0" + zlib.compress(XMP)),
    "profile": chunk(b"tEXt", b"Raw profile type exif\0" + PROFILE),
    "packed profile": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(PROFILE)),
}


@pytest.mark.parametrize("added", TURNED.values(), ids=TURNED)
def test_an_orientation_in_a_png_is_still_applied(added: bytes) -> None:
    assert decode_image(with_chunks(TEXTS["zTXt"], added), LIMIT).size == (32, 48)
    assert decode_image(with_last_chunks(added), LIMIT).size == (32, 48)


def test_a_png_without_metadata_and_a_damaged_one_stay_as_they_are() -> None:
    for data in (PNG, PNG[:50], PNG[:8], b"", PNG + TEXTS["tEXt"], PNG[:33] + b"\xff\xff\xff\xfftEXt" + PNG[33:]):
        assert without_metadata(data) is data


def png_of(bits: int, color: int, row: bytes, clear: bytes) -> bytes:
    """A PNG of one row of two pixels with a colour that is clear."""
    header = struct.pack(">IIBBBBB", 2, 1, bits, color, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", clear), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


@pytest.mark.parametrize(
    ("data", "levels"),
    [
        pytest.param(png_of(16, 0, struct.pack(">HH", 1000, 2570), struct.pack(">H", 1000)), (255, 10), id="16 bits"),
        pytest.param(png_of(16, 0, struct.pack(">HH", 0, 257), struct.pack(">H", 257)), (0, 255), id="16 bits, second"),
        pytest.param(png_of(16, 0, struct.pack(">HH", 0, 257), struct.pack(">H", 3)), (0, 1), id="16 bits, none"),
        pytest.param(png_of(8, 0, b"\5\x0a", b"\0\5"), (255, 10), id="8 bits"),
        pytest.param(png_of(4, 0, b"\x5a", b"\0\5"), (255, 170), id="4 bits"),
        pytest.param(png_of(2, 0, b"\x60", b"\0\1"), (255, 170), id="2 bits"),
        pytest.param(png_of(1, 0, b"\x40", b"\0\0"), (255, 255), id="1 bit"),
        pytest.param(
            png_of(16, 2, struct.pack(">6H", *[0x1234] * 3, *[0x5678] * 3), struct.pack(">3H", *[0x1234] * 3)),
            (255, 0x56),
            id="16 bits, colours",
        ),
    ],
)
def test_the_clear_colour_of_a_png_is_laid_on_white(data: bytes, levels: tuple[int, int]) -> None:
    assert decode_image(data, LIMIT).tobytes() == bytes(level for level in levels for _ in range(3))


GREY = np.array([[0, 128, 255], [64, 32, 16]], np.uint8)
COLOURS = np.stack([GREY, GREY, GREY], axis=2)
FLOATS = {
    "float32 grey": tiff(GREY.astype(np.float32), 1, 3),
    "float32 grey, other order": tiff(GREY.astype(np.float32), 1, 3, ">"),
    "float32 white is zero": tiff(GREY.astype(np.float32), 0, 3),
    "float16 grey": tiff(GREY.astype(np.float16), 1, 3),
    "float64 grey": tiff(GREY.astype(np.float64), 1, 3),
    "float32 RGB": tiff(COLOURS.astype(np.float32), 2, 3),
    "float64 RGB, other order": tiff(COLOURS.astype(np.float64), 2, 3, ">"),
    "complex": tiff(GREY.astype(np.complex64), 1, 6),
    "Pillow's": encode(Image.new("F", (2, 2)), "TIFF"),
    "Pillow's, packed": encode(Image.new("F", (2, 2)), "TIFF", compression="tiff_lzw"),
    "BigTIFF": encode(Image.new("F", (2, 2)), "TIFF", big_tiff=True),
}


@pytest.mark.parametrize("data", FLOATS.values(), ids=FLOATS)
def test_floating_point_is_named_and_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedMediaError, match=r"^image: a TIFF of floating-point numbers is not supported"):
        decode_image(data, LIMIT, "image")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pixels", [GREY, GREY.astype(np.uint16) * 257], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_white_is_where_the_file_says(order: Literal["<", ">"], pixels: np.ndarray, photometric: int) -> None:
    image = decode_image(tiff(pixels, photometric, 1, order), LIMIT)
    wanted = GREY if photometric else 255 - GREY
    assert (np.asarray(image) == wanted[:, :, None]).all()


def test_white_is_zero_in_packed_files_too() -> None:
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    data = encode(image, "TIFF", compression="tiff_lzw", tiffinfo={262: 0})
    assert Image.open(io.BytesIO(data)).tag_v2[262] == 0  # type: ignore[attr-defined]
    assert (np.asarray(decode_image(data, LIMIT)) == 255 - GREY[:, :, None]).all()


@pytest.mark.parametrize("at", range(0, 160, 7))
def test_damaged_tiffs_are_refused(at: int) -> None:
    data = FLOATS["float32 RGB"]
    with pytest.raises((BadRequestError, PayloadTooLargeError, UnsupportedMediaError), match=r"^image: "):
        decode_image(data[:at] + b"\xff" * 7 + data[at + 7 : -20], LIMIT, "image")
