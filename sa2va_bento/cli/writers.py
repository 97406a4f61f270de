"""Files of an answer: each format writes what belongs to a picture at once, and what belongs to all at the end."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sa2va_bento.labels import coco, cvat, label_studio, yolo
from sa2va_bento.labels.labelled import Labelled, classes_of
from sa2va_bento.local.answer import Answer
from sa2va_bento.media.mask_formats import to_grey

OF_A_PICTURE = ("json", "masks", "overlay", "instances", "labelme")
OF_ALL = ("coco", "yolo", "label_studio", "cvat")


def write_picture(answer: Answer, stem: str, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Files of one answer, in a folder a format where there are several pictures (`stem` then says which)."""
    written: list[Path] = []
    for name in formats:
        for suffix, data in _files(answer, name):
            path = folder / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, str):
                path.write_text(data, encoding="utf-8")
            else:
                data.save(path)
            written.append(path)
    return written


def _files(answer: Answer, name: str) -> Iterable[tuple[str, Any]]:
    """What follows the stem, and text or an image."""
    match name:
        case "json":
            yield ".json", json.dumps(answer.to_dict(), ensure_ascii=False, indent=2) + "\n"
        case "masks":
            for number, segment in enumerate(answer.segments):
                yield f"-{number}.png", to_grey(segment.mask)
        case "overlay" if answer.segments:
            yield "-overlay.png", answer.overlay()
        case "instances" if answer.picture:
            yield "-instances.png", answer.to_instances()
        case "labelme" if answer.picture:
            yield ".labelme.json", json.dumps(answer.to_labelme(), ensure_ascii=False, indent=2) + "\n"
        case _:
            return


def write_all(pictures: Sequence[Labelled], folder: Path, formats: Sequence[str], model: str) -> list[Path]:
    """Files of all pictures together."""
    written: list[Path] = []
    for name in formats:
        for file, text in _documents(pictures, name, model):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def _documents(pictures: Sequence[Labelled], name: str, model: str) -> Iterable[tuple[str, str]]:
    match name:
        case "coco":
            yield "coco.json", json.dumps(coco.document(pictures), ensure_ascii=False)
        case "label_studio":
            tasks = [label_studio.task(picture, model) for picture in pictures]
            yield "label_studio.json", json.dumps(tasks, ensure_ascii=False)
        case "cvat":
            yield "cvat.xml", cvat.document(pictures)
        case "yolo":
            classes = classes_of(pictures)
            yield "data.yaml", yolo.data_yaml(classes)
            for picture in pictures:
                lines = yolo.lines(picture, classes)
                yield f"labels/{stem_of(picture.name)}.txt", "".join(f"{line}\n" for line in lines)
        case _:
            return


def stem_of(name: str) -> str:
    """A picture's name, folders kept, as the beginning of a file's name inside a folder of ours."""
    parts = [re.sub(r"[^\w. -]+", "_", part) for part in Path(name).with_suffix("").parts]
    return "/".join(part for part in parts if part not in ("..", ".", "/", "_", "")) or "picture"
