"""Videos of every kind to frames: counts, times, sizes, and what is wrong with a file."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sa2va_bento.errors import (
    BadRequestError,
    DeadlineExceededError,
    PayloadTooLargeError,
    Sa2VAError,
    UnsupportedMediaError,
)
from sa2va_bento.media.videos.pictures import PictureSequence
from sa2va_bento.media.videos.selection import EVERY_FRAME, Selection, select
from sa2va_bento.media.videos.video_file import VideoFile, VideoLimits
from tests import films
from tests.media.hostile_videos import hostile_videos

LIMITS = VideoLimits(max_pixels=4_000_000, max_frames=1000)
NEAR = 12
"""Of 255: what lossy codecs leave of a colour, on average."""


def opened(path: Path, selection: Selection = EVERY_FRAME, limits: VideoLimits = LIMITS) -> VideoFile:
    return VideoFile(path, limits, selection)


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.mkv", "mjpeg"),
        ("b.mp4", "libx265"),
    ],
)
def test_every_container(tmp_path: Path, name: str, codec: str) -> None:
    images = films.frames(7)
    video = opened(films.film(tmp_path / name, images, codec))
    found = list(video.frames())
    assert [frame.index for frame in found] == list(range(7)) == [frame.source_index for frame in found]
    assert [frame.time_s for frame in found] == pytest.approx([0.1 * n for n in range(7)], abs=2e-3)
    assert all(difference(frame.image, image) < NEAR for frame, image in zip(found, images, strict=True))
    assert (video.count(), video.damaged) == (7, 0)
    info = video.info
    assert info
    assert ((info.width, info.height), info.fps) == (films.SIZE, pytest.approx(10))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations(tmp_path: Path, suffix: str) -> None:
    images = films.frames(5)
    found = list(opened(films.animation(tmp_path / f"a.{suffix}", images, 80)).frames())
    assert [frame.time_s for frame in found] == pytest.approx([0.08 * n for n in range(5)])
    assert all(difference(frame.image, image) < NEAR for frame, image in zip(found, images, strict=True))


def test_a_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    film = films.film(tmp_path / "a.webm", films.frames(3), "libvpx-vp9")
    assert len(list(opened(film.rename(tmp_path / "a.mp4")).frames())) == 3


def test_frames_of_different_lengths_keep_their_times(tmp_path: Path) -> None:
    times = [0, 40, 200, 210, 1000]
    film = films.film(tmp_path / "a.mp4", films.frames(5), times_ms=times)
    assert [frame.time_s for frame in opened(film).frames()] == pytest.approx([t / 1000 for t in times], abs=1e-3)


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    wide = films.film(tmp_path / "a.mp4", films.frames(2), aspect=Fraction(2))
    high = films.film(tmp_path / "b.mp4", films.frames(2), aspect=Fraction(1, 2))
    assert [frame.image.size for frame in opened(wide).frames()] == [(192, 64)] * 2
    assert [frame.image.size for frame in opened(high).frames()] == [(96, 128)] * 2


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_upright(tmp_path: Path, rotation: int) -> None:
    """A telephone stores frames as its sensor lies, and how to turn them (anticlockwise) beside."""
    upright = films.frames(2)
    turns = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
    stored = [image.transpose(turns[rotation]) for image in upright]
    found = list(opened(films.film(tmp_path / "a.mp4", stored, rotation=rotation)).frames())
    assert [frame.image.size for frame in found] == [films.SIZE] * 2
    assert all(difference(frame.image, image) < NEAR for frame, image in zip(found, upright, strict=True))


def times(selection: Selection, shown: list[float | None]) -> list[float | int | None]:
    return [taken.time_s for taken in select(((moment, None) for moment in shown), selection)]


def test_selections() -> None:
    tenths: list[float | None] = [n / 10 for n in range(30)]
    assert times(Selection(start_s=0.5, end_s=0.8), tenths) == [0.5, 0.6, 0.7, 0.8]
    assert times(Selection(every_nth=10), tenths) == [0.0, 1.0, 2.0]
    assert times(Selection(fps=2), tenths) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert times(Selection(fps=2, max_frames=2, start_s=0.2), tenths) == [0.2, 0.7]
    assert times(Selection(fps=100), tenths) == tenths  # no frame twice
    assert times(Selection(fps=1), [0.0, 0.9, 1.0, 5.2, 5.4, 6.0, 6.3]) == [0.0, 1.0, 5.2, 6.0]
    assert times(Selection(start_s=5, fps=1, every_nth=2), [None] * 4) == [None, None]


def test_counting_agrees_with_reading(tmp_path: Path) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(30))
    for selection in (Selection(fps=3), Selection(every_nth=7), Selection(start_s=1, max_frames=4), EVERY_FRAME):
        assert opened(film, selection).count() == len(list(opened(film, selection).frames()))


def test_too_many_frames_are_refused(tmp_path: Path) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(12))
    limits = VideoLimits(4_000_000, 5)
    with pytest.raises(PayloadTooLargeError, match="over 5 frames"):
        list(opened(film, limits=limits).frames())
    with pytest.raises(PayloadTooLargeError, match="over 5 frames"):
        opened(film, limits=limits).count()
    assert len(list(opened(film, Selection(max_frames=5), limits).frames())) == 5


def test_frames_that_are_too_large_are_refused(tmp_path: Path) -> None:
    for path in (
        films.film(tmp_path / "a.mp4", films.frames(2)),
        films.animation(tmp_path / "a.gif", films.frames(2)),
    ):
        with pytest.raises(PayloadTooLargeError, match="96x64"):
            opened(path, limits=VideoLimits(1000, 10)).count()


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", BadRequestError, "not a video"),
        (b"hello there", BadRequestError, "not a video"),
        (b"\xff\xd8\xff\xe0" + bytes(100), UnsupportedMediaError, "JPEG"),
        (b"FLV\x01" + bytes(100), UnsupportedMediaError, "Flash"),
        (b"OggS" + bytes(100), UnsupportedMediaError, "Ogg"),
        (b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", UnsupportedMediaError, "HLS"),
        (b"\0\0\0\x18ftypheic" + bytes(100), UnsupportedMediaError, "HEIF"),
        (b"\0\0\0\x18ftypisom" + bytes(100), BadRequestError, "damaged"),
        (b"\x1aE\xdf\xa3" + bytes(1000), BadRequestError, "damaged"),
        (b"RIFF\xff\xff\xff\xffAVI LIST" + bytes(100), BadRequestError, "damaged"),
        (b"GIF89a" + bytes(30), Sa2VAError, "video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), Sa2VAError, "video"),
    ],
)
def test_files_that_are_no_videos(tmp_path: Path, data: bytes, error: type[Sa2VAError], words: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(error, match=words):
        list(opened(tmp_path / "a").frames())


def test_a_truncated_film_gives_what_is_there(tmp_path: Path) -> None:
    """With its index in front, as films for the web have it; without one nothing can be read."""
    film = films.film(tmp_path / "a.mp4", films.frames(30), options={"movflags": "+faststart"})
    whole = film.read_bytes()
    film.write_bytes(whole[: len(whole) * 3 // 4])
    assert 0 < len(list(opened(film).frames())) < 30
    behind = films.film(tmp_path / "b.mp4", films.frames(30))
    behind.write_bytes(behind.read_bytes()[:2000])
    with pytest.raises(BadRequestError, match="damaged"):
        list(opened(behind).frames())


@pytest.mark.parametrize("seed", range(12))
def test_damage_is_no_worse_than_an_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")]
    name, codec = names[seed % len(names)]
    film = films.film(tmp_path / name, films.frames(8), codec)
    data = bytearray(film.read_bytes())
    for place in rng.integers(64, len(data), 60):
        data[place] = int(rng.integers(256))
    film.write_bytes(data)
    began = time.monotonic()
    with suppress(BadRequestError, PayloadTooLargeError, UnsupportedMediaError):
        for frame in opened(film).frames():
            assert frame.image.mode == "RGB"
    assert time.monotonic() - began < 20


def test_a_film_in_no_hurry_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(3))
    monkeypatch.setattr(sys, "executable", "/bin/sleep")
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, real=subprocess.Popen, **given: real(["/bin/sleep", "60"], **given)
    )
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"no frame within 0\.3 s"):
        list(opened(film, limits=VideoLimits(4_000_000, 10, patience_s=0.3)).frames())
    assert time.monotonic() - began < 10


def test_the_process_ends_with_its_reader(tmp_path: Path) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(30, (640, 480)))
    frames = opened(film).frames()
    next(frames)
    assert _readers(film) == 1
    frames.close()
    assert _readers(film) == 0


def _readers(path: Path) -> int:
    found = subprocess.run(["pgrep", "-f", str(path)], capture_output=True, text=True, check=False)
    return len([line for line in found.stdout.split() if line])


def test_a_list_of_pictures(tmp_path: Path) -> None:
    paths = []
    for number, image in enumerate(films.frames(4)):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(films.png(image))
    clip = PictureSequence(tuple(paths), 4_000_000, Selection(every_nth=2))
    assert [(frame.index, frame.source_index, frame.time_s) for frame in clip.frames()] == [(0, 0, None), (1, 2, None)]
    assert clip.count() == 2
    paths[3].write_bytes(films.png(Image.new("RGB", (5, 5))))
    with pytest.raises(BadRequestError, match=r"frames\[3\]: 5x5 pixels, the first has 96x64"):
        list(PictureSequence(tuple(paths), 4_000_000).frames())


def test_nothing_of_a_job_is_code(tmp_path: Path) -> None:
    """A path is an argument, whatever is in it."""
    film = films.film(tmp_path / "a.mp4", films.frames(2))
    odd = film.rename(tmp_path / "a\"; $(touch x) '\n.mp4")
    assert len(list(opened(odd).frames())) == 2
    assert json.dumps(str(odd))


def test_hostile_files_give_clear_errors(tmp_path: Path) -> None:
    """Each within seconds and by an error of ours, or the frames that can be read."""
    count = 100 if os.environ.get("HOSTILE_STRICT") else 48
    limits, said = VideoLimits(4_000_000, 1000, patience_s=20), set[int]()
    for path in hostile_videos(tmp_path, count):
        began = time.monotonic()
        try:
            for frame in opened(path, limits=limits).frames():
                assert frame.image.width * frame.image.height <= 4_000_000
        except (BadRequestError, PayloadTooLargeError, UnsupportedMediaError) as error:
            said.add(error.status)
        assert time.monotonic() - began < 20, path
    assert said == {400, 413, 415}
