"""Puts adapters beside a loaded model, each under its name (`sa2va_bento.model.adapters`): of the projections of the
language model's layers the low-rank factors, of everything else weights merged as `adapter.py` merges them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.adapters import NO_ADAPTERS, Adapters, Part, Variant
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.decoder import projections
from sa2va_bento.model.loading.adapter import Adapter
from sa2va_bento.model.loading.lora_export import CheckpointReader
from sa2va_bento.model.loading.weight_names import SAM, Source, plan
from sa2va_bento.model.loading.weights import WeightReader, name_some
from sa2va_bento.model.low_rank import LowRank, Projections

FEATURES = (f"{SAM}.vision_encoder.", ".conv_s0.", ".conv_s1.")
"""In the names of the weights that make SAM2's features of a picture."""
WORDS = ("embed_tokens.weight", "lm_head.weight")
PROMPTS = "text_hidden_fcs."

Factors = tuple[Tensor, Tensor]
"""A (r, in) and B (out, r)."""


def attach(model: Sa2VA, folder: Path, adapters: Mapping[str, Adapter], merged: Adapter | None = None) -> Adapters:
    """The adapters, by their names, of a model that was loaded from a folder, with one merged if that is given.

    Raises:
        CheckpointError: one does not fit, or changes what can only be merged; the message names it.
    """
    if not adapters:
        return NO_ADAPTERS
    model.prepare_steps()
    if model.decoder is None:
        raise CheckpointError(
            "SA2VA_ADAPTERS: adapters by name need a language model that is not quantised, and on one device; "
            "SA2VA_ADAPTER merges one"
        )
    checkpoint = _Checkpoint.of(model, folder, merged)
    layers = _Layers.of(model)
    variants = {
        name: _attach_one(model, checkpoint, layers, name, number, adapter)
        for number, (name, adapter) in enumerate(adapters.items(), start=1)
    }
    model.decoder.adapters = layers.projections()
    return Adapters(model, variants, layers.bytes)


def _attach_one(
    model: Sa2VA, checkpoint: "_Checkpoint", layers: "_Layers", name: str, number: int, adapter: Adapter
) -> Variant:
    """One adapter's variant; its factors go to the layers."""
    checkpoint.bind(adapter)
    own: dict[str, nn.Parameter] = {}
    refused: list[str] = []
    for place in sorted(checkpoint.touched(adapter)):
        if layers.have(place):
            factors = checkpoint.factors(place, adapter)
            if factors is None or not layers.add(place, number, factors):
                refused.append(place)
        else:
            like = model.get_parameter(place)
            weight = checkpoint.merged(place, adapter).to(device=like.device, dtype=like.dtype)
            own[place] = nn.Parameter(weight, requires_grad=False)
    if refused:
        raise CheckpointError(
            f"adapter {name}: {name_some(refused, at_most=2)}: beside others a model takes LoRA's plain matrices of "
            "the language model's layers; SA2VA_ADAPTER merges what is more"
        )
    features = any(part in place for place in own for part in FEATURES)
    return Variant(number, own, frozenset(_part(place) for place in own), features)


def _part(place: str) -> Part:
    if place.startswith((f"{SAM}.", PROMPTS)):
        return Part.GROUNDING
    return Part.WORDS if place.endswith(WORDS) else Part.VISION


