"""A running service in place of a loaded model."""

import base64
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from sa2va_bento.errors import BadRequestError, InferenceError
from sa2va_bento.local.answer import Answer
from sa2va_bento.local.pictures import to_image
from sa2va_bento.types import Prediction, Segment, Usage

POLL_S = 0.25


class Remote:
    """A service at a URL."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 600) -> None:
        headers = {"X-API-Key": key} if key else {}
        self._client = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s)

    def close(self) -> None:
        self._client.close()

    def predict(self, data: bytes, file_name: str, prompt: str, **options: Any) -> Answer:
        """The answer to a prompt about a picture's file. Raises BadRequestError, or InferenceError where the service is
        not there or fails."""
        fields = {name: json.dumps(value) for name, value in options.items() if value is not None}
        said = self._post("/process", {"image": (file_name, data)}, {"prompt": prompt, **fields})
        return _answer(said, to_image(data), prompt, file_name)

    def follow(self, path: Path, prompt: str, **options: Any) -> tuple[dict[str, Any], str]:
        """The result of a video's job, and the job's id."""
        fields = {name: json.dumps(value) for name, value in options.items() if value is not None}
        with path.open("rb") as file:
            job = self._post("/process_video", {"video": (path.name, file)}, {"prompt": prompt, **fields})["id"]
        return self._result(job), job

    def follow_frames(self, frames: Sequence[Path], prompt: str, **options: Any) -> tuple[str, list[NDArray[np.bool_]]]:
        """The reply about a clip of picture files, and for each of its tracks the masks (T, H, W)."""
        body = {name: value for name, value in options.items() if value is not None}
        body |= {"prompt": prompt, "frames": [base64.b64encode(path.read_bytes()).decode() for path in frames]}
        try:
            job = self._checked(self._client.post("/process_video", json=body)).json()["id"]
        except httpx.TransportError as error:
            raise _gone(self._client, error) from None
        result = self._result(job)
        tracks = [
            np.stack([np.asarray(coco.decode(frame["mask"]), bool) for frame in track["frames"]])
            for track in result["segments"]
        ]
        return result["result"], tracks

    def _result(self, job: str) -> dict[str, Any]:
        while self._get(f"/jobs/{job}")["state"] in ("queued", "running"):
            time.sleep(POLL_S)
        return self._get(f"/jobs/{job}/result")

    def fetch(self, job: str, name: str) -> bytes:
        """A job's result in a format."""
        return self._checked(self._client.get(f"/jobs/{job}/result", params={"format": name})).content

    def _get(self, path: str) -> dict[str, Any]:
        try:
            return self._checked(self._client.get(path)).json()
        except httpx.TransportError as error:
            raise _gone(self._client, error) from None

    def _post(self, path: str, files: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
        try:
            return self._checked(self._client.post(path, files=files, data=dict(fields))).json()
        except httpx.TransportError as error:
            raise _gone(self._client, error) from None

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.is_success:
            return answer
        try:
            message = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            message = answer.reason_phrase
        kind = BadRequestError if answer.status_code < 500 else InferenceError
        raise kind(f"the service answered {answer.status_code}: {message}")


def _gone(client: httpx.Client, error: Exception) -> InferenceError:
    return InferenceError(f"no answer from {client.base_url}: {error or type(error).__name__}")


def _answer(said: dict[str, Any], picture: Image.Image, prompt: str, file_name: str) -> Answer:
    usage, size = said["usage"], said["image"]
    prediction = Prediction(
        result=said["result"],
        text=said["text"],
        segments=tuple(_segment(segment) for segment in said["segments"]),
        image_size=(size["width"], size["height"]) if size else None,
        usage=Usage(usage["prompt_tokens"], usage["image_tokens"], usage["completion_tokens"]),
        finish_reason=said["finish_reason"],
        warnings=tuple(said["warnings"]),
    )
    return Answer(prediction, picture, prompt, file_name)


def _segment(said: dict[str, Any]) -> Segment:
    span = said["text_span"]
    return Segment(
        mask=coco.decode(said["mask"]).astype(bool),
        score=said["score"],
        object_score=said["object_score"],
        threshold=said["threshold"],
        phrase=said["phrase"],
        text_span=(span[0], span[1]) if span else None,
    )


def read_input(name: str) -> bytes:
    """A file's bytes, or those of standard input."""
    import sys

    if name == "-":
        with io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False)) as standard:
            return standard.read()
    return Path(name).expanduser().read_bytes()
