"""Questions about a scene that are answered in words, or in words and masks."""

import random

from sa2va_bento.model.chat_template import PHRASE_END, PHRASE_START, SEG
from training.data.shapes import COLORS, SHAPES
from training.questions import templates
from training.questions.referring import (
    PLACE_MARGIN,
    Item,
    Items,
    in_order,
    is_larger,
    matching,
    name_by_place,
    name_by_size,
    name_by_words,
    noun,
    one,
    place_words,
    told_apart,
)
from training.questions.segmentation import absent, absent_briefly
from training.questions.templates import article, ask, listed, vary
from training.questions.turns import Turn, names_of


def _count(items: Items, color: str | None, shape: str | None) -> int:
    return len(matching(items, color, shape))


def _about(item: Item, name: str, question: str, answer: str) -> Turn:
    """A turn about one object, which the question calls by the name."""
    return Turn(question, answer, about=(item.number,), names=names_of((name, item)))


def ask_color(items: Items, rng: random.Random) -> Turn | None:
    item = rng.choice(items)
    if _count(items, None, item.shape) == 1:
        name = "object" if len(items) == 1 and rng.random() < 0.2 else item.shape
    else:
        found = rng.choice([name_by_size, name_by_place])(item, items, rng)
        if found is None or item.color in found.replace("grey", "gray"):
            return None
        name = found
    return _about(item, name, ask(templates.ASK_COLOR, name, rng), f"The {name} is {item.color}.")


def ask_shape(items: Items, rng: random.Random) -> Turn | None:
    item = rng.choice(items)
    if _count(items, item.color, None) == 1:
        name = one(None if len(items) == 1 and rng.random() < 0.2 else item.color, None, rng)
    else:
        found = rng.choice([name_by_size, name_by_place])(item, items, rng)
        if found is None or item.shape in found:
            return None
        name = found
    return _about(item, name, ask(templates.ASK_SHAPE, name, rng), f"The {name} is a {item.shape}.")


def ask_missing(items: Items, rng: random.Random) -> Turn | None:
    """The colour or the place of a shape, or the shape of a colour, that is not there."""
    if rng.random() < 0.5:
        names = [shape for shape in SHAPES if not _count(items, None, shape)]
        questions = templates.ASK_COLOR if rng.random() < 0.6 else templates.ASK_WHERE
    else:
        names, questions = [f"{c} object" for c in COLORS if not _count(items, c, None)], templates.ASK_SHAPE
    if not names:
        return None
    name = rng.choice(names)
    return Turn(ask(questions, name, rng), f"There is no {name} in the picture.")


def ask_count(items: Items, rng: random.Random) -> Turn | None:
    """Of a shape, of a colour, of both, or of everything; at times of what is not there."""
    item = rng.choice(items)
    color, shape = (item.color, item.shape) if rng.random() < 0.85 else (rng.choice(COLORS), rng.choice(SHAPES))
    options: list[tuple[str | None, str | None]] = [
        (None, shape),
        (None, shape),
        (color, None),
        (color, shape),
        (None, None),
        (None, None),
    ]
    color, shape = rng.choice(options)
    name, found = noun(color, shape, rng), _numbers(matching(items, color, shape))
    names = ((name + "s", found),) if found else ()
    return Turn(ask(templates.ASK_COUNT, name + "s", rng), count_words(len(found), name), about=found, names=names)


def _numbers(items: Items) -> tuple[int, ...]:
    return tuple(item.number for item in items)


def count_words(count: int, name: str) -> str:
    return {0: f"There are no {name}s.", 1: f"There is 1 {name}."}.get(count, f"There are {count} {name}s.")


def ask_there(items: Items, rng: random.Random) -> Turn | None:
    """Yes or no, evenly."""
    if rng.random() < 0.5:
        item = rng.choice(items)
        name = rng.choice([item.name, item.name, item.shape, f"{item.color} object"])
        return _about(item, name, ask(templates.ASK_THERE, name, rng), f"Yes, there is {article(name)} {name}.")
    turn = absent(items, rng) if rng.random() < 0.6 else absent_briefly(items, rng)
    if turn is None:
        return None
    name = turn.answer.removeprefix("There is no ").removesuffix(" in the picture.")
    return Turn(ask(templates.ASK_THERE, name, rng), f"No, there is no {name}.")


