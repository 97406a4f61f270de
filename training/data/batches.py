"""Batches of pictures and of clips from the shards on disk, as tensors."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sa2va_bento.model.pixels import IMAGENET_MEAN, IMAGENET_STD, SAM_MEAN, SAM_STD
from sa2va_bento.model.tracking import FRAMES_SEEN
from training.data.augmentation import REWRITABLE, TURNABLE, rewritten, turned, turned_things
from training.data.clip_shards import CLIPS_A_SHARD, NAMED_AT
from training.data.picture_shards import open_pool
from training.paths import RUNS


@dataclass(frozen=True)
class Batch:
    """`tiles` (B, 3, 224, 224) and `frames` (B, 3, 256, 256) normalised float32 (None when not asked for), `labels`
    (B, 128, 128) int64, `things` (B, N, 8) as in the shards, `scenes` (B,) the scenes' numbers there;
    all are of one `kind`."""

    tiles: Tensor | None
    frames: Tensor | None
    labels: Tensor
    things: Tensor
    scenes: Tensor
    kind: str


class ScenePool:
    """Draws batches from the shards on disk."""

    def __init__(
        self, size: int, tiles: bool = False, frames: bool = False, forms: int = 2, kind: str = "pool"
    ) -> None:
        """`forms`: show each scene in one of the first so many of its eight mirrored and turned forms."""
        self.kind, self.shards = kind, open_pool(kind)
        self.size, self.tiles, self.frames, self.forms = size, tiles, frames, forms
        self.per_shard = len(self.shards[0].things)
        self.total = self.per_shard * len(self.shards)

    def __iter__(self) -> Iterator[Batch]:
        """Endless, in a new order each time through."""
        while True:
            order = np.random.permutation(self.total)
            for start in range(0, self.total - self.size + 1, self.size):
                yield self.batch(order[start : start + self.size])

    def batch(self, scenes: np.ndarray) -> Batch:
        turn = int(np.random.randint(self.forms)) if self.kind in TURNABLE else 0
        tiles = (
            turned(normalised(self._rows("tiles", scenes), IMAGENET_MEAN, IMAGENET_STD), turn) if self.tiles else None
        )
        frames = turned(normalised(self._rows("frames", scenes), SAM_MEAN, SAM_STD), turn) if self.frames else None
        labels = turned(torch.from_numpy(self._rows("labels", scenes)).long(), turn)
        things = turned_things(torch.from_numpy(self._rows("things", scenes)), turn)
        if self.kind in REWRITABLE and tiles is not None:
            tiles, labels, things = rewritten(tiles, labels, things)
        return Batch(tiles, frames, labels, things, torch.from_numpy(scenes), self.kind)

    def _rows(self, name: str, scenes: np.ndarray) -> np.ndarray:
        return np.stack([getattr(self.shards[i // self.per_shard], name)[i % self.per_shard] for i in scenes])


def normalised(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(..., S, S, 3) uint8 to (..., 3, S, S) normalised float32."""
    pixels = torch.from_numpy(images).movedim(-1, -3).float().div_(255)
    return pixels.sub_(torch.tensor(mean)[:, None, None]).div_(torch.tensor(std)[:, None, None]).contiguous()


def mixed(streams: dict[str, Iterator[Batch]], shares: Callable[[], dict[str, float]]) -> Iterator[Batch]:
    """Batches of one kind each; `shares` says how likely each kind is at present."""
    while True:
        kinds, weights = zip(*shares().items(), strict=True)
        chosen = np.random.choice(len(kinds), p=np.array(weights) / sum(weights))
        yield next(streams[kinds[chosen]])


def shares_at(done: float, at_first: dict[str, float], in_the_end: dict[str, float]) -> dict[str, float]:
    """How likely a batch of each kind is when the share `done` of a stage is over."""
    return {kind: (1 - done) * first + done * in_the_end[kind] for kind, first in at_first.items()}


@dataclass(frozen=True)
class ClipBatch:
    """`tiles` (B, 5, 3, 224, 224) and `frames` (B, T, 3, 256, 256) normalised float32 (None when not asked for),
    `labels` (B, T, 128, 128) int64, `things` (B, 4, 8) as in the shards of scenes, places being those of frame 2, and
    `clips` (B,) the clips' numbers."""

    tiles: Tensor | None
    frames: Tensor | None
    labels: Tensor
    things: Tensor
    clips: Tensor


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
            frames = int(np.random.randint(NAMED_AT + 1, FRAMES_SEEN + 1))
            yield Batch(batch.tiles[:, :frames], None, batch.labels[:, NAMED_AT], batch.things, batch.clips, "clips")

    def _batch(self, clips: np.ndarray) -> ClipBatch:
        return ClipBatch(
            tiles=normalised(self._rows("tiles", clips), IMAGENET_MEAN, IMAGENET_STD) if self.tiles else None,
            frames=normalised(self._rows("frames", clips), SAM_MEAN, SAM_STD) if self.frames else None,
            labels=torch.from_numpy(self._rows("labels", clips)).long(),
            things=torch.from_numpy(self._rows("things", clips)),
            clips=torch.from_numpy(clips),
        )

    def _rows(self, name: str, clips: np.ndarray) -> np.ndarray:
        return np.stack([self._shards[i // CLIPS_A_SHARD][name][i % CLIPS_A_SHARD] for i in clips])