@dataclass(frozen=True)
class _Checkpoint:
    """The files of a model: where each of its tensors comes from, and what was merged into it."""

    reader: WeightReader
    sources: Mapping[str, Source]
    base: Adapter | None

    @classmethod
    def of(cls, model: Sa2VA, folder: Path, merged: Adapter | None) -> "_Checkpoint":
        reader = CheckpointReader(folder, model.config.raw)
        return cls(reader, plan(reader.stored, model.config.all_rules), merged)

    def bind(self, adapter: Adapter) -> None:
        shapes = self.reader.shapes
        adapter.bind(shapes, {name: source.shape(shapes) for name, source in self.sources.items()})

    def touched(self, adapter: Adapter) -> list[str]:
        """The tensors, named as in-tree, that an adapter changes."""
        return [place for place in self.sources if self._names(place, adapter)]

    def _names(self, place: str, adapter: Adapter) -> list[str]:
        """What an adapter calls a tensor: by published names, or by that of the module."""
        names = dict.fromkeys((*self.sources[place].names, place))
        return [name for name in names if adapter.touches(name)]

    def factors(self, place: str, adapter: Adapter) -> Factors | None:
        """A and B of a matrix; None where the adapter makes more of it than their product."""
        source, names = self.sources[place], self._names(place, adapter)
        found = adapter.factors(names[0]) if len(names) == 1 and len(source.names) == 1 else None
        if found is None or names[0] not in source.names:
            return found
        down, up = found
        return down, source.read(lambda _: up)  # parts are cut along the rows, and those of B A are B's

    def merged(self, place: str, adapter: Adapter) -> Tensor:
        """A tensor with the adapter in it."""
        tensor = self.sources[place].read(lambda name: adapter.merge(name, self._read(name)))
        return tensor if place in self.sources[place].names else adapter.merge(place, self._of_base(place, tensor))

    def _read(self, name: str) -> Tensor:
        tensor = self.reader.tensor(name)
        return self.base.merge(name, tensor) if self.base else tensor

    def _of_base(self, place: str, tensor: Tensor) -> Tensor:
        return self.base.merge(place, tensor) if self.base else tensor


@dataclass(frozen=True)
class _Matrix:
    """Where a projection's rows are: in which matrix of which layer, as how many-th of its projections."""

    layer: int
    name: str
    place: int


@dataclass
class _Layers:
    """The language model's layers, and the factors of adapters that they have been given."""

    prefix: str
    modules: Sequence[Mapping[str, list[nn.Linear]]]
    matrices: Mapping[str, _Matrix]
    given: dict[tuple[int, str], dict[int, dict[int, Factors]]] = field(
        default_factory=dict[tuple[int, str], dict[int, dict[int, Factors]]]
    )
    """By layer and matrix, then by the adapter's number, then by the projection's place."""
    bytes: int = 0

    @classmethod
    def of(cls, model: Sa2VA) -> "_Layers":
        text_model: Any = model.text_model
        names = {id(module): name for name, module in model.named_modules()}
        modules = [projections(layer) for layer in text_model.layers]
        matrices = {
            f"{names[id(module)]}.weight": _Matrix(layer, name, place)
            for layer, of_layer in enumerate(modules)
            for name, parts in of_layer.items()
            for place, module in enumerate(parts)
        }
        return cls(f"{names[id(text_model)]}.", modules, matrices)

    def have(self, place: str) -> bool:
        """Whether a tensor is one of the layers', or of the norm behind them."""
        return place.startswith(self.prefix) and not place.endswith(WORDS)

    def add(self, place: str, number: int, factors: Factors) -> bool:
        """Gives a matrix the factors of an adapter; False where the tensor is none of the matrices."""
        matrix = self.matrices.get(place)
        if matrix is None:
            return False
        of_matrix = self.given.setdefault((matrix.layer, matrix.name), {})
        of_matrix.setdefault(number, {})[matrix.place] = factors
        return True

    def projections(self) -> list[Projections]:
        """What was given, as the layers compute it."""
        found: list[dict[str, LowRank]] = [{} for _ in self.modules]
        for (layer, name), adapters in self.given.items():
            parts = self.modules[layer][name]
            change = LowRank.of({number: _joined(parts, of_adapter) for number, of_adapter in adapters.items()})
            found[layer][name] = change
            self.bytes += change.numbers * parts[0].weight.element_size()
        return list(found)


def _joined(parts: Sequence[nn.Linear], factors: Mapping[int, Factors]) -> Factors:
    """A and B of a matrix that projections make together: their A below each other, and of B the rows of each beside
    its own A's place, zeros elsewhere."""
    weight = parts[0].weight
    rank = sum(len(down) for down, _ in factors.values())
    up = weight.new_zeros(sum(part.out_features for part in parts), rank)
    first = place_in_rank = 0
    downs: list[Tensor] = []
    for place, part in enumerate(parts):
        if place in factors:
            down, own = factors[place]
            downs.append(down.to(weight))
            up[first : first + part.out_features, place_in_rank : place_in_rank + len(down)] = own.to(weight)
            place_in_rank += len(down)
        first += part.out_features
    return torch.cat(downs), up
