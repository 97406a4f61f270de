"""Label Studio's pre-annotations: brush labels with its own run lengths (thi-nk's packed RLE of RGBA bytes)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.labels.labelled import Labelled, label_of

BITS, SIZES = 8, (3, 4, 8, 16)
"""Bits of a value, and of a run's length in the four classes that the format has."""


def task(picture: Labelled, model: str, from_name: str = "tag", to_name: str = "image") -> dict[str, Any]:
    """A task with one prediction, to be imported; `from_name` and `to_name` are those of the labelling interface."""
    width, height = picture.size
    results = [
        {
            "id": f"segment{number}",
            "type": "brushlabels",
            "from_name": from_name,
            "to_name": to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush_rle(segment.mask), "brushlabels": [label_of(segment)]},
            "score": round(segment.score, 6),
        }
        for number, segment in enumerate(picture.seen)
    ]
    scores = [segment.score for segment in picture.seen]
    prediction = {"model_version": model, "score": round(float(np.mean(scores)), 6) if scores else 0.0}
    return {"data": {to_name: picture.name}, "predictions": [{**prediction, "result": results}]}


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """A mask (H, W) as Label Studio's bytes: 255 or 0 four times a pixel, packed in runs."""
    flat = np.repeat(mask.ravel(), 4)
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    bits = _Bits()
    bits.add(flat.size, 32)
    bits.add(BITS - 1, 5)
    for size in SIZES:
        bits.add(size - 1, 4)
    most = 2 ** SIZES[-1]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = 255 if flat[start] else 0
        for piece in [most] * (length // most) + [length % most] * (length % most > 0):
            _add_run(bits, value, piece)
    return bits.to_bytes()


def _add_run(bits: "_Bits", value: int, length: int) -> None:
    """One value `length` times: a flag that it is a run, the class of the length, the length less one, the value."""
    kind = next(kind for kind, size in enumerate(SIZES) if length <= 2**size)
    bits.add(1, 1)
    bits.add(kind, 2)
    bits.add(length - 1, SIZES[kind])
    bits.add(value, BITS)


class _Bits:
    """Numbers one after the other, the highest bit of each first."""

    def __init__(self) -> None:
        self._text: list[str] = []

    def add(self, number: int, width: int) -> None:
        self._text.append(format(number, f"0{width}b"))

    def to_bytes(self) -> list[int]:
        text = "".join(self._text)
        text += "0" * (-len(text) % 8)
        return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]
