"""Numbers to the device and back."""

from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(values: list[list[int]] | list[list[float]] | list[int], device: torch.device) -> Tensor:
    """Host numbers as a tensor on the device. A GPU fetches them from pinned memory in its own time: nobody waits."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_numbers(tensor: Tensor) -> list[Any]:
    """The numbers of a tensor (N,); waits for the device."""
    return cast("list[Any]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]


def to_host(tensor: Tensor) -> NDArray[Any]:
    """A tensor's numbers as an array; waits for the device."""
    return tensor.cpu().numpy()


def from_numpy(array: NDArray[Any]) -> Tensor:
    """The same memory as a tensor."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
