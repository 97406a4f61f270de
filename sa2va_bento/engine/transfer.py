"""Small numbers to the device."""

import torch
from torch import Tensor


def on_device(values: list[list[int]] | list[list[float]] | list[int], device: torch.device) -> Tensor:
    """Host numbers as a tensor on the device. A GPU fetches them from pinned memory in its own time: nobody waits."""
    tensor = torch.tensor(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
