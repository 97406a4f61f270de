"""Random damage to pictures of every format: `python -m tests.media.fuzz --seconds 600` (seed printed, and repeatable).

Whatever comes of a file, it comes within `LONGEST`, and is a picture or one of the project's errors.
"""

import argparse
import random
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from sa2va_bento.errors import Sa2VAError
from sa2va_bento.media.images import decode_image
from sa2va_bento.media.regions import png_to_mask
from tests.media.files import refinements, riff, run_lengths
from tests.pictures import b64, encode

LONGEST = 2.0
"""Seconds that a file may take."""

LIMIT = 4_000_000
"""Pixels, so that no more than `LONGEST` is needed by honest ones on a loaded machine."""

_EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\1\0\0\0")


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    return exif


def corpus() -> dict[str, list[bytes]]:
    """Small pictures by format, of many modes and options."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    clear, grey = noise.copy(), noise.convert("L")
    clear.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    packed = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "lzma", "zstd")
    frames = {"save_all": True, "append_images": [grey.convert("RGB"), noise]}
    return {
        "JPEG": [
            encode(noise, "JPEG", exif=_exif()),
            encode(noise, "JPEG", progressive=True, comment=b"text"),
            encode(noise.convert("CMYK"), "JPEG", restart_marker_blocks=2),
            refinements((60, 40), 20, 3),
        ],
        "PNG": [encode(image, exif=_exif()) for image in (noise, clear, grey, deep, noise.convert("P"))]
        + [encode(noise, **frames)],
        "WEBP": [
            encode(noise, "WEBP", exif=_exif().tobytes()),
            encode(clear, "WEBP", lossless=True),
            encode(noise, "WEBP", **frames),
            riff((b"VP8 ", encode(noise, "WEBP")[20:])),
        ],
        "GIF": [encode(noise.convert("P"), "GIF", comment=b"text", transparency=3), encode(noise, "GIF", **frames)],
        "BMP": [encode(noise, "BMP"), encode(grey, "BMP"), run_lengths((60, 40), b"\x3c\1\0\0" * 40 + b"\0\1")],
        "TIFF": [encode(image, "TIFF") for image in (noise, clear, grey, deep, noise.convert("CMYK"))]
        + [encode(noise, "TIFF", compression=name) for name in packed]
        + [
            encode(noise.convert("1"), "TIFF", compression="group4"),
            encode(noise, "TIFF", big_tiff=True, exif=_exif()),
        ],
    }


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Some damage, of one to six kinds; `other` is a file to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(_DAMAGE)(data, other, rng)
    return data[: 2**20]


def _overwrite(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    new = rng.choice((rng.randbytes(rng.randint(1, 4)), rng.choice(_EXTREMES)))
    return data[:at] + new + data[at + len(new) :]


def _flip(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :] if data else data


def _cut(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.randint(1, 64) :] if rng.random() < 0.8 else data[:at]


def _repeat(data: bytes, other: bytes, rng: random.Random) -> bytes:
    start = _place(data, rng)
    piece = data[start : start + rng.choice((1, 2, 12, 40, 200, 1000))]
    return data[:start] + piece * rng.choice((2, 2, 5, 50, 1000)) + data[start + len(piece) :]


def _splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at, start = _place(data, rng), _place(other, rng)
    return data[:at] + other[start : start + rng.randint(1, 500)] + data[at:]


def _number(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A number of 2, 4 or 8 bytes in either byte order."""
    at, layout = _place(data, rng), rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(layout)
    value = rng.choice((0, 1, 8, 255, 256, 4096, 65_535, 2**31 - 1, 2**31, 2**32 - 1, len(data), rng.getrandbits(16)))
    return data[:at] + struct.pack(layout, value % 2 ** (8 * size)) + data[at + size :]


def _checksums(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """A PNG's checksums put right, so that damage reaches further than the first look."""
    place, fixed = 8, bytearray(data)
    while data[:4] == b"\x89PNG" and place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            break
        fixed[end - 4 : end] = struct.pack(">I", zlib.crc32(data[place + 4 : end - 4]))
        place = end
    return bytes(fixed)


def _place(data: bytes, rng: random.Random) -> int:
    """Anywhere, more often near the beginning, where formats keep their headers."""
    return rng.randrange(max(1, min(len(data), rng.choice((64, 300, len(data) or 1)))))


_DAMAGE: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    *(_overwrite, _overwrite, _flip, _cut, _repeat, _splice, _number, _number, _checksums),
)


@dataclass
class Findings:
    """What came of the files: counts by format and outcome, the slowest, and what should not have been."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    wrong: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, name: str, data: bytes, outcome: str, seconds: float) -> None:
        self.counts[name, outcome] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > LONGEST:
            self.wrong.append((f"{seconds:.1f} s for a {name} ({outcome})", data))


def run(seconds: float, seed: int, most_files: int = sys.maxsize) -> Findings:
    """Decodes damaged files, as pictures and PNGs as masks too, until the time is up or all are done."""
    rng, findings, files = random.Random(seed), Findings(), corpus()
    everything = [data for some in files.values() for data in some]
    end = time.monotonic() + seconds
    for _ in range(most_files):
        if time.monotonic() > end or len(findings.wrong) >= 20:
            break
        name = rng.choice(list(files))
        data = mutate(rng.choice(files[name]), rng.choice(everything), rng)
        _try(name, data, lambda: decode_image(data, LIMIT), findings)  # noqa: B023 - called at once
        if name == "PNG":
            _try("mask", data, lambda: png_to_mask(b64(data), (60, 40), "mask"), findings)  # noqa: B023
    return findings


def _try(name: str, data: bytes, work: Callable[[], object], findings: Findings) -> None:
    begun = time.monotonic()
    try:
        work()
        outcome = "decoded"
    except Sa2VAError as error:
        outcome = type(error).__name__
        if error.status == 500:
            findings.wrong.append((f"{name}: {error}", data))
    except Exception as error:
        outcome = type(error).__name__
        findings.wrong.append((f"{name}: {error!r}", data))
    findings.add(name, data, outcome, time.monotonic() - begun)


def main() -> int:
    parser = argparse.ArgumentParser(description="Random damage to pictures of every format")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, help="folder for the files that went wrong")
    options = parser.parse_args()
    findings = run(options.seconds, options.seed)
    print(f"seed {options.seed}, {sum(findings.counts.values())} files, slowest {findings.slowest_s:.2f} s")  # noqa: T201
    for (name, outcome), count in sorted(findings.counts.items()):
        print(f"{name:5s} {outcome:22s} {count:8d}")  # noqa: T201
    for number, (what, data) in enumerate(findings.wrong):
        print("WRONG", what)  # noqa: T201
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / str(number)).write_bytes(data)
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
