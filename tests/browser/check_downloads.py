"""Reads what the playground gives away with the libraries that its formats are of: `python -m
tests.browser.check_downloads FOLDER`. The folder holds the files and `answer.json`, the API's own answer."""

import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco

Mask = NDArray[np.bool_]


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float((one & other).sum() / (one | other).sum())


def polygons(line: str, size: tuple[int, int]) -> Mask:
    """A line of YOLO's labels as a mask (H, W)."""
    numbers = np.array([float(word) for word in line.split()[1:]]).reshape(-1, 2)
    image = Image.new("1", size)
    ImageDraw.Draw(image).polygon([(x * size[0] - 0.5, y * size[1] - 0.5) for x, y in numbers], fill=1)
    return np.asarray(image, bool)


def check(folder: Path) -> None:
    """Raises AssertionError where a file says something else than the API."""
    answer = json.loads((folder / "answer.json").read_text())
    wanted = [coco.decode(segment["mask"]).astype(bool) for segment in answer["segments"]]
    size = (answer["image"]["width"], answer["image"]["height"])

    png = np.asarray(Image.open(folder / "mask-2.png").convert("L")) > 127
    assert (png != wanted[1]).sum() <= 2

    file = json.loads((folder / "masks.coco.json").read_text())
    names = {category["id"]: category["name"] for category in file["categories"]}
    assert file["images"] == [{"id": 1, "file_name": "shapes.png", "width": size[0], "height": size[1]}]
    for annotation, segment, mask in zip(file["annotations"], answer["segments"], wanted, strict=True):
        decoded = coco.decode(annotation["segmentation"]).astype(bool)
        assert (decoded != mask).sum() <= 2
        assert annotation["area"] == decoded.sum() == coco.area(annotation["segmentation"])
        assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()
        assert names[annotation["category_id"]] == segment["phrase"]

    lines = (folder / "masks.yolo.txt").read_text().splitlines()
    for number, mask in enumerate(wanted):
        parts = [polygons(line, size) for line in lines if line.startswith(f"{number} ")]
        assert iou(np.logical_or.reduce(parts), mask) > 0.97

    seen = np.asarray(Image.open(folder / "overlay.png").convert("RGB")).astype(int)
    picture = np.asarray(
        Image.open(Path(__file__).parents[2] / "sa2va_bento/web/playground/static/examples/shapes.png").convert("RGB")
    )
    assert seen.shape == picture.shape
    assert np.abs(seen[150, 470] - (64, 156, 255)).sum() < 150  # half of the mask's blue over the square's


if __name__ == "__main__":
    check(Path(sys.argv[1]))
