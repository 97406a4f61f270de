"""A result in the formats of other tools, made when it is first asked for."""

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sa2va_bento.errors import BadRequestError
from sa2va_bento.jobs.files import JobFiles
from sa2va_bento.jobs.job import Job
from sa2va_bento.jobs.worker import open_clip
from sa2va_bento.media.mask_formats import to_grey
from sa2va_bento.media.overlay.draw import draw_overlay
from sa2va_bento.media.videos.encoding import VideoWriter
from sa2va_bento.settings import Settings
from sa2va_bento.types import Segment
from sa2va_bento.web.jobs.rendering import frame_lines, mask_of

Json = dict[str, Any]
Make = Callable[[JobFiles, Job, Settings, Path], None]


@dataclass(frozen=True)
class Export:
    """A file of a result: its name, its media type, and how it is made at a path."""

    file: str
    media_type: str
    make: Make


def youtube_vis(files: JobFiles, job: Job, settings: Settings, path: Path) -> None:
    """YouTube-VIS' JSON, which COCO-VID's readers know: a video, an annotation a track with a mask or null a frame."""
    answer, frames = _answer(files), frame_lines(files)
    size = _size(answer, frames)
    names = list(dict.fromkeys(_name(track) for track in answer["tracks"]))
    video = {
        "id": 1,
        "width": size[0],
        "height": size[1],
        "length": len(frames),
        "file_names": [f"{job.id}/{frame['frame_index']:05d}.jpg" for frame in frames],
    }
    annotations = [_annotation(number, track, frames, names, size) for number, track in enumerate(answer["tracks"])]
    categories = [{"id": number, "name": name, "supercategory": "object"} for number, name in enumerate(names, 1)]
    document: Json = {
        "info": {},
        "licenses": [],
        "videos": [video],
        "annotations": annotations,
        "categories": categories,
    }
    path.write_text(json.dumps(document), encoding="utf-8")


def _annotation(number: int, track: Json, frames: list[Json], names: list[str], size: tuple[int, int]) -> Json:
    segments = [frame["segments"][number] for frame in frames]
    shown = [segment if segment["present"] else None for segment in segments]
    return {
        "id": number + 1,
        "video_id": 1,
        "category_id": names.index(_name(track)) + 1,
        "iscrowd": 0,
        "width": size[0],
        "height": size[1],
        "length": 1,
        "segmentations": [segment and segment["rle"] for segment in shown],
        "bboxes": [segment and [float(value) for value in segment["bbox"]] for segment in shown],
        "areas": [segment and segment["area"] for segment in shown],
        "score": round(float(np.mean([segment["score"] for segment in segments])), 6) if segments else 0.0,
    }


def masks_zip(files: JobFiles, job: Job, settings: Settings, path: Path) -> None:
    """A one-channel PNG a frame and track, in a folder a track: `track0/00000.png`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for frame in frame_lines(files):
            for segment in frame["segments"]:
                out = io.BytesIO()
                to_grey(mask_of(segment)).save(out, "PNG")
                archive.writestr(f"track{segment['id']}/{frame['frame_index']:05d}.png", out.getvalue())


def overlay(files: JobFiles, job: Job, settings: Settings, path: Path) -> None:
    """The clip with its tracks drawn in, as H.264 that browsers play."""
    phrases = {track["id"]: track["phrase"] for track in _answer(files)["tracks"]}
    stored = {frame["frame_index"]: frame for frame in frame_lines(files)}
    with VideoWriter(path) as writer:
        for frame in open_clip(files, job.request, settings).frames():
            found = stored.get(frame.index)
            segments = [_segment(segment, phrases) for segment in found["segments"]] if found else []
            writer.add(draw_overlay(frame.image, segments), frame.time_s)


def masks_video(files: JobFiles, job: Job, settings: Settings, path: Path) -> None:
    """The tracks alone as a grey H.264 video: background 0, track k of n at 255 * (k + 1) / n."""
    answer, frames = _answer(files), frame_lines(files)
    if not frames:
        raise BadRequestError("format: the replies name nothing to follow, so there are no masks")
    count = max(1, len(answer["tracks"]))
    with VideoWriter(path) as writer:
        for frame, levels in _levels(frames, count):
            writer.add(Image.fromarray(levels).convert("RGB"), frame["timestamp_s"])


def _levels(frames: list[Json], count: int) -> Iterator[tuple[Json, "np.ndarray[Any, np.dtype[np.uint8]]"]]:
    for frame in frames:
        height, width = frame["segments"][0]["rle"]["size"]
        levels = np.zeros((height, width), np.uint8)
        for place, segment in enumerate(frame["segments"], 1):
            levels[mask_of(segment)] = round(255 * place / count)
        yield frame, levels


def _segment(stored: Json, phrases: Mapping[int, str | None]) -> Segment:
    return Segment(mask_of(stored), stored["score"], stored["object_score"], 0.5, phrases[stored["id"]])


def _answer(files: JobFiles) -> Json:
    answer = files.answer()
    assert answer
    return answer


def _size(answer: Json, frames: list[Json]) -> tuple[int, int]:
    """Width and height of the masks."""
    for frame in frames:
        for segment in frame["segments"]:
            height, width = segment["rle"]["size"]
            return width, height
    return answer["video"]["width"], answer["video"]["height"]


def _name(track: Json) -> str:
    return track["phrase"] or f"track {track['id']}"


EXPORTS: Mapping[str, Export] = {
    "youtube_vis": Export("youtube_vis.json", "application/json", youtube_vis),
    "coco_vid": Export("youtube_vis.json", "application/json", youtube_vis),
    "zip": Export("masks.zip", "application/zip", masks_zip),
    "overlay": Export("overlay.mp4", "video/mp4", overlay),
    "masks": Export("masks.mp4", "video/mp4", masks_video),
}
