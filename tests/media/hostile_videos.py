"""A hundred videos that are damaged, endless, enormous or something else, built from small sound ones."""

import random
import struct
from collections.abc import Iterator
from pathlib import Path

from tests import films

KINDS = (("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx-vp9"), ("avi", "mpeg4"), ("mov", "mpeg4"))


def hostile_videos(folder: Path, count: int = 100) -> Iterator[Path]:
    """Files to be read, each into `folder`; the first are of known kinds, the rest damaged at random places."""
    sound = {suffix: films.film(folder / f"sound.{suffix}", films.frames(10), codec) for suffix, codec in KINDS}
    animated = {
        suffix: films.animation(folder / f"sound.{suffix}", films.frames(6)) for suffix in ("gif", "webp", "png")
    }
    made = list(_known({**sound, **animated}))
    rng = random.Random(7)
    whole = [path.read_bytes() for path in (*sound.values(), *animated.values())]
    while len(made) < count:
        made.append(_damaged(whole[len(made) % len(whole)], rng))
    for number, data in enumerate(made[:count]):
        path = folder / f"hostile{number}"
        path.write_bytes(data)
        yield path


def _known(sound: dict[str, Path]) -> Iterator[bytes]:
    mp4 = sound["mp4"].read_bytes()
    for path in sound.values():
        data = path.read_bytes()
        yield data[: len(data) // 2]
        yield data[:200]
        yield data + bytes(10_000)
    yield b""
    yield bytes(100_000)
    yield _resized(mp4, 60_000, 60_000)
    yield _resized(mp4, 0, 0)
    yield _resized(mp4, 65_535, 1)
    yield _with_sample_table(mp4, b"stts", 1, 36_000_000)  # one frame of ten hours
    yield _with_sample_table(mp4, b"stsz", 2**31 - 1, 0)
    yield _with_sample_table(mp4, b"stco", 2**31 - 1, 2**32 - 1)
    yield _with_sample_table(mp4, b"stsc", 2**31 - 1, 0)
    yield _with_sample_table(mp4, b"ctts", 2**31 - 1, 0)
    yield mp4.replace(b"avc1", b"evil", 1)
    yield mp4.replace(b"vide", b"soun", 1)
    yield b"".join(struct.pack(">I4s", 8 * (5000 - depth), b"moov") for depth in range(5000))  # nested boxes
    yield struct.pack(">I4s", 1, b"ftyp") + struct.pack(">Q", 2**63) + bytes(64)
    yield mp4[:40] + struct.pack(">I4s", 2**31, b"free") + bytes(64)
    yield sound["mkv"].read_bytes()[:60] + b"\x08\xff\xff\xff\xff\xff\xff\xff" * 200
    yield sound["gif"].read_bytes()[:6] + struct.pack("<HH", 60_000, 60_000) + sound["gif"].read_bytes()[10:]
    yield sound["png"].read_bytes()[:16] + struct.pack(">II", 60_000, 60_000) + sound["png"].read_bytes()[24:]
    yield b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    yield b"ffconcat version 1.0\nfile /etc/passwd\n"
    yield b"RIFF\x04\x00\x00\x00AVI "
    yield b"\x1aE\xdf\xa3\x01\x00\x00\x00\x00\x00\x00\x00"


def _resized(mp4: bytes, width: int, height: int) -> bytes:
    """The size in the track's header and in its sample description."""
    data, entry = bytearray(mp4), mp4.find(b"avc1", mp4.find(b"stsd"))
    struct.pack_into(">HH", data, entry + 28, min(width, 65_535), min(height, 65_535))
    header = mp4.find(b"tkhd")
    struct.pack_into(">II", data, header + 80, width << 16 & 0xFFFFFFFF, height << 16 & 0xFFFFFFFF)
    return bytes(data)


def _with_sample_table(mp4: bytes, box: bytes, count: int, value: int) -> bytes:
    """A box of the sample table whose count and first value are others."""
    data, place = bytearray(mp4), mp4.find(box)
    if place < 0:
        return mp4[:300]
    struct.pack_into(">I", data, place + 8, count)
    struct.pack_into(">I", data, place + 12, value & 0xFFFFFFFF)
    return bytes(data)


def _damaged(whole: bytes, rng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.choice((1, 5, 30, 200))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        start = rng.randrange(len(data))
        data[start : start + rng.randrange(500)] = b""
    return bytes(data)
