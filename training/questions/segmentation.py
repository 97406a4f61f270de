"""Requests for masks: one object, two, all of a kind, and what is not there."""

import random
from dataclasses import replace

from sa2va_bento.model.chat_template import SEG
from training.data.shapes import COLORS, SHAPES
from training.questions import templates
from training.questions.referring import (
    Item,
    Items,
    in_order,
    matching,
    name_by_place,
    name_by_size,
    name_by_words,
    noun,
    one,
    told_apart,
)
from training.questions.templates import ask, listed, vary
from training.questions.turns import Turn, names_of


def refer(items: Items, rng: random.Random) -> Turn | None:
    """One object, by colour and shape or by either."""
    item = rng.choice(items)
    return _segment_one(item, name_by_words(item, items, rng), rng)


def refer_by_size(items: Items, rng: random.Random) -> Turn | None:
    item = rng.choice(items)
    return _segment_one(item, name_by_size(item, items, rng), rng)


def refer_by_place(items: Items, rng: random.Random) -> Turn | None:
    item = rng.choice(items)
    return _segment_one(item, name_by_place(item, items, rng), rng)


def _segment_one(item: Item, name: str | None, rng: random.Random) -> Turn | None:
    if name is None:
        return None
    if rng.random() < 0.85:
        return Turn(ask(templates.SEGMENT, name, rng), f"Sure, {SEG}.", (item.number,), names=names_of((name, item)))
    return Turn(ask(templates.LOCATE, name, rng), f"It is {SEG}.", (item.number,), names=names_of((name, item)))


def segment_everything(items: Items, rng: random.Random) -> Turn | None:
    """All objects, or all but one that is named."""
    if len(items) < 2 or rng.random() < 0.5:
        return _list_all(vary(rng.choice(templates.SEGMENT_EVERYTHING), rng), items)
    spared = rng.choice(items)
    name = name_by_words(spared, items, rng)
    if name is None:
        return None
    turn = _list_all(ask(templates.SEGMENT_BUT, name, rng), [item for item in items if item is not spared])
    return replace(turn, names=names_of((name, spared)))


def _list_all(question: str, items: Items) -> Turn:
    found = in_order(items)
    parts = [f"the {said} {SEG}" for said in told_apart(found)]
    return Turn(question, f"Sure, {listed(parts)}.", tuple(item.number for item in found))


def refer_two(items: Items, rng: random.Random) -> Turn | None:
    """ "the red one and the blue one", in the order of the question."""
    if len(items) < 2:
        return None
    chosen = rng.sample(list(items), 2)
    names = [name_by_words(item, items, rng) for item in chosen]
    if None in names:
        return None
    said = [str(name) for name in names]
    return Turn(
        ask(templates.SEGMENT_TWO, said, rng),
        f"Sure, the {said[0]} {SEG} and the {said[1]} {SEG}.",
        tuple(item.number for item in chosen),
        names=names_of(*zip(said, chosen, strict=True)),
    )


def segment_all(items: Items, rng: random.Random) -> Turn | None:
    """Every object that fits, one `[SEG]` each, after its name: the next one then follows from what has been said."""
    color, shape = rng.choice([(rng.choice(items).color, None), (None, rng.choice(items).shape), (None, None)])
    found = in_order(matching(items, color, shape))
    name, numbers = one(color, shape, rng) + "s", tuple(item.number for item in found)
    question = ask(templates.SEGMENT_ALL, name, rng)
    parts = [f"the {said} {SEG}" for said in told_apart(found)]
    return Turn(question, f"Sure, {listed(parts)}.", numbers, names=((name, numbers),))


def absent(items: Items, rng: random.Random) -> Turn | None:
    """A combination that the scene lacks, often with its colour or its shape there."""
    draw = rng.random()
    missing = [(c, s) for c in COLORS for s in SHAPES if not matching(items, c, s)]
    close = [(c, s) for c, s in missing if matching(items, c, None) and matching(items, None, s)]
    half = [(c, s) for c, s in missing if matching(items, c, None) or matching(items, None, s)]
    color, shape = rng.choice(close if draw < 0.5 and close else half if draw < 0.8 and half else missing)
    return _deny(f"{color} {shape}", rng)


def absent_briefly(items: Items, rng: random.Random) -> Turn | None:
    """A colour or a shape that the scene lacks."""
    names: list[tuple[str | None, str | None]] = [(c, None) for c in COLORS if not matching(items, c, None)]
    names += [(None, s) for s in SHAPES if not matching(items, None, s)]
    return _deny(noun(*rng.choice(names), rng), rng) if names else None


def _deny(name: str, rng: random.Random) -> Turn:
    return Turn(ask(templates.SEGMENT + templates.LOCATE, name, rng), f"There is no {name} in the picture.")
