"""What is learned in one piece: questions, answers, and what they refer to."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.questions.referring import Item, Items

Names = tuple[tuple[str, tuple[int, ...]], ...]
"""Words of a question and the numbers of the objects that they mean, in the order of the question."""


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; `targets` numbers the object of each `[SEG]` of the answer, `about` the objects
    that an answer without `[SEG]` speaks of, `lists` those that it names one after the other, `spells` is what it reads
    out, character by character, and `names` are the question's."""

    question: str
    answer: str
    targets: tuple[int, ...] = ()
    about: tuple[int, ...] = ()
    lists: tuple[int, ...] = ()
    spells: str = ""
    names: Names = ()


@dataclass(frozen=True)
class Turn(Exchange):
    """An exchange, what was said before it, and the regions that it speaks of (the image tokens that each covers, and
    the number of the object in it). `kind` names the writer."""

    history: tuple[Exchange, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()
    shown: tuple[int, ...] = ()
    kind: str = ""


Writer = Callable[[Items, random.Random], Turn | None]
"""Writes a turn about the objects of a scene, or None where the scene does not offer one."""


def names_of(*said: tuple[str, Item]) -> Names:
    """What a question calls single objects."""
    return tuple((name, (item.number,)) for name, item in said)
