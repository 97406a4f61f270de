"""Writes down what becomes of a job: words, replies and frames as they come, the answer at the end."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sa2va_bento.clips import ClipReply, FrameSegments
from sa2va_bento.jobs.files import FRAMES, SPOKEN, JobFiles, room_needed
from sa2va_bento.jobs.job import JobRequest
from sa2va_bento.jobs.tracks import TrackSummary, is_present
from sa2va_bento.media.mask_formats import area, bounding_box, encode_rle
from sa2va_bento.types import Segment

NOTED_EVERY_S = 0.5
"""Between two notes of how far a job has come."""


class Recorder:
    """The watcher of a job that runs."""

    def __init__(self, files: JobFiles, request: JobRequest, note: Callable[[int], None]) -> None:
        files.begin()
        self._files, self._request, self._note = files, request, note
        self._spoken, self._frames = files.line_log(SPOKEN), files.line_log(FRAMES)
        self._lock = threading.Lock()  # words come from the engine's thread
        self._replies: list[ClipReply] = []
        self._tracks: list[TrackSummary] = []
        self._began, self._noted_at, self.frames = time.monotonic(), 0.0, 0
        self._size: tuple[int, int] | None = None

    def close(self) -> None:
        self._spoken.close()
        self._frames.close()

    def on_text(self, question: int, text: str) -> None:
        try:
            self._say({"event": "text", "question": question, "text": text})
        except Exception:  # told again by the reply; what is wrong with the disk shows there
            return

    def on_reply(self, reply: ClipReply) -> None:
        self._replies.append(reply)
        self._tracks += [TrackSummary(track) for track in reply.tracks]
        self._say({"event": "reply", **_reply(reply, self._request.prompts)})

    def on_frame(self, frame: FrameSegments) -> None:
        segments: list[dict[str, Any]] = []
        for summary, segment in zip(self._tracks, frame.segments, strict=True):
            described = self._segment(summary.track.id, segment)
            summary.add(frame.index, described["present"])
            segments.append(described)
        self._size = frame.size
        self._append(
            self._frames,
            {
                "frame_index": frame.index,
                "source_index": frame.source_index,
                "timestamp_s": frame.time_s,
                "segments": segments,
            },
        )
        self.frames += 1
        if time.monotonic() - self._noted_at > NOTED_EVERY_S:
            self._noted_at = time.monotonic()
            self._note(self.frames)

    def answer(self, model: str, video: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
        """Everything but the frames."""
        replies, spent = [_reply(reply, self._request.prompts) for reply in self._replies], self._spent_s
        return {
            "result": self._replies[0].result,
            "text": self._replies[0].text,
            "model": model,
            "video": video,
            "replies": replies,
            "tracks": [summary.to_dict() for summary in self._tracks],
            "frames": self.frames,
            "frames_per_second": round(self.frames / spent, 3) if self.frames and spent else None,
            "usage": _usage(self._replies),
            "finish_reason": self._replies[0].finish_reason,
            "seconds": round(spent, 3),
            "warnings": warnings,
        }

    @property
    def _spent_s(self) -> float:
        return time.monotonic() - self._began

    def _segment(self, number: int, segment: Segment) -> dict[str, Any]:
        pixels = area(segment.mask)
        described: dict[str, Any] = {
            "id": number,
            "bbox": bounding_box(segment.mask),
            "area": pixels,
            "score": round(segment.score, 6),
            "object_score": round(segment.object_score, 6),
            "present": is_present(segment, pixels),
            "rle": {"size": list(segment.mask.shape), "counts": encode_rle(segment.mask)},
        }
        if segment.probability is not None:
            described["probability"] = _grey_png(segment.probability)
        return described

    def _say(self, event: dict[str, Any]) -> None:
        self._append(self._spoken, event)

    def _append(self, log: BinaryIO, line: dict[str, Any]) -> None:
        with self._lock, room_needed():
            log.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            log.flush()


def _grey_png(levels: NDArray[np.uint8]) -> str:
    """Base64 of an 8-bit PNG."""
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def _reply(reply: ClipReply, prompts: tuple[str, ...]) -> dict[str, Any]:
    return {
        "question": reply.question,
        "prompt": prompts[reply.question],
        "result": reply.result,
        "text": reply.text,
        "tracks": [{"id": track.id, "phrase": track.phrase, "text_span": track.text_span} for track in reply.tracks],
        "usage": _usage([reply]),
        "finish_reason": reply.finish_reason,
    }


def _usage(replies: list[ClipReply]) -> dict[str, int]:
    prompt = sum(reply.usage.prompt_tokens for reply in replies)
    completion = sum(reply.usage.completion_tokens for reply in replies)
    return {
        "prompt_tokens": prompt,
        "image_tokens": sum(reply.usage.image_tokens for reply in replies),
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
