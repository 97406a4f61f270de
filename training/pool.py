"""A pool of training scenes on disk, at the two resolutions that the model sees.

`python -m training.pool` writes shards of 1,000 or 2,000 scenes to `training/runs/pool/` (and crowded ones to
`training/runs/crowd/`), each once and atomically, so trainings can start on the first shard while the rest are drawn.
Shards are memory-mapped.
"""

import argparse
import os
from dataclasses import dataclass
from multiprocessing import Pool as Workers
from pathlib import Path

import numpy as np
from PIL import Image

from training.scenes import COLORS, CROWD, SHAPES, Scene, make_scene

RUNS = Path(__file__).parent / "runs"
SHARD_SCENES = {"pool": 2000, "crowd": 1000}
TILE_SIZE, SAM_SIZE, LABEL_SIZE = 224, 256, 128
MAX_THINGS = {"pool": 5, "crowd": CROWD}
DRAWN_SIDE = 560  # longest side of a training scene: enough for both squares, quicker than 1,000

# one row of `things`: colour index, shape index (-1: no object), then in shares of the picture x, y, x0, y0, x1, y1
THING_FIELDS = 8


@dataclass(frozen=True)
class Shard:
    """`tiles` (N, 224, 224, 3), `frames` (N, 256, 256, 3), `labels` (N, 128, 128), all uint8, and `things`
    (N, 5 or 14, 8) float32."""

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
    label = Image.fromarray(scene.labels).resize((LABEL_SIZE, LABEL_SIZE), Image.Resampling.NEAREST)
    rows = np.full((most, THING_FIELDS), -1, np.float32)
    for index, thing in enumerate(scene.things):
        rows[index, :2] = COLORS.index(thing.color), SHAPES.index(thing.shape)
        rows[index, 2:] = _place(scene.mask(index))
    return Sample(np.asarray(tile), np.asarray(frame), np.asarray(label), rows)


def _place(mask: np.ndarray) -> tuple[float, ...]:
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
    scenes = (make_scene(first + i, longest=DRAWN_SIDE, crowded=kind == "crowd") for i in range(size))
    samples = [to_sample(scene, MAX_THINGS[kind]) for scene in scenes]
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--crowd-shards", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    jobs = [("crowd", i) for i in range(args.crowd_shards)] + [("pool", i) for i in range(args.shards)]
    with Workers(args.workers) as workers:
        for line in workers.imap(write_shard, jobs):
            print(line, flush=True)


if __name__ == "__main__":
    main()
