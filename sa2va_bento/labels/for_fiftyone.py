"""Voxel51's FiftyOne: `Detections` whose masks are those of each segment within its box."""

from typing import TYPE_CHECKING

from sa2va_bento.labels.labelled import Labelled, label_of

if TYPE_CHECKING:
    from fiftyone import Detections  # type: ignore[import-not-found]


def detections(picture: Labelled) -> "Detections":
    """The segments that have pixels; boxes are in shares of the picture's sides, `confidence` is SAM2's predicted IoU.

    Raises:
        ImportError: fiftyone is not installed.
    """
    from fiftyone import Detection, Detections  # type: ignore[import-not-found]

    width, height = picture.size
    found = []
    for segment in picture.seen:
        x, y, across, down = segment.box
        found.append(
            Detection(
                label=label_of(segment),
                bounding_box=[x / width, y / height, across / width, down / height],
                mask=segment.mask[y : y + down, x : x + across],
                confidence=segment.score,
            )
        )
    return Detections(detections=found)
