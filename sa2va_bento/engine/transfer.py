"""Numbers to the device and back."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(values: list[list[int]] | list[list[float]] | list[int], device: torch.device) -> Tensor:
    """Host numbers as a tensor on the device. A GPU fetches them from pinned memory in its own time: nobody waits."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def batch_on_device(arrays: Sequence[NDArray[np.float32]], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Arrays (n, ...) joined along dim 0. For a GPU they are converted into pinned memory in one pass, from where it
    fetches them in its own time."""
    if device.type != "cuda":
        return from_numpy(np.concatenate(arrays) if len(arrays) > 1 else arrays[0]).to(device, dtype)
    staged = torch.empty((sum(map(len, arrays)), *arrays[0].shape[1:]), dtype=dtype, pin_memory=True)
    for place, array in zip(torch.split(staged, [len(a) for a in arrays]), arrays, strict=True):
        place.copy_(from_numpy(array))
    return staged.to(device, non_blocking=True)


def to_numbers(tensor: Tensor) -> list[Any]:
    """The numbers of a tensor (N,); waits for the device."""
    return cast("list[Any]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]


def to_host(tensor: Tensor) -> NDArray[Any]:
    """A tensor's numbers as an array; waits for the device."""
    return tensor.cpu().numpy()


def from_numpy(array: NDArray[Any]) -> Tensor:
    """The same memory as a tensor."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
