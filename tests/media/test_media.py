"""Bytes to upright RGB: every format and mode that clients send, and every way to send it wrong."""

import base64
import contextlib
import io
import time
import tracemalloc
import urllib.parse

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError, Sa2VAError, UnsupportedMediaError
from sa2va_bento.media.images import FORMATS, decode_base64, decode_image
from tests.pictures import b64, bomb, encode, quarters

LIMIT = 4_000_000
DATA = bytes(range(256))


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def is_close(color: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(color, wanted, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        b64(DATA),
        "data:image/png;base64," + b64(DATA),
        "DATA:image/png;charset=x;BASE64," + b64(DATA),
        "data:image/png ; charset=x ; base64 ," + b64(DATA),
        "data:image/png;base64," + urllib.parse.quote(b64(DATA), safe=""),
        "data:image/png;base64," + urllib.parse.quote(base64.encodebytes(DATA + b"?").decode()).replace("%2F", "%2f"),
        base64.encodebytes(DATA).decode(),
        f"  {b64(DATA)}\r\n",
        b64(DATA).rstrip("="),
        base64.urlsafe_b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
    ],
    ids=lambda text: ascii(text[:30]),
)
def test_base64_variants_decode(text: str) -> None:
    assert decode_base64(text).removesuffix(b"?") == DATA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "=",
        "====",
        "A",
        "AAAAA",
        "hello world!",
        "AAAA*AAA",
        "AA==AAAA",
        "AAA=====",
        "ab+/-_cd",
        "ä" * 8,
        "\u0660\u0661\u0662\u0663",
        "data:image/png,AAAA",
        "data:image/png;base64",
        "data:;base64,",
        "https://example.com/a.png",
        "AAAA\ud800",
        "\udcff",
        "data:image/png;base64,AAAA\udfff",
        "data:\ud800;base64,AAAA",
        "AAAA\u2028AAAA",
        "\uff21" * 4,
        "AAAA\0",
        "AA%3D%3D",
        "data:;base64,AA%3",
        "data:;base64,%41AAA",
        "data:;base64 x,AAAA",
        "data:,;base64,AAAA",
    ],
    ids=ascii,
)
def test_what_is_not_base64_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadRequestError, match=r"^base64Image: "):
        decode_base64(text)


@pytest.mark.parametrize("text", ["%2B", "%2b", " ", "-", "A", "=", "%", "\n"])
@pytest.mark.parametrize("start", ["", "data:;base64,", "data:;"])
def test_base64_takes_linear_time_and_thrice_its_memory(start: str, text: str) -> None:
    whole, begun = start + text * (3_000_000 // len(text)) + "A", time.monotonic()
    tracemalloc.start()
    with contextlib.suppress(BadRequestError):
        decode_base64(whole)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.1 * len(whole)  # beside the text itself
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize("picture_format", FORMATS)
def test_every_format_decodes(picture_format: str) -> None:
    image = decode_image(encode(quarters(), picture_format), LIMIT)
    assert (image.mode, image.size) == ("RGB", (48, 32))
    assert is_close(pixel(image, 4, 4), (255, 0, 0), 40)  # the lossy ones smear
    assert is_close(pixel(image, 40, 28), (255, 255, 255), 40)


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "corner"),
    [
        (1, (255, 0, 0)),
        (2, (0, 255, 0)),
        (3, (255, 255, 255)),
        (4, (0, 0, 255)),
        (5, (255, 0, 0)),
        (6, (0, 0, 255)),
        (7, (255, 255, 255)),
        (8, (0, 255, 0)),
        (0, (255, 0, 0)),
        (99, (255, 0, 0)),
    ],
)
def test_exif_orientation_is_applied_once(picture_format: str, orientation: int, corner: tuple[int, int, int]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = decode_image(encode(quarters(), picture_format, exif=exif), LIMIT)
    assert image.size == ((32, 48) if orientation in (5, 6, 7, 8) else (48, 32))
    assert is_close(pixel(image, 3, 3), corner, 40)


def test_broken_exif_is_ignored() -> None:
    image = decode_image(encode(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), LIMIT)
    assert image.size == (48, 32)


def grey16(values: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.array(values, np.uint16))


def with_alpha(color: tuple[int, int, int], alpha: int) -> Image.Image:
    return Image.new("RGBA", (4, 4), (*color, alpha))


def palette_with_hole() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 0, 0, 200])
    image.putpixel((0, 0), 0)
    return image


