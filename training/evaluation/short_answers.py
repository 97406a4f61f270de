"""Questions of the evaluation that a word or two answer, each with what makes an answer right."""

import random
from collections.abc import Callable

from training.data.shapes import BASIC, COLORS, SHAPES
from training.evaluation.scoring import PLACE_WORDS, numbers_in, words_in
from training.questions.referring import Items, is_larger, matching, name_by_words, place_words

Asked = tuple[str, Callable[[str], bool]]


def _color(items: Items, rng: random.Random) -> Asked | None:
    unique = [item for item in items if len(matching(items, None, item.shape)) == 1]
    if not unique:
        return None
    item = rng.choice(unique)
    return f"What color is the {item.shape}?", lambda text: words_in(text, COLORS) == {item.color}


def _shape(items: Items, rng: random.Random) -> Asked | None:
    unique = [item for item in items if len(matching(items, item.color, None)) == 1]
    if not unique:
        return None
    item = rng.choice(unique)
    return f"What shape is the {item.color} object?", lambda text: words_in(text, SHAPES) == {item.shape}


def _count(items: Items, rng: random.Random) -> Asked:
    item = rng.choice(list(items))
    color, shape = (
        (item.color, item.shape) if rng.random() < 5 / 6 else (rng.choice(BASIC.colors), rng.choice(BASIC.shapes))
    )
    noun, found = rng.choice(
        [
            (f"{shape}s", matching(items, None, shape)),
            (f"{shape}s", matching(items, None, shape)),
            (f"{color} objects", matching(items, color, None)),
            ("objects", items),
        ]
    )
    return f"How many {noun} are there?", lambda text: numbers_in(text) == {len(found)}


def _where(items: Items, rng: random.Random) -> Asked | None:
    item = rng.choice(list(items))
    name, place = name_by_words(item, items, rng), place_words(item)
    if name is None or place is None:
        return None
    return f"Where is the {name}?", lambda text: words_in(text, PLACE_WORDS) == words_in(place, PLACE_WORDS)


def _compare(items: Items, rng: random.Random) -> Asked | None:
    if len(items) < 2:
        return None
    a, b = rng.sample(list(items), 2)
    names = [name_by_words(item, items, rng) for item in (a, b)]
    if None in names or not (is_larger(a, b) or is_larger(b, a)):
        return None
    word = rng.choice(["larger", "smaller"])
    a_is_it = is_larger(a, b) == (word == "larger")
    if rng.random() < 0.5:
        return f"Is the {names[0]} {word} than the {names[1]}?", _says(a_is_it)
    winner = str(names[0] if a_is_it else names[1])
    return f"Which is {word}, the {names[0]} or the {names[1]}?", lambda text: f"the {winner} is" in text.lower()


def _yes_or_no(items: Items, rng: random.Random) -> Asked:
    item = rng.choice(list(items))
    if rng.random() < 0.5:
        return f"Is there a {item.color} {item.shape}?".replace(" a o", " an o"), _says(True)
    missing = [(c, s) for c in BASIC.colors for s in BASIC.shapes if not matching(items, c, s)]
    close = [(c, s) for c, s in missing if matching(items, c, None) or matching(items, None, s)]
    color, shape = rng.choice(close or missing)
    return f"Is there a {color} {shape}?".replace(" a o", " an o"), _says(False)


def _says(yes: bool) -> Callable[[str], bool]:
    return lambda text: text.lower().startswith("yes" if yes else "no")


SHORT_ANSWERS: dict[str, Callable[[Items, random.Random], Asked | None]] = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "where": _where,
    "compare": _compare,
    "yes_or_no": _yes_or_no,
}
"""Kinds of these questions, and what asks them."""
