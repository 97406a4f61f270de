"""LabelMe's JSON: a document a picture, a polygon a part of a segment; parts of one segment share a group."""

from typing import Any

from sa2va_bento.labels.labelled import Labelled, label_of
from sa2va_bento.media.mask_formats import encode_polygons

VERSION = "5.5.0"
"""Of LabelMe, whose format this is."""


def document(picture: Labelled) -> dict[str, Any]:
    """Holes are filled: a polygon of LabelMe's has none."""
    width, height = picture.size
    shapes = [
        {
            "label": label_of(segment),
            "points": [[round(float(x), 2), round(float(y), 2)] for x, y in part.exterior],
            "group_id": number,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for number, segment in enumerate(picture.seen)
        for part in encode_polygons(segment.mask)
    ]
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": picture.name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
