"""Grounded captions (GCG) of GranD-f, in GLaMM's layout and by its measures, those of the words alone left out.

- AP50 of the masks, whatever they are called and each as sure as the other: COCO's.
- mIoU: masks are paired greedily, the best pair first, each mask once; the mean over a picture's pairs, then over
  pictures.
- Recall: of all annotated phrases, how many are paired with a mask of IoU over 0.5 whose phrase means the same: the
  cosine of BERT's mean states is over 0.5. The first pair that fails either ends a picture's pairing.
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sa2va_bento.errors import BadRequestError
from sa2va_bento.evaluation.questions import Question, Said

PROMPT = (
    "Could you please give me a brief description of the image? Please respond with interleaved segmentation masks for "
    "the corresponding parts of the answer."
)
"""Upstream's."""
ANNOTATIONS = (
    "glamm_data/annotations/gcg_val_test",
    "annotations/gcg_val_test",
    "annotations/val_test",
    "val_test",
    ".",
)
PICTURES = ("glamm_data/images/grandf/val_test", "images/grandf/val_test", "GranDf_HA_images/val_test", "images")
"""Where they may lie under the data set's folder."""
SAME = 0.5
"""Of IoU and of the cosine."""

Alike = Callable[[str, str], float]
"""How much two phrases mean the same, up to 1."""
Line = Mapping[str, Any]


class GranDf:
    """The annotations of a split.

    Raises:
        BadRequestError: files are missing or damaged.
    """

    def __init__(self, data: Path, split: str) -> None:
        names = [f"{split}_gcg_coco_{kind}_gt.json" for kind in ("mask", "caption")]
        folder = next((data / place for place in ANNOTATIONS if all((data / place / n).is_file() for n in names)), None)
        self._pictures = next((data / place for place in PICTURES if (data / place).is_dir()), None)
        if folder is None or self._pictures is None:
            raise BadRequestError(f"{data}: no {names[0]} and {names[1]}, or no pictures in {', '.join(PICTURES)}")
        try:
            self.masks, self.captions = (json.loads((folder / name).read_text(encoding="utf-8")) for name in names)
            self.phrases = {one["image_id"]: list[str](one["labels"]) for one in self.captions["annotations"]}
            self.ids = [picture["id"] for picture in self.captions["images"]]
        except (ValueError, LookupError, TypeError):
            raise BadRequestError(f"{folder}: {names[0]} and {names[1]} are not GranD-f's") from None

    def questions(self) -> Iterator[Question]:
        """One a picture, which is called as it is numbered."""
        assert self._pictures
        for number in self.ids:
            found = sorted(self._pictures.glob(f"{number}.*"))
            path = found[0] if found else self._pictures / f"{number}.jpg"
            yield Question(str(number), (path,), PROMPT, keep=kept)


def kept(said: Said) -> dict[str, Any]:
    """What a line has of an answer: each segment's phrase and run lengths."""
    return {"segments": [{"phrase": phrase or "", "mask": _encoded(mask)} for phrase, mask in said.segments]}


def measures(annotated: GranDf, lines: Sequence[Line], alike: Alike) -> dict[str, float]:
    """Percentages of AP50, mIoU and recall of the lines of a run."""
    said = {line["id"]: line.get("segments", []) for line in lines}
    by_picture: dict[Any, list[Any]] = {number: [] for number in annotated.ids}
    for annotation in annotated.masks["annotations"]:
        by_picture.setdefault(annotation["image_id"], []).append(annotation["segmentation"])
    ious, hits, wanted = list[float](), 0, 0
    for number in annotated.ids:
        if (segments := said.get(str(number))) is None:
            continue
        right = [coco.decode(_rle(shape)).astype(bool) for shape in by_picture[number]]
        table = _table(right, [coco.decode(segment["mask"]).astype(bool) for segment in segments])
        ious.append(paired_iou(table))
        phrases = annotated.phrases.get(number, [])
        wanted += len(phrases)
        hits += recalled(table, phrases, [segment["phrase"] for segment in segments], alike)
    return {
        "AP50": 100 * ap50(annotated, said),
        "mIoU": 100 * float(np.mean(ious)) if ious else 0.0,
        "Recall": 100 * hits / max(1, wanted),
    }


def ap50(annotated: GranDf, said: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """COCO's, of the pictures that were asked about."""
    ids = [number for number in annotated.ids if str(number) in said]
    found = [
        {"image_id": number, "category_id": 1, "segmentation": segment["mask"], "score": 1.0}
        for number in ids
        for segment in said[str(number)]
    ]
    if not found:
        return 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        truth: Any = COCO()
        truth.dataset = {**annotated.masks, "info": {}}
        truth.createIndex()
        scored = COCOeval(truth, truth.loadRes(found), "segm")
        scored.params.catIds, scored.params.imgIds = [1], ids
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return max(0.0, float(scored.stats[1]))


def paired_iou(table: NDArray[np.float64]) -> float:
    """The mean of greedily paired IoUs (annotated, found); 0 without a pair."""
    left, ious = table.copy(), list[float]()
    while left.size and left.max() > 0:
        row, column = _best(left)
        ious.append(float(left[row, column]))
        left = np.delete(np.delete(left, row, axis=0), column, axis=1)
    return float(np.mean(ious)) if ious else 0.0


def recalled(table: NDArray[np.float64], wanted: Sequence[str], said: Sequence[str], alike: Alike) -> int:
    """How many annotated phrases are found again."""
    left, hits = table[: len(wanted), : len(said)].copy(), 0
    while left.size:
        row, column = _best(left)
        if left[row, column] < SAME or alike(wanted[row], said[column]) < SAME:
            break
        hits += 1
        left[row, :] = left[:, column] = 0.0
    return hits


def _best(table: NDArray[np.float64]) -> tuple[int, int]:
    """Row and column of its largest number."""
    row, column = divmod(int(table.argmax()), table.shape[1])
    return row, column


def _table(right: Sequence[NDArray[np.bool_]], found: Sequence[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """IoUs (annotated, found); 0 where both are empty."""
    table = np.zeros((len(right), len(found)))
    for i, a in enumerate(right):
        for j, b in enumerate(found):
            union = int((a | b).sum())
            table[i, j] = int((a & b).sum()) / union if union else 0.0
    return table


def _rle(shape: Any) -> Any:
    """An annotation's run lengths, whichever way COCO spells them."""
    return coco.frPyObjects(shape, *shape["size"]) if isinstance(shape["counts"], list) else shape


def _encoded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    rle: Any = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}
