"""What the stages have saved: `training/runs/<stage>/last.pt`."""

import torch
from torch import Tensor

from training.paths import RUNS


def stage_exists(stage: str) -> bool:
    """Whether the stage has saved anything yet."""
    return (RUNS / stage / "last.pt").exists()


def load_part(stage: str, prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix.` of a stage's checkpoint, prefix removed; all without one."""
    state = torch.load(RUNS / stage / "last.pt", weights_only=True)["module"]
    if not prefix:
        return state
    return {name.removeprefix(f"{prefix}."): value for name, value in state.items() if name.startswith(f"{prefix}.")}
