"""The safetensors files of a checkpoint: which they are, what they hold, and their tensors, one file at a time."""

import json
import mmap
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sa2va_bento.errors import CheckpointError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"
FLOATS = ("F64", "F32", "F16", "BF16")
ALIGNMENT = 64
"""Bytes: tensors start where vector instructions like it."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, sharded or not.

    Raises:
        CheckpointError: there are none, or a shard that the index names is missing.
    """
    names = sorted(set(_weight_map(folder).values())) or [WEIGHTS]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and list(folder.glob("*.bin")):
        raise CheckpointError(f"{folder} holds pickled weights only; pickle is never loaded, convert to safetensors")
    if missing:
        raise CheckpointError(f"{folder} lacks {name_some(missing)}")
    return [folder / name for name in names]


def _weight_map(folder: Path) -> Mapping[str, str]:
    """Tensor to file, as the index says; empty without an index."""
    index = folder / INDEX
    if not index.is_file():
        return {}
    try:
        found = {str(name): str(file) for name, file in json.loads(index.read_text("utf-8"))["weight_map"].items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index} is not a safetensors index") from None
    if outside := sorted({file for file in found.values() if Path(file).name != file}):
        raise CheckpointError(f"{index} names files outside of its folder: {name_some(outside)}")
    return found


def stored_names(folder: Path) -> frozenset[str]:
    """The names of a folder's tensors as far as they can be told without its weights: those of the index, or of the one
    file. What is wrong with them is told by whoever reads them."""
    with suppress(CheckpointError):
        if indexed := _weight_map(folder):
            return frozenset(indexed)
        if (folder / WEIGHTS).is_file():
            return frozenset(_opened(folder / WEIGHTS).keys())
    return frozenset()


def name_some(names: list[str], at_most: int = 5) -> str:
    """A readable list of names that doesn't flood a log."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


@dataclass(frozen=True)
class Stored:
    """Where a tensor is: its file, its place in the file's order, its shape."""

    file: Path
    place: int
    shape: tuple[int, ...]


class WeightReader:
    """Tensors of a folder's files by published name.

    At most one file is open at a time, so that no more than one is in this process's memory; ask in the order of
    `stored`. A tensor on the CPU shares the file's memory until it is copied or converted.

    Raises:
        CheckpointError: naming the file, and the tensor where it is one, that is truncated, of no floating type, held
            twice, or not where the index says.
    """

    def __init__(self, folder: Path) -> None:
        self.stored: dict[str, Stored] = {}
        for path in weight_files(folder):
            self._add(path)
        for name, file in _weight_map(folder).items():
            if name not in self.stored or self.stored[name].file.name != file:
                raise CheckpointError(f"{folder / INDEX}: {name} is not in {file}")
        self._file: Any = None
        self._path: Path | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.shape for name, stored in self.stored.items()}

    def place(self, names: Iterable[str]) -> tuple[Path, int]:
        """What to sort by, to read each file once and from its start to its end."""
        return min((self.stored[name].file, self.stored[name].place) for name in names)

    def tensor(self, name: str) -> Tensor:
        return self.read(name, self.stored[name].file)

    def read(self, name: str, path: Path) -> Tensor:
        """A tensor of a file, by the name that it has there."""
        if path != self._path:
            read_ahead(path)
            self._file, self._path = _opened(path), path
        try:
            return self._file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: {name} can't be read: {error}") from None

    def _add(self, path: Path) -> None:
        file = _opened(path)
        for place, name in enumerate(file.offset_keys()):
            if name in self.stored:
                raise CheckpointError(f"{name} is both in {self.stored[name].file} and in {path.name}")
            part = file.get_slice(name)
            if part.get_dtype() not in FLOATS:
                raise CheckpointError(f"{path}: {name} is {part.get_dtype()}, not one of {', '.join(FLOATS)}")
            self.stored[name] = Stored(path, place, tuple(part.get_shape()))


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt").__enter__()  # closed when the last tensor that shares it goes
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {_reason(path, error)}") from None


def _reason(path: Path, error: Exception) -> str:
    """What is wrong with a file, in terms of its tensors where its header can still be read."""
    try:
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
            if start == LFS_POINTER:
                return "it is a Git LFS pointer (git lfs pull fetches the weights)"
            length = int.from_bytes(start[:8], "little")
            file.seek(8)
            header = json.loads(file.read(min(length, path.stat().st_size)))
        room = path.stat().st_size - 8 - length
        beyond = sorted(name for name, entry in header.items() if entry.get("data_offsets", (0, 0))[1] > room)
        return f"it ends before {name_some(beyond)}" if beyond else str(error)
    except (OSError, ValueError, AttributeError, TypeError, LookupError):
        return str(error)


def read_ahead(path: Path) -> None:
    """Asks the system to fetch a file while it is being read."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file, suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


class HostMemory:
    """Memory of the CPU for a whole model, in one piece and in huge pages: touching 4 GiB for the first time takes
    seconds in small ones."""

    def __init__(self, tensors: int, elements: int, dtype: torch.dtype) -> None:
        size = elements * dtype.itemsize + tensors * ALIGNMENT
        self._memory = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(AttributeError, OSError):  # a system without them
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._used, self.dtype = 0, dtype

    def hold(self, tensor: Tensor) -> Tensor:
        """A copy of a tensor, converted."""
        if not tensor.numel():
            return tensor.to(self.dtype)
        copy = torch.frombuffer(self._memory, dtype=self.dtype, count=tensor.numel(), offset=self._used)
        self._used += -(-tensor.numel() * self.dtype.itemsize // ALIGNMENT) * ALIGNMENT
        return copy.view(tensor.shape).copy_(tensor)
