"""Shards of training clips on disk.

`python -m training.data.clip_shards` writes shards of 200 clips to `training/runs/clips/`, each once and atomically.
"""

import os
from multiprocessing import Pool as Workers

import numpy as np
from PIL import Image

from sa2va_bento.model.tracking import FRAMES_SEEN
from training.arguments import shards_parser
from training.data.clips import Clip, make_clip
from training.data.picture_shards import DRAWN_SIDE, THING_FIELDS, place_of, small_labels
from training.data.shapes import COLORS, SHAPES
from training.model_config import SAM_SIZE, TILE_SIZE
from training.paths import RUNS

CLIPS_A_SHARD, FRAMES, MOST = 200, 16, 4
NAMED_AT = FRAMES_SEEN // 2  # the frame whose places stand for those of all that are seen


def to_arrays(clip: Clip) -> dict[str, np.ndarray]:
    """A clip at the model's resolutions, as it is stored."""
    tiles = [_squashed(image, TILE_SIZE) for image in clip.images[:FRAMES_SEEN]]
    things = np.full((MOST, THING_FIELDS), -1, np.float32)
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


def main() -> None:
    args = shards_parser(__doc__, {"shards": 6}).parse_args()
    with Workers(args.workers) as workers:
        for line in workers.imap(write_shard, range(args.shards)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
