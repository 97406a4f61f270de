"""COCO's JSON, as pycocotools reads it: images, annotations with compressed run lengths, categories."""

from collections.abc import Sequence
from typing import Any

from sa2va_bento.labels.labelled import Labelled, classes_of, label_of
from sa2va_bento.media.mask_formats import area, bounding_box, encode_rle


def document(pictures: Sequence[Labelled]) -> dict[str, Any]:
    """One document of all pictures. Ids count from 1, as COCO's do; `score` is SAM2's predicted IoU."""
    names = classes_of(pictures)
    images, annotations = [], []
    for number, picture in enumerate(pictures, 1):
        width, height = picture.size
        images.append({"id": number, "file_name": picture.name, "width": width, "height": height})
        for segment in picture.seen:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(label_of(segment)) + 1,
                    "segmentation": {"size": [height, width], "counts": encode_rle(segment.mask)},
                    "bbox": [float(value) for value in bounding_box(segment.mask)],
                    "area": float(area(segment.mask)),
                    "iscrowd": 0,
                    "score": round(segment.score, 6),
                }
            )
    categories = [{"id": number, "name": name, "supercategory": "object"} for number, name in enumerate(names, 1)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
