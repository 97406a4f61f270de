"""What is learned in one piece: questions, answers, and what they refer to."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.naming import Items

SEG = "[SEG]"


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; `targets` numbers the object of each `[SEG]` of the answer, `about` the objects
    that an answer without `[SEG]` speaks of, and `spells` is what it reads out, character by character."""

    question: str
    answer: str
    targets: tuple[int, ...] = ()
    about: tuple[int, ...] = ()
    spells: str = ""


@dataclass(frozen=True)
class Turn(Exchange):
    """An exchange, what was said before it, and the regions that it speaks of (the image tokens that each covers).
    `kind` names the writer."""

    history: tuple[Exchange, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()
    kind: str = ""


Writer = Callable[[Items, random.Random], Turn | None]
"""Writes a turn about the objects of a scene, or None where the scene does not offer one."""
