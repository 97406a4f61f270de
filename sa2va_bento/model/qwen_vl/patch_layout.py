"""Where the patches of pictures are, and which of them see each other, told on the host.

The in-tree vision towers work this out from a tensor of grids. On a GPU that makes the host wait before the first
layer, and in every layer again, where the lengths of pictures are read back; what is given to them they don't work out.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)


def patch_layout(tower: Any, grids: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Arguments of a vision tower for pictures with `grids` (N, 3) of patches, on the CPU: lengths stay there, places
    go to the device."""
    ends, places = _ends(tower, grids), _places(tower, grids)
    return {**ends, **{name: places[name].to(device, non_blocking=True) for name in places}}


def _has_windows(tower: Any) -> bool:
    """Qwen2.5-VL's attention stays within windows in most layers; Qwen3-VL has learnt positions instead."""
    return hasattr(tower, "window_size")


def _ends(tower: Any, grids: Tensor) -> dict[str, Tensor]:
    """Where pictures, and windows, end in the row of all patches."""
    ends = {"cu_seqlens": get_vision_cu_seqlens(grids)}
    return {**ends, "cu_window_seqlens": _windows(tower, grids)[1]} if _has_windows(tower) else ends


def _places(tower: Any, grids: Tensor) -> dict[str, Tensor]:
    places = {"position_ids": get_vision_position_ids(grids, tower.spatial_merge_size)}
    if _has_windows(tower):
        return {**places, "window_index": _windows(tower, grids)[0]}
    indices, weights = get_vision_interpolation_indices_and_weights(
        grids,
        num_grid_per_side=tower.num_grid_per_side,
        mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners,
        spatial_merge_size=tower.config.spatial_merge_size,
    )
    return {**places, "interp_indices": indices, "interp_weights": weights}


def _windows(tower: Any, grids: Tensor) -> tuple[Tensor, Tensor]:
    return get_vision_window_index(grids, tower.spatial_merge_size, tower.window_size, tower.patch_size)
