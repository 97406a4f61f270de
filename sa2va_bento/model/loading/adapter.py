"""LoRA adapters as peft saves them, merged into the weights as these are read (Hu et al. 2021: W + s B A).

An adapter names the modules that it changes by their place in whatever model it was tuned in: the whole of a Sa2VA
checkpoint, or its language model alone; under the names of the published files, or those of the in-tree modules. All of
them find their tensor here, one that does not is an error. safetensors only.
"""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import conv2d

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.weights import name_some

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WRAPPER = "base_model.model."
"""What peft puts in front of the names of the model that it wraps, wherever that is in a larger one."""
PARENTS = ("", "language_model.", "model.", "model.model.")
"""Where the model that was tuned may be in a published checkpoint: all of it, or the language model alone."""
UNSUPPORTED = ("layer_replication", "target_parameters", "alora_invocation_tokens", "lora_bias", "use_qalora")
"""Fields of `adapter_config.json` that ask for more than LoRA."""
PICKLES = ("*.bin", "*.pt", "*.pth")
OTHER_STARTS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of `init_lora_weights` with which training changes the base, too."""

IN_LAYERS = re.compile(r"(^|\.)layers\.\d+\.(self_attn|attention|mlp|feed_forward)\.(?P<name>\w+)")
"""In the names of projections of a language model's layers."""
GROUNDING = "grounding_encoder."
FUSED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "wqkv", "qkv_proj"), 3),
    **dict.fromkeys(("gate_proj", "up_proj", "w1", "w3", "gate_up_proj"), 2),
}
"""Projections that are computed as a matrix of so many: each one's factors stand beside zeros for the others."""

Role = Literal["A", "B", "embedding_A", "embedding_B", "magnitude"]
_LORA = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<role>A|B|embedding_A|embedding_B)|lora_(?P<magnitude>magnitude)_vector)"
    r"(?:\.default)?(?:\.weight)?"
)


@dataclass
class Change:
    """What becomes of one weight: W + `scale` B A, its rows then scaled to `magnitude` where that is given (DoRA, Liu
    et al. 2024)."""

    parts: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    scale: float = 1.0
    is_transposed: bool = False

    def apply(self, weight: Tensor) -> Tensor:
        """The changed weight (out, in), (out, in, k, k), or (tokens, width) of an embedding, in float32."""
        changed = weight.float() + self.scale * self._product(weight)
        if "magnitude" not in self.parts:
            return changed
        norms = changed.flatten(1).norm(dim=1)
        return changed * (self.parts["magnitude"].float().flatten() / norms)[:, None]

    def _product(self, weight: Tensor) -> Tensor:
        parts = {role: tensor.float() for role, tensor in self.parts.items()}
        if "embedding_A" in parts:
            return (parts["embedding_B"] @ parts["embedding_A"]).T
        if weight.ndim == 2:
            product = parts["B"] @ parts["A"]
            return product.T if self.is_transposed else product
        return conv2d(parts["A"].transpose(0, 1), parts["B"]).transpose(0, 1)

    def problem(self, shape: tuple[int, ...]) -> str | None:
        """Why this can't change a weight of that shape."""
        sides = {frozenset({"A", "B"}), frozenset({"embedding_A", "embedding_B"}), frozenset({"A", "B", "magnitude"})}
        if frozenset(self.parts) not in sides:
            return f"has {', '.join(sorted(self.parts))} alone"
        if "magnitude" in self.parts and len(shape) != 2:
            return "is no matrix, which DoRA takes"
        try:
            made = tuple(self._product(torch.empty(shape, device="meta")).shape)
        except RuntimeError:
            made = ()
        return None if made == shape else f"does not go with a weight of {shape}"

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """A (r, in) and B (out, r), the scale in it, of a matrix W that becomes W + B A; None where more happens."""
        if frozenset(self.parts) != {"A", "B"} or self.parts["A"].ndim != 2:
            return None
        a, b = self.parts["A"].float(), self.parts["B"].float()
        down, up = (b.T, a.T) if self.is_transposed else (a, b)
        return down, self.scale * up

    def numbers(self, times: int) -> int:
        """How many the factors have, held so many times, or (0) the weight that they make."""
        if times:
            return times * sum(part.numel() for part in self.parts.values())
        if "embedding_A" in self.parts:
            return self.parts["embedding_A"].shape[1] * self.parts["embedding_B"].shape[0]
        return self.parts["A"][0].numel() * self.parts["B"].shape[0] if {"A", "B"} <= self.parts.keys() else 0

    def to_meta(self) -> "Change":
        return Change({role: part.to("meta") for role, part in self.parts.items()}, self.scale, self.is_transposed)