def ask_whether(items: Items, rng: random.Random) -> Turn | None:
    """ "Is the circle red?" about the only circle; "Is the red object a circle?" about the only red one."""
    item = rng.choice(items)
    if rng.random() < 0.5 and _count(items, None, item.shape) == 1:
        color = item.color if rng.random() < 0.5 else rng.choice([c for c in COLORS if c != item.color])
        answer = "Yes" if color == item.color else "No"
        question = vary(f"Is the {item.shape} {color}?", rng)
        return _about(item, item.shape, question, f"{answer}, the {item.shape} is {item.color}.")
    if _count(items, item.color, None) != 1:
        return None
    shape = item.shape if rng.random() < 0.5 else rng.choice([s for s in SHAPES if s != item.shape])
    answer, name = "Yes" if shape == item.shape else "No", one(item.color, None, rng)
    return _about(item, name, vary(f"Is the {name} a {shape}?", rng), f"{answer}, the {name} is a {item.shape}.")


def ask_where(items: Items, rng: random.Random) -> Turn | None:
    item = rng.choice(items)
    name, place = name_by_words(item, items, rng), place_words(item)
    if name is None or place is None:
        return None
    return _about(item, name, ask(templates.ASK_WHERE, name, rng), f"The {name} is {place}.")


def compare_sizes(items: Items, rng: random.Random) -> Turn | None:
    """Which of two is larger or smaller."""
    if len(items) < 2:
        return None
    a, b = rng.sample(list(items), 2)
    names = [name_by_words(item, items, rng) for item in (a, b)]
    if None in names or not (is_larger(a, b) or is_larger(b, a)):
        return None
    both, (first, second) = _numbers([a, b]), (str(name) for name in names)
    called = names_of((first, a), (second, b))
    a_is = "larger" if is_larger(a, b) else "smaller"
    word = rng.choice(["larger", "smaller"])
    said = word if word == "smaller" or rng.random() < 0.7 else "bigger"
    if rng.random() < 0.5:
        answer = "Yes" if word == a_is else "No"
        question = vary(f"Is the {first} {said} than the {second}?", rng)
        return Turn(question, f"{answer}, the {first} is {a_is}.", about=both, names=called)
    winner = first if word == a_is else second
    question = vary(f"Which is {said}, the {first} or the {second}?", rng)
    return Turn(question, f"The {winner} is {word}.", about=both, names=called)


def ask_extreme(items: Items, rng: random.Random) -> Turn | None:
    """ "Which object is the largest?" """
    largest = [a for a in items if all(is_larger(a, b) for b in items if b is not a)]
    smallest = [a for a in items if all(is_larger(b, a) for b in items if b is not a)]
    word, found = rng.choice([("largest", largest), ("smallest", smallest)])
    if len(items) < 2 or not found:
        return None
    question = rng.choice(["Which object is the {}?", "What is the {} object?", "Which one is the {}?"]).format(word)
    return _about(found[0], word, vary(question, rng), f"The {found[0].name} is the {word}.")


def compare_places(items: Items, rng: random.Random) -> Turn | None:
    """ "Is the red circle to the left of the blue square?" """
    if len(items) < 2:
        return None
    a, b = rng.sample(list(items), 2)
    names = [name_by_words(item, items, rng) for item in (a, b)]
    across, down = a.x - b.x, a.y - b.y
    gap, pair = rng.choice([(across, ("to the left of", "to the right of")), (down, ("above", "below"))])
    if None in names or abs(gap) < PLACE_MARGIN:
        return None
    asked, actual = rng.choice(pair), pair[int(gap > 0)]
    answer = "Yes" if asked == actual else "No"
    return Turn(
        vary(f"Is the {names[0]} {asked} the {names[1]}?", rng),
        f"{answer}, the {names[0]} is {actual} the {names[1]}.",
        about=_numbers([a, b]),
        names=names_of((str(names[0]), a), (str(names[1]), b)),
    )


def describe(items: Items, rng: random.Random) -> Turn | None:
    ordered = in_order(items)
    names = [f"{article(item.name)} {item.name}" for item in ordered]
    return Turn(
        vary(rng.choice(templates.DESCRIBE), rng), f"The picture shows {listed(names)}.", lists=_numbers(ordered)
    )


def describe_grounded(items: Items, rng: random.Random) -> Turn | None:
    ordered = in_order(items)
    names = zip(told_apart(ordered), ordered, strict=True)
    parts = [
        f"{PHRASE_START} {article(name) if name == item.name else 'the'} {name} {PHRASE_END} {SEG}"
        for name, item in names
    ]
    targets = tuple(item.number for item in ordered)
    return Turn(f"{rng.choice(templates.DESCRIBE)} {templates.INTERLEAVED}", f"{listed(parts)}.", targets)
