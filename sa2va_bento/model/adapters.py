"""LoRA adapters by name, several over one model in memory: the language model's layers compute those of all tokens of a
step together (`low_rank.py`); whatever else an adapter changes, it has merged weights of its own for, which are put in
place while something is computed for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

from torch import nn

from sa2va_bento.model.low_rank import BASE

T = TypeVar("T")


class Part(Enum):
    """Parts of a model that are computed for groups of requests which have the same weights."""

    VISION = auto()
    """The vision tower and its projector: image tokens."""
    WORDS = auto()
    """The embedding table and the head."""
    GROUNDING = auto()
    """What makes prompts of `[SEG]`s, and SAM2."""


@dataclass(frozen=True)
class Variant:
    """The weights that an adapter has of its own, by their names in the model, apart from the language model's layers;
    `parts` are those that they belong to, `changes_features` is whether SAM2's features of a picture are its own."""

    number: int
    weights: Mapping[str, nn.Parameter] = field(default_factory=dict[str, nn.Parameter])
    parts: frozenset[Part] = frozenset()
    changes_features: bool = False


class Adapters:
    """The adapters of a model; none without a `Variant` for each."""

    def __init__(self, model: nn.Module, variants: Mapping[str, Variant], low_rank_bytes: int = 0) -> None:
        self._variants = variants
        self._places = _places(model, {weight for variant in variants.values() for weight in variant.weights})
        owned = (weight for variant in variants.values() for weight in variant.weights.values())
        self.bytes = low_rank_bytes + sum(weight.numel() * weight.element_size() for weight in owned)
        """What they take on the device."""

    def __bool__(self) -> bool:
        return bool(self._variants)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._variants)

    def number(self, name: str | None) -> int:
        """By which the language model's layers know it."""
        return self._variants[name].number if name else BASE

    def numbers(self, names: Iterable[str | None]) -> list[int]:
        return [self.number(name) for name in names]

    def owner(self, part: Part, name: str | None) -> str | None:
        """The adapter whose weights of a part an adapter uses: its own, or the model's (None)."""
        return name if name and part in self._variants[name].parts else None

    def owning(self, part: Part) -> tuple[str, ...]:
        """The adapters that have weights of their own of a part."""
        return tuple(name for name, variant in self._variants.items() if part in variant.parts)

    def groups(self, part: Part, items: Sequence[T], name_of: Callable[[T], str | None]) -> dict[str | None, list[T]]:
        """Items that are computed with the same weights of a part, in their order."""
        if not self._variants:
            return {None: list(items)}
        found: dict[str | None, list[T]] = {}
        for item in items:
            found.setdefault(self.owner(part, name_of(item)), []).append(item)
        return found

    def picture_key(self, name: str | None, key: str) -> str:
        """Names SAM2's features of a picture, which an adapter may have of its own."""
        return f"{key}@{name}" if name and self._variants[name].changes_features else key

    def tiles_key(self, name: str | None, key: str) -> str:
        """Names the image tokens of a picture, which an adapter may have of its own."""
        return f"{key}@{name}" if self.owner(Part.VISION, name) else key

    def applied(self, name: str | None) -> AbstractContextManager[None]:
        """The model with an adapter's own weights in place, for the thread that computes: nobody else may meanwhile."""
        return self._swapped(name) if name and self._variants[name].weights else nullcontext()

    @contextmanager
    def _swapped(self, name: str) -> Iterator[None]:
        own = self._variants[name].weights
        places = [(module, attribute, weight) for weight in own for module, attribute in self._places[weight]]
        usual = [getattr(module, attribute) for module, attribute, _ in places]
        try:
            for module, attribute, weight in places:
                setattr(module, attribute, own[weight])
            yield
        finally:
            for (module, attribute, _), parameter in zip(places, usual, strict=True):
                setattr(module, attribute, parameter)


def _places(model: nn.Module, weights: Iterable[str]) -> dict[str, list[tuple[nn.Module, str]]]:
    """The modules that hold each of these parameters, and what they call it: a tied one has several."""
    wanted = {id(model.get_parameter(weight)): weight for weight in weights}
    found: dict[str, list[tuple[nn.Module, str]]] = {weight: [] for weight in wanted.values()}
    for module in model.modules():
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if weight := wanted.get(id(parameter)):
                found[weight].append((module, attribute))
    return found


NO_ADAPTERS = Adapters(nn.Module(), {})
