"""What is wrong with an answer, in words that are the same for the same cause: no request's id, no address, no text of
the model, so that Locust's report groups failures by what went wrong."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco

from loadtest.pictures import Picture

NUMBERS = re.compile(r"\d+(\.\d+)?")
MOST_WORDS = 12


def status_problem(status: int, body: Mapping[str, Any] | None, error: BaseException | None) -> str | None:
    """What a status other than success means: 0 is a connection that broke, or was never made."""
    if status == 0:
        return f"no answer: {type(error).__name__ if error else 'the connection was closed'}"
    if status < 300:
        return None
    said = body.get("error") if body else None
    text = said.get("message") if isinstance(said, dict) else said
    words = NUMBERS.sub("N", str(text or "no reason given")).split()[:MOST_WORDS]
    return f"status {status}: {' '.join(words)}"


def answer_problem(answer: Mapping[str, Any], picture: Picture, has_masks: bool = True) -> str | None:
    """What is wrong with an answer of `/process`: every mask is decoded, where masks were asked for."""
    if not isinstance(answer.get("result"), str):
        return "the answer has no result"
    if (answer["image"]["width"], answer["image"]["height"]) != picture.size:
        return "the answer is about a picture of another size"
    if answer["result"].count("[SEG]") != len(answer["segments"]):
        return "the answer has not one segment for each [SEG]"
    if not has_masks:
        return None
    return next(filter(None, (mask_problem(segment, picture.size) for segment in answer["segments"])), None)


def mask_problem(segment: Mapping[str, Any], size: tuple[int, int]) -> str | None:
    """What is wrong with a segment's mask."""
    if segment["mask"] is None:
        return "a segment has no mask"
    decoded: np.ndarray = coco.decode(segment["mask"])
    if decoded.shape != size[::-1]:
        return "a mask has another size than the picture"
    if int(decoded.sum()) != segment["area"]:
        return "a mask has another area than its segment says"
    return None
