"""Roboflow's supervision: `Detections` with masks, which its annotators, trackers and metrics take."""

from typing import TYPE_CHECKING

import numpy as np

from sa2va_bento.labels.labelled import Labelled, classes_of, label_of

if TYPE_CHECKING:
    from supervision import Detections  # type: ignore[import-not-found]


def detections(picture: Labelled, classes: list[str] | None = None) -> "Detections":
    """The segments that have pixels; `confidence` is SAM2's predicted IoU, `data["class_name"]` the phrase. Class
    numbers are places in `classes`, by default those of the picture itself.

    Raises:
        ImportError: supervision is not installed.
    """
    from supervision import Detections  # type: ignore[import-not-found]

    seen, names = picture.seen, classes or classes_of([picture])
    width, height = picture.size
    boxes = np.array([segment.box for segment in seen], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Detections(
        xyxy=boxes,
        mask=np.stack([segment.mask for segment in seen]) if seen else np.zeros((0, height, width), bool),
        confidence=np.array([segment.score for segment in seen], dtype=np.float32),
        class_id=np.array([names.index(label_of(segment)) for segment in seen], dtype=int),
        data={"class_name": np.array([label_of(segment) for segment in seen])},
    )
