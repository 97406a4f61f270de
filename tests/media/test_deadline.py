"""Decoding that stops when its time is over."""

import base64
import itertools
import time

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.errors import DeadlineExceededError
from sa2va_bento.media import deadline as clock
from sa2va_bento.media.deadline import WatchedFile, check_deadline
from sa2va_bento.media.images import FORMATS, decode_image
from sa2va_bento.media.regions import png_to_mask
from tests.media.files import refinements, run_lengths
from tests.pictures import b64, encode, quarters

LIMIT = 50_000_000
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8))


@pytest.mark.parametrize("picture_format", FORMATS)
def test_past_the_deadline_nothing_is_decoded(picture_format: str) -> None:
    data = encode(quarters(), picture_format)
    with pytest.raises(DeadlineExceededError, match=r"^no answer in time$"):
        decode_image(data, LIMIT, deadline=time.monotonic() - 0.001)
    later = decode_image(data, LIMIT, deadline=time.monotonic() + 60)
    assert later.tobytes() == decode_image(data, LIMIT).tobytes()


def test_past_the_deadline_no_mask_is_decoded() -> None:
    text = b64(encode(Image.new("L", (6, 4), 255)))
    with pytest.raises(DeadlineExceededError, match=r"^no answer in time$"):
        png_to_mask(text, (6, 4), "mask", time.monotonic() - 0.001)
    assert png_to_mask(text, (6, 4), "mask", time.monotonic() + 60).all()


SLOW = {
    "JPEG": encode(NOISE, "JPEG", quality=95),
    "progressive JPEG": encode(NOISE, "JPEG", quality=95, progressive=True),
    "JPEG of many scans": refinements((3000, 2000), 40),
    "PNG": encode(NOISE),
    "PNG of few bytes": encode(Image.new("RGB", (5000, 5000))),
    "clear PNG": encode(Image.new("RGBA", (3000, 3000))),
    "PNG of 16 bits": encode(Image.new("I;16", (3000, 3000))),
    "GIF": encode(NOISE.convert("P"), "GIF"),
    "BMP": encode(NOISE, "BMP"),
    "BMP of run lengths": run_lengths((900, 100), (b"\1\1" * 900 + b"\0\0") * 100 + b"\0\1"),
    "TIFF": encode(NOISE, "TIFF"),
}


@pytest.mark.parametrize("name", SLOW)
def test_decoding_is_stopped_midway(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock on which every look takes a second: there are many, and the last before the deadline is the end."""
    monkeypatch.setattr(clock.time, "monotonic", itertools.count(1).__next__)
    with pytest.raises(DeadlineExceededError):
        decode_image(SLOW[name], LIMIT, deadline=12)
    assert clock.time.monotonic() == 14


def test_a_mask_is_stopped_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b64(encode(Image.new("1", (5000, 5000), 1)))
    monkeypatch.setattr(clock.time, "monotonic", itertools.count(1).__next__)
    with pytest.raises(DeadlineExceededError):
        png_to_mask(text, (5000, 5000), "mask", 12)
    assert clock.time.monotonic() == 14


def test_the_time_is_kept() -> None:
    """A JPEG within every limit that takes 0.7 s here."""
    data = refinements((3000, 2000), 100)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        decode_image(data, LIMIT, deadline=begun + 0.1)
    assert time.monotonic() - begun < 0.5


def test_no_deadline_never_comes() -> None:
    check_deadline(None)
    with pytest.raises(DeadlineExceededError):
        check_deadline(0)


def test_reads_end_at_stops() -> None:
    file = WatchedFile(b"0123456789", None, [3, 7])
    assert [file.read(2), file.read(2), file.read(), file.read(1), file.read(9), file.read()] == [
        *(b"01", b"2", b"3456", b"7", b"89", b"")
    ]
    file.seek(1)
    assert file.read(100) == b"12"


@pytest.mark.parametrize("start", range(11))
@pytest.mark.parametrize("size", [0, 1, 2, 5, 20, -1, None])
def test_a_patch_is_read_in_place(start: int, size: int | None) -> None:
    file, patched = WatchedFile(b"0123456789", None, patch=(4, b"abc")), b"0123abc789"
    file.seek(start)
    assert file.read(size) == (patched[start:] if size is None or size < 0 else patched[start : start + size])
    assert file.getvalue() == patched


def test_the_encoded_file_is_let_go() -> None:
    """Of a TIFF Pillow keeps the file, for further pictures in it."""
    for picture_format in FORMATS:
        data = base64.b64decode(b64(encode(quarters(), picture_format)))
        image = decode_image(data, LIMIT)
        assert type(image) is Image.Image
        assert {name for name, value in vars(image).items() if isinstance(value, bytes)} == set()
        assert not hasattr(image, "fp")
        assert image.info == {}
