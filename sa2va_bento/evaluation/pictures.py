"""Data sets of pictures, in the layouts in which they are published: RefCOCO, RefCOCO+, RefCOCOg and ReasonSeg."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from sa2va_bento.errors import BadRequestError
from sa2va_bento.evaluation import plain_pickle
from sa2va_bento.evaluation.questions import Question, Truth

SPLIT_BY = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}
"""Who split each data set, as in the names of its files."""
IMAGES = (
    "train2014",
    "images/train2014",
    "coco2014/train2014",
    "images/mscoco/images/train2014",
    "glamm_data/images/coco2014/train2014",
)
"""Where COCO's pictures may lie beside the annotations."""
REFER_PROMPT = " Please segment {} in this image."
"""Upstream's, its leading blank with it."""
REASON_PROMPTS = (
    " What is {} in this image? Please output segmentation mask.",
    " {} Please output segmentation mask.",
)
"""For a phrase, and for a sentence: those of LISA, which published the data set."""


def refcoco(name: str, data: Path, split: str, images: Path | None) -> Iterator[Question]:
    """`data/NAME/refs(BY).p` and `instances.json`, an expression a question.

    Raises:
        BadRequestError: files are missing or damaged, or there is no such split.
    """
    folder = next((place for place in (data / name, data / "ref_seg" / name, data) if _has_refs(place)), None)
    if folder is None:
        raise BadRequestError(f"{data}: no {name}/refs({SPLIT_BY[name]}).p and instances.json there")
    refs: list[dict[str, Any]] = plain_pickle.read(folder / f"refs({SPLIT_BY[name]}).p")
    instances = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    annotations = {annotation["id"]: annotation for annotation in instances["annotations"]}
    pictures = {picture["id"]: picture for picture in instances["images"]}
    place = images or _first(data, IMAGES)
    asked = [ref for ref in refs if _is_in(ref["split"], split)]
    if not asked:
        raise BadRequestError(f"{name} has no split {split}; it has {', '.join(sorted({r['split'] for r in refs}))}")
    for ref in asked:
        picture = pictures[ref["image_id"]]
        truth = partial(_annotated, annotations[ref["ann_id"]], (picture["height"], picture["width"]))
        for sentence in ref["sentences"]:
            prompt = REFER_PROMPT.format(sentence["sent"])
            yield Question(f"{ref['ref_id']}-{sentence['sent_id']}", (place / picture["file_name"],), prompt, truth)


def reasonseg(data: Path, split: str) -> Iterator[Question]:
    """`data/ReasonSeg/SPLIT/*.json` beside its pictures, the first text of each. Raises BadRequestError."""
    folder = _first(data, (f"ReasonSeg/{split}", split, f"reason_seg/ReasonSeg/{split}"))
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        text = str(said["text"][0]).strip()
        prompt = REASON_PROMPTS[bool(said["is_sentence"])].format(text)
        yield Question(path.stem, (path.with_suffix(".jpg"),), prompt, partial(_drawn, path))


def _has_refs(folder: Path) -> bool:
    return (folder / "instances.json").is_file() and any(folder.glob("refs(*).p"))


def _first(data: Path, places: Sequence[str]) -> Path:
    found = next((data / place for place in places if (data / place).is_dir()), None)
    if found is None:
        raise BadRequestError(f"{data}: none of {', '.join(places)} is there")
    return found


def _is_in(split: str, wanted: str) -> bool:
    """`test` stands for all of a data set's, as its publishers' reader has it."""
    return split == wanted or (wanted == "test" and split.startswith("test"))


def _annotated(annotation: Mapping[str, Any], size: tuple[int, int]) -> Truth:
    """COCO's polygons or run lengths."""
    shape = annotation["segmentation"]
    if not shape:
        return Truth(np.zeros((1, *size), bool))
    rle: Any = coco.frPyObjects(shape, *size) if isinstance(shape, list) or isinstance(shape["counts"], list) else shape
    decoded: NDArray[np.uint8] = coco.decode(rle)
    mask = decoded.reshape(*size, -1).any(axis=2)
    return Truth(mask.reshape(1, *size))


def _drawn(path: Path) -> Truth:
    """LabelMe's polygons: the target and what is to be ignored, larger ones under smaller ones."""
    said = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    with Image.open(path.with_suffix(".jpg")) as picture:
        size = picture.size
    drawn = [(_filled(shape["points"], size), shape["label"].lower()) for shape in said["shapes"]]
    labels = np.zeros(size[::-1], np.uint8)
    for mask, label in sorted(drawn, key=lambda pair: -int(pair[0].sum())):
        if "flag" not in label:
            labels[mask] = 255 if "ignore" in label else 1
    return Truth((labels == 1)[None], (labels == 255)[None])


def _filled(points: Sequence[Sequence[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    canvas = Image.new("1", size)
    ImageDraw.Draw(canvas).polygon([(round(x), round(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(canvas)
