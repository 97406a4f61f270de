"""How the tensors of a published checkpoint become those of the in-tree modules: renamed, or cut out of a fused one.

A name in a rule may hold `{n}` (a layer number) and `{rest}` (whatever follows).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from torch import Tensor

Rename = tuple[str, str]
"""Published and in-tree name."""


class Part(Protocol):
    """A part of a fused tensor."""

    def take(self, fused: Tensor) -> Tensor:
        """The part, in memory of its own."""
        ...

    def shape(self, fused: tuple[int, ...]) -> tuple[int, ...]:
        """The part's shape, given the whole's."""
        ...


@dataclass(frozen=True)
class Chunk:
    """The `index`th of `count` equal parts along dim 0."""

    index: int
    count: int

    def take(self, fused: Tensor) -> Tensor:
        return fused.chunk(self.count, dim=0)[self.index].clone()

    def shape(self, fused: tuple[int, ...]) -> tuple[int, ...]:
        return (*(-(-rows // self.count) for rows in fused[:1]), *fused[1:])


@dataclass(frozen=True)
class Fused:
    """A published tensor that holds several in-tree ones, by their names."""

    published: str
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class WeightRules:
    """All rules of a checkpoint; the first that matches holds, those of fused tensors before those that rename.
    `unused` are names of tensors that a checkpoint has and nothing computes with."""

    renames: tuple[Rename, ...] = ()
    fused: tuple[Fused, ...] = ()
    unused: tuple[str, ...] = ()

    def __or__(self, other: "WeightRules") -> "WeightRules":
        return WeightRules((*self.renames, *other.renames), (*self.fused, *other.fused), (*self.unused, *other.unused))

    def is_unused(self, published: str) -> bool:
        """Whether a published tensor is one that nothing computes with."""
        return any(rename(published, pattern, pattern) for pattern in self.unused)

    def in_tree(self, published: str) -> Mapping[str, Part | None]:
        """The in-tree tensors that a published one makes, whole (None) or a part of it; none if it has no place."""
        for fused in self.fused:
            if rename(published, fused.published, fused.published):
                return {rename(published, fused.published, name) or "": part for name, part in fused.parts.items()}
        renamed = first_rename(published, self.renames)
        return {renamed: None} if renamed else {}

    def published(self, in_tree: str) -> str | None:
        """What a checkpoint calls an in-tree tensor, or the one that it is a part of."""
        fused = ((name, rule.published) for rule in self.fused for name in rule.parts)
        return first_rename(in_tree, (*fused, *((b, a) for a, b in self.renames)))


def first_rename(name: str, rules: Iterable[Rename]) -> str | None:
    """The name by the first rule that matches."""
    return next((new for a, b in rules if (new := rename(name, a, b))), None)


def rename(name: str, pattern: str, replacement: str) -> str | None:
    """The replacement with what the pattern's places hold in the name; None where the pattern does not match."""
    match = _compiled(pattern).fullmatch(name)
    return replacement.format(**match.groupdict()) if match else None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{rest\}", r"(?P<rest>.+)"))
