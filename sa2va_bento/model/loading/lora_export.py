"""Checkpoints that were saved with LoRA still beside their weights: InternVL's code wraps the language model or the
vision tower by peft, and saves what it has wrapped, `use_llm_lora` and `use_backbone_lora` in `config.json` being the
rank. The tensors get the names that they would have without it, and the products are merged as they are read.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.adapter import Change, Role
from sa2va_bento.model.loading.weights import Stored, WeightReader

FLAGS = {"language_model.": "use_llm_lora", "vision_model.": "use_backbone_lora"}
"""What `config.json` says of each part that may be wrapped."""
SCALE = 2.0
"""lora_alpha over the rank: InternVL's code sets alpha to twice the rank (`wrap_llm_lora`, `wrap_backbone_lora`)."""

_WRAPPER, _BASE = ".base_model.model.", ".base_layer."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<role>A|B)(\.default)?\.weight")


def plain_name(name: str) -> str:
    """What a tensor is called without LoRA around it."""
    return name.replace(_WRAPPER, ".", 1).replace(_BASE, ".", 1)


def plain_names(stored: Mapping[str, Stored], config: Mapping[str, Any]) -> dict[str, Stored]:
    """The tensors of a checkpoint with that `config.json` by their plain names, without LoRA's factors.

    Raises:
        CheckpointError: two have the same, or there are factors where the configuration says that there are none.
    """
    found: dict[str, str] = {}
    for name in stored:
        if match := _FACTOR.fullmatch(name):
            _check_flag(plain_name(match["module"]), name, config)
        elif other := found.get(plain_name(name)):
            raise CheckpointError(f"{name} and {other} are the same tensor")
        else:
            found[plain_name(name)] = name
    return {plain: stored[name] for plain, name in found.items()}


def _check_flag(module: str, name: str, config: Mapping[str, Any]) -> None:
    flags = [flag for part, flag in FLAGS.items() if module.startswith(part)]
    if not any(config.get(flag) for flag in flags):
        said = f"{flags[0]}={config.get(flags[0], 0)}" if flags else "nothing of it"
        raise CheckpointError(f"{name} is LoRA's, and config.json says {said}: its scale is not known")


class CheckpointReader(WeightReader):
    """A folder's tensors by their plain names, with LoRA's products in them where the files hold its factors.

    Raises:
        CheckpointError: as `WeightReader` and `plain_names`, or factors do not go with their weight.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder)
        own, self.stored = self.stored, plain_names(self.stored, config)
        self._names = {plain_name(name): name for name in own if not _FACTOR.fullmatch(name)}
        self._factors: dict[str, dict[Role, tuple[str, Path]]] = {}
        for name, place in own.items():
            if match := _FACTOR.fullmatch(name):
                of_weight = self._factors.setdefault(f"{plain_name(match['module'])}.weight", {})
                of_weight["A" if match["role"] == "A" else "B"] = (name, place.file)
        for name, factors in self._factors.items():
            shapes = {role: torch.empty(own[factor].shape, device="meta") for role, (factor, _) in factors.items()}
            place = self.stored.get(name)
            if problem := Change(dict(shapes)).problem(place.shape) if place else "is not there":
                raise CheckpointError(f"{folder}: {name}, to which LoRA adds, {problem}")

    def tensor(self, name: str) -> Tensor:
        own = self.read(self._names[name], self.stored[name].file)
        if name not in self._factors:
            return own
        parts = {role: self.read(factor, file) for role, (factor, file) in self._factors[name].items()}
        return Change(dict(parts), SCALE).apply(own)
