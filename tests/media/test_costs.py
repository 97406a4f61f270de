"""What pictures may cost in memory, and the masks of regions in time."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.errors import BadRequestError, PayloadTooLargeError
from sa2va_bento.media.regions import MOST_RUNS, png_to_mask, polygon_to_mask, rle_to_mask
from tests.pictures import b64, encode

PEAK = """
import gc, sys
from pathlib import Path
from sa2va_bento.media.images import decode_image
from sa2va_bento.media.regions import png_to_mask
from tests.pictures import b64

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def peak(work):
    work()  # what is loaded and kept once
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS:")
    result = work()
    return memory("VmHWM:") - before, result

for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    extra, image = peak(lambda: decode_image(data, 10**8))
    print(path.name, extra / (3 * image.width * image.height))
    del image
text = b64((Path(sys.argv[1]) / "grey.png").read_bytes())
extra, mask = peak(lambda: png_to_mask(text, (2400, 1600), "mask"))
print("mask", extra / mask.size)
"""
"""Prints the peak of memory while pictures are decoded, in multiples of the bytes of RGB, or of a mask's pixels."""


def pictures() -> dict[str, bytes]:
    """Of 2400 x 1600 pixels, in the modes that take most memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    rgb = Image.fromarray(pixels)
    clear, grey = rgb.copy(), rgb.convert("L")
    clear.putalpha(grey)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "rgb.png": encode(rgb, compress_level=1),
        "rgba.png": encode(clear, compress_level=1),
        "palette.png": encode(rgb.convert("P"), compress_level=1, transparency=3),
        "grey.png": encode(grey, compress_level=1),
        "grey16.png": encode(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), compress_level=1),
        "grey32.tif": encode(Image.fromarray(np.asarray(grey).astype(np.int32)), "TIFF"),
        "cmyk.tif": encode(rgb.convert("CMYK"), "TIFF"),
        "cmyk.jpg": encode(rgb.convert("CMYK"), "JPEG"),
        "turned.jpg": encode(rgb, "JPEG", exif=turned),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "picture.gif": encode(rgb.convert("P"), "GIF", transparency=3),
    }


def test_decoding_takes_three_times_the_memory_of_the_picture_at_most(tmp_path: Path) -> None:
    for name, data in pictures().items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    peaks = {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}
    assert peaks.keys() == {*pictures(), "mask"}
    assert max(peaks.values()) < 3.1, peaks


def test_many_masks_take_a_bounded_time() -> None:
    """As many as a request may have, of pixels and of corners (`web/request.py`)."""
    begun = time.monotonic()
    text = b64(encode(Image.new("1", (4000, 3000), 1)))
    for _ in range(16):
        assert png_to_mask(text, (4000, 3000), "mask").all()
    corners = np.random.default_rng(0).uniform(0, 40, (20_000, 2)).tolist()
    assert polygon_to_mask(corners, (40, 40), "polygon").any()
    assert time.monotonic() - begun < 4


def test_too_many_runs_are_refused() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"^mask: counts has a length of 2097153, 2097152 at most are taken"):
        rle_to_mask([4, 6], [0] * (MOST_RUNS + 1), (6, 4), "mask")
    with pytest.raises(PayloadTooLargeError, match=r"^mask: counts has a length of 2097153"):
        rle_to_mask([4, 6], "0" * (MOST_RUNS + 1), (6, 4), "mask")
    with pytest.raises(BadRequestError, match=r"^mask: the runs of counts"):
        rle_to_mask([4, 6], "0" * MOST_RUNS, (6, 4), "mask")
