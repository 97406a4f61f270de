"""An answer as a Python user holds it: the prediction and its picture, which can be shown, saved and converted."""

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sa2va_bento.errors import BadRequestError
from sa2va_bento.labels import coco, cvat, for_fiftyone, for_supervision, instances, label_studio, labelme, yolo
from sa2va_bento.labels.labelled import Labelled, classes_of
from sa2va_bento.media.mask_formats import bounding_box, encode_rle, to_grey
from sa2va_bento.media.overlay.draw import draw_overlay, encode_overlay
from sa2va_bento.types import FinishReason, Prediction, Segment, Usage


@dataclass(frozen=True)
class Answer:
    """What the model says about a picture. `result` keeps the markers `[SEG]` and `<p>..</p>`, `text` does not;
    `segments` has a mask for each `[SEG]`, in order."""

    prediction: Prediction
    picture: Image.Image | None
    prompt: str
    file_name: str = "picture.png"
    """Of the picture."""

    @property
    def name(self) -> str:
        """The file's, without its suffix."""
        return Path(self.file_name).stem

    @property
    def result(self) -> str:
        return self.prediction.result

    @property
    def text(self) -> str:
        return self.prediction.text

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self.prediction.segments

    @property
    def usage(self) -> Usage:
        return self.prediction.usage

    @property
    def finish_reason(self) -> FinishReason:
        return self.prediction.finish_reason

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.prediction.warnings

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture. Raises BadRequestError where there is none."""
        return self._picture.size

    def overlay(self) -> Image.Image:
        """The picture with its segments in colours, and a legend. Raises BadRequestError where there is no picture."""
        return draw_overlay(self._picture, self.segments)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: the fields of `POST /process`, masks as COCO's run lengths."""
        prediction = self.prediction
        width, height = prediction.image_size or (None, None)
        return {
            "prompt": self.prompt,
            "result": self.result,
            "text": self.text,
            "image": {"width": width, "height": height} if width else None,
            "segments": [_segment(number, segment) for number, segment in enumerate(self.segments)],
            "finish_reason": self.finish_reason,
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "image_tokens": self.usage.image_tokens,
                "completion_tokens": self.usage.completion_tokens,
                "total_tokens": self.usage.prompt_tokens + self.usage.completion_tokens,
            },
            "warnings": list(self.warnings),
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `NAME.json`, and where there are segments `NAME-overlay.png`, a mask `NAME-K.png` each, and `NAME-
        instances.png`; the files that it wrote. The folder is made."""
        place = Path(folder).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        stem = re.sub(r"[^\w.-]+", "_", self.name) or "picture"
        written = [place / f"{stem}.json"]
        written[0].write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        pictures: dict[str, Image.Image] = {}
        if self.segments:
            pictures = {f"{stem}-{number}.png": to_grey(segment.mask) for number, segment in enumerate(self.segments)}
            pictures[f"{stem}-overlay.png"] = self.overlay()
            pictures[f"{stem}-instances.png"] = self.to_instances()
        for file, image in pictures.items():
            image.save(place / file)
            written.append(place / file)
        return written

    @property
    def labelled(self) -> Labelled:
        """What the converters of `sa2va_bento.labels` take. Raises BadRequestError where there is no picture."""
        return Labelled(self.file_name, self.size, self.segments)

    def to_coco(self) -> dict[str, Any]:
        """A COCO document of one image, masks as run lengths."""
        return coco.document([self.labelled])

    def to_yolo(self, classes: list[str] | None = None) -> str:
        """YOLO's label file; class numbers are places in `classes`, by default those of the answer itself."""
        return "".join(f"{line}\n" for line in yolo.lines(self.labelled, classes or classes_of([self.labelled])))

    def to_labelme(self) -> dict[str, Any]:
        """LabelMe's document."""
        return labelme.document(self.labelled)

    def to_label_studio(self, model: str = "sa2va") -> dict[str, Any]:
        """A task of Label Studio's with brush labels."""
        return label_studio.task(self.labelled, model)

    def to_cvat(self) -> str:
        """CVAT for images 1.1."""
        return cvat.document([self.labelled])

    def to_supervision(self) -> Any:
        """`supervision.Detections`. Raises ImportError where supervision is not installed."""
        return for_supervision.detections(self.labelled)

    def to_fiftyone(self) -> Any:
        """`fiftyone.Detections`. Raises ImportError where fiftyone is not installed."""
        return for_fiftyone.detections(self.labelled)

    def to_instances(self) -> Image.Image:
        """A picture in which pixel value k is segment k - 1."""
        return instances.to_png(self.segments, self.size)

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        said = f"<p>{html.escape(self.text)}</p>"
        if self.picture is None:
            return said
        source = encode_overlay(self.overlay())
        return f'<div style="max-width:640px"><img src="{source}" alt="" style="max-width:100%">{said}</div>'

    @property
    def _picture(self) -> Image.Image:
        if self.picture is None:
            raise BadRequestError("the answer is not about a picture")
        return self.picture


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    height, width = segment.mask.shape
    return {
        "id": number,
        "phrase": segment.phrase,
        "text_span": segment.text_span,
        "score": round(segment.score, 4),
        "object_score": round(segment.object_score, 4),
        "bbox": bounding_box(segment.mask),
        "area": int(segment.mask.sum()),
        "threshold": segment.threshold,
        "mask": {"format": "rle", "size": [height, width], "counts": encode_rle(segment.mask)},
    }


Answers = Sequence[Answer]
