"""From a job and its files to what clients read."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from sa2va_bento.jobs.files import FRAMES, JobFiles
from sa2va_bento.jobs.job import Job, State
from sa2va_bento.web.jobs.schemas import JobErrorOut, JobStatus
from sa2va_bento.web.rendering import encode_mask
from sa2va_bento.web.schemas import MaskFormat

Json = dict[str, Any]


def status_of(job: Job) -> JobStatus:
    """Where a job stands, for whom it belongs to."""
    speed, left = _speed(job)
    return JobStatus(
        id=job.id,
        state=job.state,
        queue_place=job.place,
        attempt=max(1, job.attempt),
        frames_done=job.frames_done,
        frames_total=job.frames_total,
        frames_per_second=speed,
        seconds_left=left,
        created_at=_utc(job.created),
        started_at=_utc(job.started) if job.started else None,
        finished_at=_utc(job.finished) if job.finished else None,
        error=JobErrorOut(status=job.error.status, message=job.error.message) if job.error else None,
        links={
            "self": f"/jobs/{job.id}",
            "result": f"/jobs/{job.id}/result",
            "events": f"/jobs/{job.id}/events",
        },
    )


def _speed(job: Job) -> tuple[float | None, float | None]:
    """Frames a second, and seconds left at that."""
    if not job.started or not job.frames_done:
        return None, None
    spent = (job.finished or time.time()) - job.started
    if spent <= 0:
        return None, None
    speed = job.frames_done / spent
    left = (job.frames_total - job.frames_done) / speed if job.frames_total and job.state is State.RUNNING else None
    return round(speed, 3), round(max(0.0, left), 1) if left is not None else None


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def frame_lines(files: JobFiles, start: int = 0, end: int | None = None) -> list[Json]:
    """The frames [start, end) of a job as they are stored, in order."""
    frames: list[Json] = [json.loads(line) for line in files.lines(FRAMES)]
    wanted = [f for f in frames if f["frame_index"] >= start and (end is None or f["frame_index"] < end)]
    return sorted(wanted, key=lambda frame: frame["frame_index"])


def to_frame(stored: Json, mask_format: MaskFormat) -> Json:
    """A stored frame with its masks in the format asked for."""
    return {**stored, "segments": [to_segment(segment, mask_format) for segment in stored["segments"]]}


def to_segment(stored: Json, mask_format: MaskFormat) -> Json:
    """A stored segment with its mask in the format asked for; run lengths where that would need what is not kept."""
    rest = {name: value for name, value in stored.items() if name not in ("rle", "probability")}
    if mask_format == "none":
        return {**rest, "mask": None}
    if mask_format == "probability" and "probability" in stored:
        data = f"data:image/png;base64,{stored['probability']}"
        return {**rest, "mask": {"format": "probability", "size": stored["rle"]["size"], "data": data}}
    if mask_format in ("rle", "probability"):
        return {**rest, "mask": {"format": "rle", **stored["rle"]}}
    mask = encode_mask(mask_of(stored), mask_format)
    return {**rest, "mask": mask.model_dump() if mask else None}


def mask_of(stored: Json) -> NDArray[np.bool_]:
    """The mask (H, W) of a stored segment."""
    return coco.decode(stored["rle"]).astype(bool)


def ndjson(files: JobFiles, mask_format: MaskFormat, start: int, end: int | None) -> Iterator[bytes]:
    """The frames of a job, a line each."""
    for frame in frame_lines(files, start, end):
        yield json.dumps(to_frame(frame, mask_format), separators=(",", ":")).encode() + b"\n"


def result(files: JobFiles, mask_format: MaskFormat, start: int = 0, end: int | None = None) -> bytes:
    """The whole result as JSON: what the frames say, by track."""
    answer = files.answer()
    assert answer
    tracks: list[Json] = answer.pop("tracks")
    by_track: dict[int, list[Json]] = {track["id"]: [] for track in tracks}
    for frame in frame_lines(files, start, end):
        about = {name: frame[name] for name in ("frame_index", "source_index", "timestamp_s")}
        for segment in frame["segments"]:
            by_track[segment["id"]].append({**about, **to_segment(segment, mask_format)})
    segments = [{**track, "frames": by_track[track["id"]]} for track in tracks]
    return json.dumps({**answer, "segments": segments}, separators=(",", ":")).encode()
