"""Data sets of clips, in the layouts in which they are published: MeViS, Ref-YouTube-VOS and Ref-DAVIS17. Frames are
JPEG files, expressions a `meta_expressions.json`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from sa2va_bento.errors import BadRequestError
from sa2va_bento.evaluation.questions import Question, Truth

PROMPT = "Please segment {}."


def mevis(data: Path, split: str) -> Iterator[Question]:
    """`data/SPLIT/JPEGImages/VIDEO`, `meta_expressions.json` and, but for splits that a server keeps, `mask_dict.json`,
    which has run lengths of each object's frames. Raises BadRequestError."""
    folder = _folder(data, (split, f"mevis/{split}", f"video_datas/mevis/{split}"))
    objects = _read(folder / "mask_dict.json") if (folder / "mask_dict.json").is_file() else None
    meta = folder / "meta_expressions.json"
    meta = meta if meta.is_file() else folder / "meta_expressions_release.json"
    for video, number, said, frames in _expressions(meta, folder / "JPEGImages"):
        names = [str(name) for name in said.get("anno_id", ())]
        truth = partial(_joined, [objects[name] for name in names], frames[0]) if objects and names else None
        yield _question(video, number, said, frames, truth)


def ref_davis(data: Path, split: str) -> Iterator[Question]:
    """`data/SPLIT/JPEGImages` and `Annotations`, PNGs whose colours' numbers are the objects', with DAVIS17's
    expressions in `meta_expressions/SPLIT`. Raises BadRequestError."""
    return _annotated_clips(data, split, ("davis17", "ref-davis", "video_datas/davis17"))


def ref_youtube_vos(data: Path, split: str) -> Iterator[Question]:
    """As Ref-DAVIS17; the server keeps the annotations of `valid`. Raises BadRequestError."""
    return _annotated_clips(data, split, ("rvos", "ref-youtube-vos", "video_datas/rvos"))


def _annotated_clips(data: Path, split: str, names: Sequence[str]) -> Iterator[Question]:
    root = _folder(data, tuple(f"{name}/{split}" for name in (".", *names))).parent
    annotations = root / split / "Annotations"
    meta = root / "meta_expressions" / split / "meta_expressions.json"
    for video, number, said, frames in _expressions(meta, root / split / "JPEGImages"):
        masks = [annotations / video / f"{frame.stem}.png" for frame in frames]
        is_known = "obj_id" in said and masks[0].is_file()
        yield _question(
            video, number, said, frames, partial(_of_object, masks, int(said["obj_id"])) if is_known else None
        )


def _question(video: str, number: str, said: Mapping[str, Any], frames: tuple[Path, ...], truth: Any) -> Question:
    expression = str(said["exp"])
    prompt = expression if "?" in expression else PROMPT.format(expression)
    return Question(f"{video}/{number}", frames, prompt, truth, f"{video}/{number}")


def _expressions(meta: Path, images: Path) -> Iterator[tuple[str, str, Mapping[str, Any], tuple[Path, ...]]]:
    """Video, number of the expression, what is said of it, and the frames."""
    for video, about in sorted(_read(meta)["videos"].items()):
        frames = tuple(images / video / f"{Path(str(name)).stem}.jpg" for name in about["frames"])
        for number, said in about["expressions"].items():
            yield video, number, said, frames


def _joined(objects: Sequence[Sequence[Any]], frame: Path) -> Truth:
    """All objects of an expression, on every frame."""
    with Image.open(frame) as picture:
        width, height = picture.size
    masks = np.zeros((len(objects[0]), height, width), bool)
    for one in objects:
        for place, rle in enumerate(one):
            if rle is not None:
                masks[place] |= coco.decode(rle).astype(bool)
    return Truth(masks)


def _of_object(paths: Sequence[Path], number: int) -> Truth:
    masks: list[Any] = []
    for path in paths:
        with Image.open(path) as picture:
            masks.append(np.asarray(picture) == number)
    return Truth(np.stack(masks))


def _folder(data: Path, places: Sequence[str]) -> Path:
    found = next((data / place for place in places if (data / place).is_dir()), None)
    if found is None:
        raise BadRequestError(f"{data}: none of {', '.join(places)} is there")
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadRequestError(f"{path}: not there") from None
    except ValueError:
        raise BadRequestError(f"{path}: not JSON") from None
