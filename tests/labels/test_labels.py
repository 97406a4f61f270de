"""Each format read back: by its own library where it is a dependency, else by a reader written from its description."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from sa2va_bento.labels import (
    coco,
    cvat,
    for_fiftyone,
    for_supervision,
    instances,
    label_studio,
    labelme,
    yolo,
)
from sa2va_bento.labels.labelled import Labelled, classes_of
from sa2va_bento.types import Segment

SIZE = (120, 90)
Mask = NDArray[np.bool_]


def drawn(*shapes: tuple[str, Any]) -> Mask:
    image = Image.new("1", SIZE)
    for kind, where in shapes:
        getattr(ImageDraw.Draw(image), kind)(where, fill=1)
    return np.asarray(image).copy()


def segment(mask: Mask, phrase: str | None) -> Segment:
    return Segment(mask, 0.9, 0.8, 0.5, phrase)


PICTURE = Labelled(
    "street/eine straße.png",
    SIZE,
    (
        segment(drawn(("ellipse", (10, 10, 60, 60))), "the red car"),
        segment(drawn(("rectangle", (70, 5, 100, 40)), ("rectangle", (80, 60, 110, 85))), 'a "sign" <b>'),
        segment(np.zeros(SIZE[::-1], bool), "nothing"),
        segment(drawn(("polygon", [(5, 88), (40, 65), (60, 88)])), None),
        segment(np.ones(SIZE[::-1], bool), "the red car"),
    ),
)
SEEN = PICTURE.seen
NAMES = ["the red car", 'a "sign" <b>', "object"]


def iou(a: Mask, b: Mask) -> float:
    return float(np.logical_and(a, b).sum() / np.logical_or(a, b).sum())


def test_classes_are_phrases_of_what_is_seen() -> None:
    assert classes_of([PICTURE]) == NAMES
    assert len(SEEN) == 4


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    other = Labelled("b.png", SIZE, (segment(drawn(("rectangle", (1, 1, 5, 5))), "a cup"),))
    (tmp_path / "a.json").write_text(json.dumps(coco.document([PICTURE, other])))
    read = COCO(str(tmp_path / "a.json"))
    annotations = read.loadAnns(read.getAnnIds(imgIds=[1]))
    for annotation, expected in zip(annotations, SEEN, strict=True):
        assert iou(read.annToMask(annotation).astype(bool), expected.mask) == 1.0
        assert annotation["bbox"] == list(expected.box)
        assert annotation["area"] == expected.area
    assert [read.cats[annotation["category_id"]]["name"] for annotation in annotations] == [*NAMES, NAMES[0]]
    assert read.imgs[2]["file_name"] == "b.png"


def filled(points: NDArray[np.float64]) -> Mask:
    """A polygon along pixel edges: the pixels whose centres are inside, by the even-odd rule."""
    across, down = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    inside = np.zeros(SIZE[::-1], bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        crosses = (y1 > down) != (y2 > down)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (across < (x2 - x1) * (down - y1) / (y2 - y1) + x1)
    return inside


def test_yolo_has_a_line_an_object() -> None:
    for line, expected in zip(yolo.lines(PICTURE, NAMES), SEEN, strict=True):
        number, *rest = line.split()
        assert NAMES[int(number)] == (expected.phrase or "object")
        points = np.array(rest, dtype=float).reshape(-1, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        assert iou(filled(points * SIZE), expected.mask) >= 0.98
    assert 'a \\"sign\\" <b>' in yolo.data_yaml(NAMES)


def test_labelme_has_a_polygon_a_part() -> None:
    document = json.loads(json.dumps(labelme.document(PICTURE)))
    assert (document["imageWidth"], document["imageHeight"], document["imagePath"]) == (*SIZE, PICTURE.name)
    for number, expected in enumerate(SEEN):
        parts = [shape for shape in document["shapes"] if shape["group_id"] == number]
        mask = np.zeros(SIZE[::-1], bool)
        for part in parts:
            assert part["label"] == (expected.phrase or "object")
            mask |= filled(np.array(part["points"]))
        assert iou(mask, expected.mask) >= 0.98


def packed(data: list[int]) -> Iterator[int]:
    """The values in Label Studio's bytes, as its own decoder reads them: size, width of a value, four widths of
    lengths, then runs and literals."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def take(width: int) -> int:
        nonlocal place
        place += width
        return int(bits[place - width : place], 2)

    total, width = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    found = 0
    while found < total:
        is_run, length = take(1), take(sizes[take(2)]) + 1
        if is_run:
            value = take(width)
            yield from [value] * length
        else:
            for _ in range(length):
                yield take(width)
        found += length
    assert found == total


def test_label_studio_reads_its_run_lengths() -> None:
    task = json.loads(json.dumps(label_studio.task(PICTURE, "sa2va-nano")))
    results = task["predictions"][0]["result"]
    for result, expected in zip(results, SEEN, strict=True):
        levels = np.array(list(packed(result["value"]["rle"]))).reshape(SIZE[1], SIZE[0], 4)
        assert np.array_equal(levels[..., 3] > 0, expected.mask)
        assert result["value"]["brushlabels"] == [expected.phrase or "object"]
        assert (result["original_width"], result["original_height"]) == SIZE


def test_cvat_has_its_rows() -> None:
    root = ElementTree.fromstring(cvat.document([PICTURE]).encode())
    (image,) = root.iter("image")
    for found, expected in zip(image.iter("mask"), SEEN, strict=True):
        left, top, width, height = (int(found.get(name) or "") for name in ("left", "top", "width", "height"))
        values, runs = [], [int(run) for run in (found.get("rle") or "").split(", ")]
        for place, run in enumerate(runs):
            values += [bool(place % 2)] * run
        mask = np.zeros(SIZE[::-1], bool)
        mask[top : top + height, left : left + width] = np.array(values).reshape(height, width)
        assert np.array_equal(mask, expected.mask)
        assert found.get("label") == (expected.phrase or "object")
    assert [name.text for name in root.iter("name")] == NAMES


def test_instances_are_numbers() -> None:
    levels = np.asarray(instances.to_png(PICTURE.segments[:4], SIZE))
    assert levels.dtype == np.uint8
    assert np.array_equal(levels == 4, PICTURE.segments[3].mask)
    many = [segment(drawn(("point", (n % 100, n // 100))), None) for n in range(300)]
    assert np.asarray(instances.to_png(many, SIZE)).max() == 300


class _Kept:
    """Keeps what it is made of."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


def test_supervision_and_fiftyone_are_given_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a dependency: stand-ins under their names keep what they are given."""
    for name in ("supervision", "fiftyone"):
        module = ModuleType(name)
        module.Detections = module.Detection = _Kept  # type: ignore[attr-defined]
        monkeypatch.setitem(__import__("sys").modules, name, module)
    found: Any = for_supervision.detections(PICTURE)
    assert found.xyxy.shape == (4, 4)
    assert found.mask.shape == (4, SIZE[1], SIZE[0])
    assert found.xyxy[0].tolist() == [10, 10, 61, 61]
    assert found.class_id.tolist() == [0, 1, 2, 0]
    assert for_supervision.detections(Labelled("a", SIZE, ())).mask.shape == (0, SIZE[1], SIZE[0])  # type: ignore[union-attr]
    other: Any = for_fiftyone.detections(PICTURE)
    for detection, expected in zip(other.detections, SEEN, strict=True):
        x, y, across, down = expected.box
        assert detection.bounding_box == [x / 120, y / 90, across / 120, down / 90]
        assert np.array_equal(detection.mask, expected.mask[y : y + down, x : x + across])
