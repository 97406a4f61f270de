"""A pool of training clips on disk, and batches of them as tensors.

`python -m training.clip_pool` writes shards of 200 clips to `training/runs/clips/`, each once and atomically.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pool as Workers

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.batches import SAM_MEAN, SAM_STD, VIT_MEAN, VIT_STD, Batch, normalised
from training.clips import SEEN, Clip, make_clip
from training.pool import DRAWN_SIDE, RUNS, SAM_SIZE, TILE_SIZE, place_of, small_labels
from training.scenes import COLORS, SHAPES

CLIPS_A_SHARD, FRAMES, MOST = 200, 16, 4
NAMED_AT = SEEN // 2  # the frame whose places stand for those of all that are seen


@dataclass(frozen=True)
class ClipBatch:
    """`tiles` (B, 5, 3, 224, 224) and `frames` (B, T, 3, 256, 256) normalised float32 (None when not asked for),
    `labels` (B, T, 128, 128) int64, `things` (B, 4, 8) as in the pool of scenes, places being those of frame 2, and
    `clips` (B,) the clips' numbers."""

    tiles: Tensor | None
    frames: Tensor | None
    labels: Tensor
    things: Tensor
    clips: Tensor


def to_arrays(clip: Clip) -> dict[str, np.ndarray]:
    """A clip at the model's resolutions, as it is stored."""
    tiles = [_squashed(image, TILE_SIZE) for image in clip.images[:SEEN]]
    things = np.full((MOST, 8), -1, np.float32)
    for index, thing in enumerate(clip.things):
        seen = clip.labels[NAMED_AT] == index + 1
        if seen.any():
            things[index] = COLORS.index(thing.color), SHAPES.index(thing.shape), *place_of(seen)
    return {
        "tiles": np.stack(tiles),
        "frames": np.stack([_squashed(image, SAM_SIZE) for image in clip.images]),
        "labels": np.stack([small_labels(labels) for labels in clip.labels]),
        "things": things,
    }


def _squashed(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def write_shard(index: int) -> str:
    target = RUNS / "clips" / f"shard-{index:03d}"
    if (target / "things.npy").exists():
        return f"clips {target.name} kept"
    target.mkdir(parents=True, exist_ok=True)
    first = index * CLIPS_A_SHARD
    clips = [to_arrays(make_clip(first + i, FRAMES, longest=DRAWN_SIDE)) for i in range(CLIPS_A_SHARD)]
    for name in ("tiles", "frames", "labels", "things"):
        part = target / f"{name}.part.npy"
        np.save(part, np.stack([clip[name] for clip in clips]))
        os.replace(part, target / f"{name}.npy")  # things last: its presence says that the shard is whole
    return f"clips {target.name} drawn"


class ClipPool:
    """Draws batches from the shards on disk."""

    def __init__(self, size: int, tiles: bool = False, frames: bool = False) -> None:
        folders = sorted(path.parent for path in (RUNS / "clips").glob("shard-*/things.npy"))
        self.size, self.tiles, self.frames = size, tiles, frames
        self._shards = [
            {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tiles", "frames", "labels", "things")}
            for folder in folders
        ]

    def __iter__(self) -> Iterator[ClipBatch]:
        """Endless, in a new order each time through."""
        while True:
            order = np.random.permutation(len(self._shards) * CLIPS_A_SHARD)
            for start in range(0, len(order) - self.size + 1, self.size):
                yield self._batch(order[start : start + self.size])

    def prefixes(self) -> Iterator[Batch]:
        """The first frames of clips as batches of kind `clips`, tiles (B, n, 3, 224, 224): some of those that the
        language model is shown, places being those of the frame in the middle."""
        for batch in self:
            assert batch.tiles is not None
            frames = int(np.random.randint(NAMED_AT + 1, SEEN + 1))
            yield Batch(batch.tiles[:, :frames], None, batch.labels[:, NAMED_AT], batch.things, batch.clips, "clips")

    def _batch(self, clips: np.ndarray) -> ClipBatch:
        return ClipBatch(
            tiles=normalised(self._rows("tiles", clips), VIT_MEAN, VIT_STD) if self.tiles else None,
            frames=normalised(self._rows("frames", clips), SAM_MEAN, SAM_STD) if self.frames else None,
            labels=torch.from_numpy(self._rows("labels", clips)).long(),
            things=torch.from_numpy(self._rows("things", clips)),
            clips=torch.from_numpy(clips),
        )

    def _rows(self, name: str, clips: np.ndarray) -> np.ndarray:
        return np.stack([self._shards[i // CLIPS_A_SHARD][name][i % CLIPS_A_SHARD] for i in clips])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with Workers(args.workers) as workers:
        for line in workers.imap(write_shard, range(args.shards)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