@dataclass
class Adapter:
    """An adapter: by the names that it has for them, the weights that it changes, and the tensors that it replaces, of
    which it may change some, too."""

    folder: Path
    rank: int
    changes: dict[str, Change]
    replaced: dict[str, Tensor]
    _bound: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, folder: Path) -> "Adapter":
        """Reads a folder that peft has saved.

        Raises:
            CheckpointError: it is not one, or more than LoRA.
        """
        config, tensors = _read_config(folder), _read_tensors(folder)
        changes: dict[str, Change] = {}
        replaced: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            found = _LORA.fullmatch(_plain(name))
            if not found:
                replaced[_plain(name).replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = tensor
                continue
            change = changes.setdefault(f"{found['module']}.weight", Change())
            change.parts[found["role"] or "magnitude"] = tensor
        for name, change in changes.items():
            change.scale = _scale(config, name.removesuffix(".weight"))
            change.is_transposed = bool(config.get("fan_in_fan_out"))
        return cls(folder, int(config["r"]), changes, replaced)

    @property
    def tensors(self) -> int:
        """How many weights it changes or replaces."""
        return len(self.changes.keys() | self.replaced.keys())

    @property
    def numbers(self) -> int:
        """How many it takes beside a model, at most: of the language model's layers its factors, of everything else the
        merged weight."""
        changed = (change.numbers(_times_held(name)) for name, change in self.changes.items())
        return sum(changed) + sum(tensor.numel() for tensor in self.replaced.values())

    def bind(self, published: Mapping[str, tuple[int, ...]], in_tree: Mapping[str, tuple[int, ...]]) -> None:
        """Finds the tensor of a checkpoint, of which the names and shapes are given, for each of the adapter's.

        Raises:
            CheckpointError: some have none, or another shape; the message names them.
        """
        self._bound, lost = {}, list[str]()
        for name in (*self.changes, *self.replaced):
            place = _place(name, published.keys()) or (name if name in in_tree else None)
            if place is None:
                lost.append(name)
            else:
                self._bound[place] = name
        if lost:
            raise CheckpointError(f"{self.folder}: the checkpoint has no {name_some(sorted(lost))}")
        wrong = [
            f"{name} {problem}"
            for place, name in self._bound.items()
            if (problem := self._problem(name, published.get(place) or in_tree[place]))
        ]
        if wrong:
            raise CheckpointError(f"{self.folder}: {name_some(wrong, at_most=2)}")

    def touches(self, name: str) -> bool:
        """Whether it changes or replaces that tensor of the checkpoint it was bound to."""
        return name in self._bound

    def factors(self, name: str) -> tuple[Tensor, Tensor] | None:
        """Of a tensor that it touches, `Change.factors`."""
        known = self._bound[name]
        return None if known in self.replaced or known not in self.changes else self.changes[known].factors

    def merge(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the checkpoint it was bound to, changed where the adapter does that."""
        known = self._bound.get(name)
        if known is None:
            return tensor
        whole = self.replaced.get(known, tensor)
        return self.changes[known].apply(whole) if known in self.changes else whole

    def _problem(self, name: str, shape: tuple[int, ...]) -> str | None:
        if name in self.replaced and (found := tuple(self.replaced[name].shape)) != shape:
            return f"is {found}, the checkpoint's is {shape}"
        return self.changes[name].to_meta().problem(shape) if name in self.changes else None


def _times_held(name: str) -> int:
    """How often a projection's factors are held beside a model; 0 for what is no projection of a layer."""
    found = None if GROUNDING in name else IN_LAYERS.search(name)
    return FUSED.get(found["name"], 1) if found else 0


def _plain(name: str) -> str:
    return name.replace(WRAPPER, "").replace(".default.", ".")


def _place(name: str, known: Collection[str]) -> str | None:
    return next((parent + name for parent in PARENTS if parent + name in known), None)


def _scale(config: Mapping[str, Any], module: str) -> float:
    rank = _by_pattern(config.get("rank_pattern"), module, config["r"])
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _by_pattern(patterns: Mapping[str, float] | None, module: str, otherwise: float) -> float:
    """The value of the first pattern that is the end of a module's name, as peft reads it."""
    found = (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", module))
    return float(next(found, otherwise))


def _read_config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, rank, _ = config["peft_type"], int(config["r"]), float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder} holds no adapter: it has no readable {CONFIG} of peft's LoRA") from None
    if kind != "LORA" or rank < 1:
        raise CheckpointError(f"{folder}: an adapter of the kind {kind} is not supported (supported: LORA)")
    if asked := [name for name in UNSUPPORTED if config.get(name)]:
        raise CheckpointError(f"{folder}: {asked[0]} is not supported")
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(OTHER_STARTS):
        raise CheckpointError(
            f"{folder}: init_lora_weights={start} changes the base, too; save it with "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )
    return config


def _read_tensors(folder: Path) -> Mapping[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file() and any(any(folder.glob(pattern)) for pattern in PICKLES):
        raise CheckpointError(f"{folder} holds pickled weights only; pickle is never loaded, save as safetensors")
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        raise CheckpointError(f"{path} is missing, or it is not a complete safetensors file") from None
