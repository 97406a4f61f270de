"""`ask`: one picture or video, one prompt."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from sa2va_bento.cli.remote import Remote, read_input
from sa2va_bento.cli.writers import OF_ALL, stem_of, write_all, write_picture
from sa2va_bento.clips import ClipReply, FrameSegments
from sa2va_bento.errors import BadRequestError, Sa2VAError
from sa2va_bento.jobs.tracks import TrackSummary, is_present
from sa2va_bento.local.answer import Answer
from sa2va_bento.local.predictor import Predictor
from sa2va_bento.media.images import sniff_format
from sa2va_bento.media.mask_formats import encode_rle
from sa2va_bento.media.overlay.draw import draw_overlay
from sa2va_bento.media.videos.encoding import VideoWriter
from sa2va_bento.media.videos.kinds import HEAD, kind_of
from sa2va_bento.media.videos.video_file import VideoFile, VideoLimits
from sa2va_bento.types import Segment

USUAL = ("json", "masks", "overlay")
MOST = 10**9


def ask(
    picture: str,
    prompt: str,
    out: Path | None,
    formats: Sequence[str],
    as_json: bool,
    url: str | None,
    key: str | None,
    model: str | None,
    device: str | None,
    threshold: float,
    max_new_tokens: int | None,
    adapter: str | None,
) -> None:
    """Prints the answer, and writes its files.

    Raises:
        Sa2VAError: what is wrong, in one line.
    """
    data = read_input(picture)
    options: dict[str, Any] = {"mask_threshold": threshold, "max_new_tokens": max_new_tokens, "adapter": adapter}
    name = "picture.png" if picture == "-" else Path(picture).name
    if _is_video(data):
        with _file_of(picture, data) as path:
            _ask_video(path, prompt, out, as_json, url, key, model, device, options)
        return
    if url:
        remote = Remote(url, key)
        answer = remote.predict(data, name, prompt, **options)
        remote.close()
    else:
        with _loaded(model, device) as predictor:
            found = predictor.predict(data, prompt, **options)
        answer = Answer(found.prediction, found.picture, prompt, name)
    _print(answer, as_json)
    if out:
        chosen = formats or USUAL
        written = write_picture(answer, stem_of(name), out, chosen)
        written += write_all([answer.labelled], out, [f for f in chosen if f in OF_ALL], model or "sa2va")
        _say_written(written)


@contextmanager
def _loaded(model: str | None, device: str | None) -> Iterator[Predictor]:
    options = {"device": device} if device else {}
    predictor = Predictor.load(model, **options)
    try:
        yield predictor
    finally:
        predictor.close()


def _is_video(data: bytes) -> bool:
    """A GIF, WebP or PNG is a picture here."""
    if sniff_format(data) in ("GIF", "WEBP", "PNG", "JPEG", "TIFF", "BMP"):
        return False
    try:
        return kind_of(data[:HEAD]).demuxer is not None
    except Sa2VAError:
        return False


@contextmanager
def _file_of(name: str, data: bytes) -> Iterator[Path]:
    """The file itself, or one with what came in on standard input."""
    if name != "-":
        yield Path(name).expanduser()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        path.write_bytes(data)
        yield path


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer.to_dict(), ensure_ascii=False))
        return
    click.echo(answer.text)
    for number, segment in enumerate(answer.segments):
        phrase = f"{segment.phrase}: " if segment.phrase else ""
        x, y, width, height = segment.box
        share = 100 * segment.area / segment.mask.size
        click.secho(
            f"  {number}  {phrase}box {x},{y} {width}x{height}, {share:.1f} % of it, score {segment.score:.2f}",
            fg="cyan",
        )
    for warning in answer.warnings:
        click.secho(f"warning: {warning}", err=True, fg="yellow")


def _say_written(written: Sequence[Path]) -> None:
    for path in written:
        click.echo(f"wrote {path}", err=True)


def _ask_video(
    path: Path,
    prompt: str,
    out: Path | None,
    as_json: bool,
    url: str | None,
    key: str | None,
    model: str | None,
    device: str | None,
    options: dict[str, Any],
) -> None:
    """Prints the reply and its tracks; with a folder writes `frames.ndjson` and `overlay.mp4`."""
    if url:
        _ask_video_there(Remote(url, key), path, prompt, out, as_json, options)
        return
    frames: list[FrameSegments] = []
    replies: list[ClipReply] = []
    summaries: list[TrackSummary] = []
    with _loaded(model, device) as predictor, tqdm(unit="frame", disable=None, file=sys.stderr) as bar:
        for event in predictor.follow(path, prompt, **options):
            if isinstance(event, ClipReply):
                replies.append(event)
                summaries = [TrackSummary(track) for track in event.tracks]
                continue
            for summary, segment in zip(summaries, event.segments, strict=True):
                summary.add(event.index, is_present(segment, segment.area))
            frames.append(_lean(event) if out is None else event)
            bar.update()
    tracks = [summary.to_dict() for summary in summaries]
    _print_tracks({"result": replies[0].result, "text": replies[0].text, "tracks": tracks}, as_json)
    if out:
        _say_written(_write_video(path, replies[0], frames, out))


def _lean(frame: FrameSegments) -> FrameSegments:
    return FrameSegments(frame.index, frame.source_index, frame.time_s, frame.size, ())


def _print_tracks(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False))
        return
    click.echo(said["text"])
    for track in said["tracks"]:
        phrase = f"{track['phrase']}: " if track["phrase"] else ""
        seen = f"frames {track['first_frame']} to {track['last_frame']}" if track["frames_present"] else "never seen"
        click.secho(f"  {track['id']}  {phrase}{seen}, {track['frames_present']} in all", fg="cyan")


def _write_video(path: Path, reply: ClipReply, frames: list[FrameSegments], out: Path) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    lines, film = out / "frames.ndjson", out / "overlay.mp4"
    by_index = {frame.index: frame for frame in frames}
    with lines.open("w", encoding="utf-8") as file:
        for index in sorted(by_index):
            file.write(json.dumps(_line(by_index[index])) + "\n")
    phrases = [track.phrase for track in reply.tracks]
    with VideoWriter(film) as writer:
        for shown in VideoFile(path, VideoLimits(MOST, MOST)).frames():
            found = by_index.get(shown.index)
            segments = [_named(s, phrase) for s, phrase in zip(found.segments, phrases, strict=True)] if found else []
            writer.add(draw_overlay(shown.image, segments), shown.time_s)
    return [lines, film]


def _named(segment: Segment, phrase: str | None) -> Segment:
    return Segment(segment.mask, segment.score, segment.object_score, segment.threshold, phrase)


def _line(frame: FrameSegments) -> dict[str, Any]:
    segments = [
        {
            "id": number,
            "bbox": segment.box,
            "area": segment.area,
            "score": round(segment.score, 6),
            "object_score": round(segment.object_score, 6),
            "present": is_present(segment, segment.area),
            "mask": {"format": "rle", "size": list(segment.mask.shape), "counts": encode_rle(segment.mask)},
        }
        for number, segment in enumerate(frame.segments)
    ]
    return {
        "frame_index": frame.index,
        "source_index": frame.source_index,
        "timestamp_s": frame.time_s,
        "segments": segments,
    }


def _ask_video_there(
    remote: Remote, path: Path, prompt: str, out: Path | None, as_json: bool, options: dict[str, Any]
) -> None:
    result, job = remote.follow(path, prompt, **options)
    tracks = [{name: value for name, value in track.items() if name != "frames"} for track in result["segments"]]
    _print_tracks({"result": result["result"], "text": result["text"], "tracks": tracks}, as_json)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    files = {"frames.ndjson": "ndjson", "overlay.mp4": "overlay"}
    for name, format_name in files.items():
        (out / name).write_bytes(remote.fetch(job, format_name))
    _say_written([out / name for name in files])
    if not tracks:
        raise BadRequestError("the reply names nothing to follow")
