"""Shards of training pictures on disk, at the two resolutions that the model sees.

`python -m training.data.picture_shards` writes shards of 1,000 or 2,000 pictures to `training/runs/<kind>/`, each once
and atomically, so trainings can start on the first shard while the rest are drawn. Shards are memory-mapped. Kinds:
`pool` (scenes of 1 to 5 objects), `crowd` (of many), `text`, `digits`, `glyphs` (crowds of characters), `lines`
(several lines of them), `blank` (backgrounds alone), `alike` (six to nine objects of few colours and shapes) and
`tiny` (small objects).
"""

import os
from dataclasses import dataclass
from multiprocessing import Pool as Workers

import numpy as np
from PIL import Image

from training.arguments import shards_parser
from training.data.scenes import CROWD, Scene, make_alike, make_blank, make_scene, make_tiny
from training.data.shapes import COLORS, SHAPES
from training.data.writing import CHARACTERS, Writing, make_digits, make_glyphs, make_lines, make_text
from training.model_config import SAM_SIZE, TILE_SIZE
from training.paths import RUNS

SHARD_SCENES = {
    "pool": 2000,
    "crowd": 1000,
    "text": 2000,
    "digits": 2000,
    "glyphs": 1000,
    "lines": 1000,
    "blank": 1000,
    "alike": 1000,
    "tiny": 1000,
}
LABEL_SIZE = 128
MAX_THINGS = {
    "pool": 5,
    "crowd": CROWD,
    "text": 6,
    "digits": 6,
    "glyphs": 24,
    "lines": 24,
    "blank": 5,
    "alike": 9,
    "tiny": 5,
}
SCENES = {"blank": make_blank, "alike": make_alike, "tiny": make_tiny}
"""Scenes beside the ordinary and the crowded ones."""
WRITERS = {"text": make_text, "digits": make_digits, "glyphs": make_glyphs, "lines": make_lines}
INK = 128  # bit of a label
NO_COLOR = len(COLORS)
CLASSES = (*SHAPES, *CHARACTERS)
DRAWN_SIDE = 560  # longest side of a training scene: enough for both squares, quicker than 1,000

# one row of `things`: colour index (6 for a character's), index in CLASSES (-1: nothing), then in shares of the picture
# x, y, x0, y0, x1, y1
THING_FIELDS = 8


@dataclass(frozen=True)
class Shard:
    """`tiles` (N, 224, 224, 3), `frames` (N, 256, 256, 3), `labels` (N, 128, 128), all uint8, and `things`
    (N, 5 to 24, 8) float32. What is written has no frames (N, 0): SAM2 is not asked for it."""

    tiles: np.ndarray
    frames: np.ndarray
    labels: np.ndarray
    things: np.ndarray


@dataclass(frozen=True)
class Sample:
    """One scene as it is stored; the fields of `Shard` without N."""

    tile: np.ndarray
    frame: np.ndarray
    label: np.ndarray
    things: np.ndarray


def to_sample(scene: Scene, most: int) -> Sample:
    """Squash a scene to the model's squares, as serving does."""
    tile = scene.image.resize((TILE_SIZE, TILE_SIZE), Image.Resampling.BICUBIC)
    frame = scene.image.resize((SAM_SIZE, SAM_SIZE), Image.Resampling.BICUBIC)
    rows = np.full((most, THING_FIELDS), -1, np.float32)
    for index, thing in enumerate(scene.things):
        rows[index, :2] = COLORS.index(thing.color), SHAPES.index(thing.shape)
        rows[index, 2:] = place_of(scene.mask(index))
    return Sample(np.asarray(tile), np.asarray(frame), small_labels(scene.labels), rows)


def small_labels(labels: np.ndarray) -> np.ndarray:
    """Labels (H, W) squashed to (128, 128)."""
    return np.asarray(Image.fromarray(labels).resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.NEAREST))


def written_sample(writing: Writing, most: int) -> Sample:
    """The same of a picture of characters: labels are their boxes, with INK added where there is ink."""
    tile = writing.image.resize((TILE_SIZE, TILE_SIZE), Image.Resampling.BICUBIC)
    label = np.zeros((LABEL_SIZE, LABEL_SIZE), np.uint8)
    rows = np.full((most, THING_FIELDS), -1, np.float32)
    for index, mark in enumerate(writing.marks):
        x0, y0, x1, y1 = np.clip(np.array(mark.box) / (writing.image.size * 2), 0, 1)
        rows[index] = NO_COLOR, CLASSES.index(mark.character), (x0 + x1) / 2, (y0 + y1) / 2, x0, y0, x1, y1
        left, top, right, bottom = (np.array([x0, y0, x1, y1]) * LABEL_SIZE).round().astype(int)
        label[top:bottom, left:right] = index + 1
    ink = Image.fromarray(writing.ink).resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.BOX)
    label[np.asarray(ink) > 0.4] |= INK
    return Sample(np.asarray(tile), np.zeros(0, np.uint8), label, rows)


def draw(kind: str, seed: int) -> Sample:
    """The picture of a kind and a seed."""
    if kind in WRITERS:
        return written_sample(WRITERS[kind](seed, longest=DRAWN_SIDE), MAX_THINGS[kind])
    if kind in SCENES:
        return to_sample(SCENES[kind](seed, longest=DRAWN_SIDE), MAX_THINGS[kind])
    return to_sample(make_scene(seed, longest=DRAWN_SIDE, crowded=kind == "crowd"), MAX_THINGS[kind])


def place_of(mask: np.ndarray) -> tuple[float, ...]:
    """Centroid and box of a mask (H, W) in shares of the picture."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    x, y = (xs.mean() + 0.5) / width, (ys.mean() + 0.5) / height
    return x, y, xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height


def write_shard(job: tuple[str, int]) -> str:
    """Draw shard `index` of a kind unless it is there already."""
    kind, index = job
    target = RUNS / kind / f"shard-{index:03d}"
    if (target / "things.npy").exists():
        return f"{kind} {target.name} kept"
    target.mkdir(parents=True, exist_ok=True)
    size, first = SHARD_SCENES[kind], index * SHARD_SCENES[kind]
    samples = [draw(kind, first + i) for i in range(size)]
    for name, field in (("tiles", "tile"), ("frames", "frame"), ("labels", "label"), ("things", "things")):
        part = target / f"{name}.part.npy"
        np.save(part, np.stack([getattr(sample, field) for sample in samples]))
        os.replace(part, target / f"{name}.npy")  # things last: its presence says that the shard is whole
    return f"{kind} {target.name} drawn"


def open_pool(kind: str = "pool") -> list[Shard]:
    """The complete shards of a kind on disk, memory-mapped."""
    folders = sorted(path.parent for path in (RUNS / kind).glob("shard-*/things.npy"))
    return [
        Shard(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tiles", "frames", "labels", "things")))
        for folder in folders
    ]


def main() -> None:
    shards = {
        "pool": 10,
        "crowd": 6,
        "text": 6,
        "digits": 3,
        "glyphs": 6,
        "lines": 6,
        "blank": 2,
        "alike": 3,
        "tiny": 2,
    }
    args = shards_parser(__doc__, shards).parse_args()
    jobs = [
        (kind, i)
        for kind in ("lines", "glyphs", "crowd", "text", "digits", "blank", "alike", "tiny", "pool")
        for i in range(getattr(args, kind))
    ]
    with Workers(args.workers) as workers:
        for line in workers.imap_unordered(write_shard, sorted(jobs, key=lambda job: job[1])):
            print(line, flush=True)


if __name__ == "__main__":
    main()
