"""Objects as questions see them, and the ways to name one so that no other is meant.

Sizes and places are only spoken of where they are plain: a margin separates the largest from the next, the leftmost
from the next, a third of the picture from its neighbour.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from training.data.shapes import COLORS, SHAPES

SIZE_MARGIN = 1.4  # of areas
PLACE_MARGIN = 0.08  # of the picture's side
GRID_MARGIN = 0.03


@dataclass(frozen=True)
class Item:
    """One object: `x`, `y` its centre in shares of the picture, `area` of its mask and `extent` of its box likewise;
    `cells` and `box_cells` the image tokens that its mask and its box cover."""

    number: int
    color: str
    shape: str
    x: float
    y: float
    area: float
    extent: float
    cells: tuple[int, ...] = ()
    box_cells: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


Items = Sequence[Item]


def fits(item: Item, color: str | None, shape: str | None) -> bool:
    return color in (None, item.color) and shape in (None, item.shape)


def matching(items: Items, color: str | None, shape: str | None) -> list[Item]:
    return [item for item in items if fits(item, color, shape)]


def in_order(items: Items) -> list[Item]:
    """As answers list them: by colour, then by shape, both in the order of `data/shapes.py`, and only those that are
    alike from left to right. What comes next is then a matter of what is there at all, not of comparing places."""
    return sorted(items, key=lambda item: (COLORS.index(item.color), SHAPES.index(item.shape), item.x))


def told_apart(ordered: Items) -> list[str]:
    """What a list calls each of its objects: by colour and shape, and those alike by which is further left, so that the
    words alone say which one is meant."""
    names = []
    for item in ordered:
        alike = matching(ordered, item.color, item.shape)
        place = "" if len(alike) == 1 else {0: "left ", len(alike) - 1: "right "}.get(alike.index(item), "middle ")
        names.append(f"{place}{item.name}")
    return names


def is_larger(a: Item, b: Item) -> bool:
    """Plainly larger, by its mask as by its box."""
    return a.area > SIZE_MARGIN * b.area and a.extent > b.extent


def noun(color: str | None, shape: str | None, rng: random.Random) -> str:
    """ "red circle", "circle", "red object", "object"; at times "grey", as half the world spells it."""
    color = "grey" if color == "gray" and rng.random() < 0.3 else color
    word = shape or rng.choices(["object", "shape", "thing"], [6, 2, 1])[0]
    return f"{color} {word}" if color else word


def one(color: str | None, shape: str | None, rng: random.Random) -> str:
    """As `noun`, but "the red one" too."""
    return f"{color} one" if color and not shape and rng.random() < 0.2 else noun(color, shape, rng)


def name_by_words(item: Item, items: Items, rng: random.Random) -> str | None:
    """By colour, by shape, by both, or as "the object" where it is alone."""
    options = [
        (color, shape)
        for color, shape in ((item.color, item.shape), (item.color, None), (None, item.shape), (None, None))
        if len(matching(items, color, shape)) == 1
    ]
    if not options:
        return None
    return one(*(options[0] if rng.random() < 0.3 else rng.choice(options)), rng)


def name_by_size(item: Item, items: Items, rng: random.Random) -> str | None:
    """ "largest circle", "smaller red one" among several that the other words fit."""
    color, shape, others = _group(item, items, rng)
    if not others:
        return None
    name = one(color, shape, rng)
    if all(is_larger(item, other) for other in others):
        words = ("larger", "bigger", "large", "big") if len(others) == 1 else ("largest", "biggest")
    elif all(is_larger(other, item) for other in others):
        words = ("smaller", "small") if len(others) == 1 else ("smallest",)
    else:
        return None
    superlative = ("largest", "biggest") if words[0][0] in "lb" else ("smallest",)
    return f"{rng.choice(words if rng.random() < 0.5 else superlative)} {name}"


def name_by_place(item: Item, items: Items, rng: random.Random) -> str | None:
    """ "leftmost circle", "red one on the right" among several that the other words fit."""
    color, shape, others = _group(item, items, rng)
    name = one(color, shape, rng)
    sides = {
        ("leftmost {}", "{} on the left", "left {}"): all(item.x < other.x - PLACE_MARGIN for other in others),
        ("rightmost {}", "{} on the right", "right {}"): all(item.x > other.x + PLACE_MARGIN for other in others),
        ("topmost {}", "{} at the top", "top {}"): all(item.y < other.y - PLACE_MARGIN for other in others),
        ("lowest {}", "{} at the bottom", "bottom {}"): all(item.y > other.y + PLACE_MARGIN for other in others),
    }
    options = [forms for forms, is_so in sides.items() if is_so]
    return rng.choice(rng.choice(options)).format(name) if others and options else None


def _group(item: Item, items: Items, rng: random.Random) -> tuple[str | None, str | None, list[Item]]:
    """Words that fit the item and others, and these others."""
    options = [
        (color, shape, [other for other in matching(items, color, shape) if other is not item])
        for color, shape in ((item.color, item.shape), (item.color, None), (None, item.shape), (None, None))
    ]
    return rng.choice([option for option in options if option[2]] or [(None, None, [])])


def place_words(item: Item) -> str | None:
    """Which ninth of the picture it is in, as "at the top left"; None near a border between two."""
    if any(abs(share - border) < GRID_MARGIN for share in (item.x, item.y) for border in (1 / 3, 2 / 3)):
        return None
    column, row = ("left", "", "right")[int(item.x * 3)], ("top", "", "bottom")[int(item.y * 3)]
    if row:
        return f"at the {row} {column}".strip()
    return f"on the {column}" if column else "in the middle"