@pytest.mark.parametrize(
    ("data", "at", "wanted"),
    [
        pytest.param(encode(Image.new("1", (4, 4), 1)), (1, 1), (255, 255, 255), id="1"),
        pytest.param(encode(Image.new("L", (4, 4), 77)), (1, 1), (77, 77, 77), id="L"),
        pytest.param(encode(Image.new("LA", (4, 4), (0, 0))), (1, 1), (255, 255, 255), id="LA clear"),
        pytest.param(encode(Image.new("LA", (4, 4), (0, 255))), (1, 1), (0, 0, 0), id="LA opaque"),
        pytest.param(encode(with_alpha((255, 0, 0), 0)), (1, 1), (255, 255, 255), id="RGBA clear"),
        pytest.param(encode(with_alpha((255, 0, 0), 128)), (1, 1), (255, 127, 127), id="RGBA half"),
        pytest.param(encode(with_alpha((255, 0, 0), 0), "WEBP", lossless=True), (1, 1), (255, 255, 255), id="WebP"),
        pytest.param(encode(palette_with_hole(), transparency=0), (0, 0), (255, 255, 255), id="P clear"),
        pytest.param(encode(palette_with_hole(), transparency=0), (2, 2), (0, 0, 200), id="P opaque"),
        pytest.param(encode(palette_with_hole(), "GIF", transparency=0), (0, 0), (255, 255, 255), id="GIF clear"),
        pytest.param(
            encode(Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9)), (1, 1), (255, 255, 255), id="RGB key"
        ),
        pytest.param(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), (4, 4), (255, 0, 0), id="CMYK"),
        pytest.param(encode(Image.new("CMYK", (4, 4), (255, 0, 255, 0)), "TIFF"), (1, 1), (0, 255, 0), id="CMYK TIFF"),
        pytest.param(encode(Image.new("YCbCr", (8, 8), (76, 85, 255)), "JPEG"), (4, 4), (254, 0, 0), id="YCbCr"),
        pytest.param(encode(grey16([[0, 65535], [32896, 257]])), (1, 0), (255, 255, 255), id="I;16 white"),
        pytest.param(encode(grey16([[0, 65535], [32896, 257]])), (0, 1), (128, 128, 128), id="I;16 grey"),
        pytest.param(encode(grey16([[0, 65535], [32896, 257]]), "TIFF"), (0, 1), (128, 128, 128), id="I;16 TIFF"),
        pytest.param(encode(Image.new("I", (2, 2), 51400), "TIFF"), (1, 1), (200, 200, 200), id="I of 16 bits"),
        pytest.param(encode(Image.new("I", (2, 2), 200), "TIFF"), (1, 1), (200, 200, 200), id="I of 8 bits"),
        pytest.param(encode(Image.new("I", (2, 2), -3), "TIFF"), (1, 1), (0, 0, 0), id="I flat and negative"),
    ],
)
def test_every_mode_becomes_rgb(data: bytes, at: tuple[int, int], wanted: tuple[int, int, int]) -> None:
    image = decode_image(data, LIMIT)
    assert image.mode == "RGB"
    assert is_close(pixel(image, *at), wanted, 2)


@pytest.mark.parametrize("picture_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_many_frames_counts(picture_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if picture_format == "WEBP" else {}
    data = encode(frames[0], picture_format, save_all=True, append_images=frames[1:], **options)
    assert is_close(pixel(decode_image(data, LIMIT), 4, 4), (255, 0, 0), 2)


@pytest.mark.parametrize("size", [(1, 1), (4000, 10), (10, 4000), (2000, 2000)])
def test_odd_sizes_within_the_limit_decode(size: tuple[int, int]) -> None:
    assert decode_image(encode(Image.new("RGB", size)), LIMIT).size == size


@pytest.mark.parametrize("picture_format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(picture_format: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = encode(noise, picture_format)
    with pytest.raises(BadRequestError, match="truncated or damaged"):
        decode_image(data[: max(16, int(len(data) * share))], LIMIT)


@pytest.mark.parametrize("data", [b"hello", b"\0" * 100, b"<html></html>", b"{}", b"RIFFxxxxWAVE"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequestError, match="not a picture"):
        decode_image(data, LIMIT)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x1aE\xdf\xa3\1", "WebM"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"v/1\1\2\0\0\0", "OpenEXR"),
        (b"P6\n2 2\n255\n", "PNM"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x18ftypheic", "HEIF"),
        (b"\0\0\0\x18ftypisom", "MP4"),
        (b"8BPS\0\1", "PSD"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns=", "SVG"),
        (b"  <?xml version='1.0'?><svg>", "SVG"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"\xff\x0a\0", "JPEG XL"),
    ],
)
def test_other_formats_are_named_and_refused(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedMediaError, match=f"{name} is not supported"):
        decode_image(data, LIMIT)


def test_lab_is_refused() -> None:
    with pytest.raises(UnsupportedMediaError, match="LAB"):
        decode_image(encode(Image.new("LAB", (4, 4)), "TIFF"), LIMIT)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bomb(), id="20000x20000"),
        pytest.param(encode(Image.new("L", (2001, 2000))), id="a row too many"),
        pytest.param(encode(Image.new("1", (65_536, 1))), id="a side too long"),
        pytest.param(encode(Image.new("1", (2001, 2000)), "TIFF", compression="group4"), id="TIFF"),
        pytest.param(encode(Image.new("L", (2001, 2000)), "WEBP"), id="WebP"),
        pytest.param(encode(Image.new("L", (2001, 2000)), "JPEG"), id="JPEG"),
        pytest.param(encode(Image.new("L", (2001, 2000)), "GIF"), id="GIF"),
        pytest.param(encode(Image.new("1", (2001, 2000)), "BMP"), id="BMP"),
    ],
)
def test_too_many_pixels_are_refused_before_decoding(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    with pytest.raises(PayloadTooLargeError, match="pixels"):
        decode_image(data, LIMIT)
    assert decoded == []


def test_pillow_keeps_its_own_limits() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    for data in (bomb(), encode(quarters()), b"\xff\xd8\xff"):
        with contextlib.suppress(Sa2VAError):
            decode_image(data, LIMIT)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_damage_anywhere_never_raises_anything_else(picture_format: str, at: int, damage: bytes) -> None:
    data = bytearray(encode(quarters(), picture_format))
    data[at : at + len(damage)] = damage
    with contextlib.suppress(Sa2VAError):
        assert decode_image(bytes(data), LIMIT).mode == "RGB"


def test_the_result_does_not_hold_the_file() -> None:
    data = encode(quarters(), "PNG")
    image = decode_image(data, LIMIT)
    assert type(image) is Image.Image
    assert image.info == {}
    assert Image.open(io.BytesIO(encode(image))).size == image.size
