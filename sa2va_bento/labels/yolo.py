"""YOLO's segmentation labels, as Ultralytics trains on them: a text file a picture, a line an object."""

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.labels.labelled import Labelled, label_of
from sa2va_bento.media.mask_formats import encode_polygons


def lines(picture: Labelled, classes: list[str]) -> list[str]:
    """`CLASS x1 y1 x2 y2 ...` of each segment, in shares of the picture's sides. The format knows one outline an
    object: the parts of a segment in several are joined by lines there and back, holes are filled."""
    width, height = picture.size
    written: list[str] = []
    for segment in picture.seen:
        outline = joined([part.exterior for part in encode_polygons(segment.mask)])
        numbers = (outline / np.array([width, height])).clip(0, 1).ravel()
        written.append(" ".join([str(classes.index(label_of(segment))), *(f"{number:.6f}" for number in numbers)]))
    return written


def joined(outlines: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One outline through all of them: from the first point of each to that of the next, and the same way back."""
    path = [np.vstack([outline, outline[:1]]) for outline in outlines]
    back = [outline[:1] for outline in outlines[-2::-1]]
    return np.vstack([*path, *back]) if len(path) > 1 else outlines[0]


def data_yaml(classes: list[str], images: str = "images") -> str:
    """The data set's description: where its pictures are and what the classes are called."""
    import json  # JSON strings are YAML's

    names = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(classes))
    return f"path: .\ntrain: {images}\nval: {images}\nnames:\n{names}"
