"""Questions that need more than the picture: marked regions, or what was said before."""

import random
import re

from sa2va_bento.model.chat_template import SEG
from training.data.shapes import COLORS
from training.questions import templates
from training.questions.referring import Item, Items, name_by_place, name_by_size, name_by_words, place_words
from training.questions.segmentation import refer
from training.questions.templates import ask, vary
from training.questions.turns import Exchange, Names, Turn, names_of
from training.questions.vqa import ask_color, ask_count, ask_shape, ask_where

IT = re.compile(r"\b(its|it)\b", re.IGNORECASE)


def follow_up(items: Items, rng: random.Random) -> Turn | None:
    """A question about what was just spoken of."""
    item = rng.choice(items)
    first = _about(item, items, rng)
    if first is None:
        return None
    said = _before(first)
    options: list[tuple[tuple[str, ...], str, tuple[int, ...]]] = [
        (("And its color?", "and its color?", "What color is it?", "Which color?"), f"It is {item.color}.", ()),
        (("And its shape?", "and its shape?", "What shape is it?", "Which shape?"), f"It is a {item.shape}.", ()),
        (("Please segment it.", "Can you segment it?", "Segment it."), f"Sure, {SEG}.", (item.number,)),
    ]
    place = place_words(item)
    if place:
        options.append((("And where is it?", "Where is it?"), f"It is {place}.", ()))
    color = item.color if rng.random() < 0.5 else rng.choice([c for c in COLORS if c != item.color])
    verdict = "Yes" if color == item.color else "No"
    options.append(((f"Is it {color}?",), f"{verdict}, it is {item.color}.", ()))
    questions, answer, targets = rng.choice(options)
    question = vary(rng.choice(questions), rng)
    return Turn(question, answer, targets, (item.number,), names=_it(question, item), history=(said,))


def _it(question: str, item: Item) -> Names:
    """The pronoun of a question that has one."""
    found = IT.search(question)
    return names_of((found[0], item)) if found else ()


def _before(turn: Turn) -> Exchange:
    """A turn as what was said before another."""
    return Exchange(turn.question, turn.answer, turn.targets, turn.about, names=turn.names)


def _about(item: Item, items: Items, rng: random.Random) -> Turn | None:
    """A first question about the item."""
    name = rng.choice([name_by_words, name_by_words, name_by_size, name_by_place])(item, items, rng)
    if name is None:
        return None
    place, called, about = place_words(item), names_of((name, item)), (item.number,)
    options = [
        Turn(ask(templates.SEGMENT, name, rng), f"Sure, {SEG}.", about, names=called),
        Turn(ask(templates.SEGMENT, name, rng), f"Sure, {SEG}.", about, names=called),
        Turn(ask(templates.ASK_COLOR, name, rng), f"The {name} is {item.color}.", about=about, names=called),
        Turn(ask(templates.ASK_SHAPE, name, rng), f"The {name} is a {item.shape}.", about=about, names=called),
    ]
    if place:
        options.append(Turn(ask(templates.ASK_WHERE, name, rng), f"The {name} is {place}.", about=about, names=called))
    return rng.choice([option for option in options if option.answer.rstrip(".").split()[-1] not in name.split()])


def and_the_other(items: Items, rng: random.Random) -> Turn | None:
    """ "What color is the circle?" ... "And the square?" """
    writer = rng.choice([ask_color, ask_shape, ask_where, ask_count, refer])
    first, second = writer(items, rng), writer(items, rng)
    if first is None or second is None or first.question == second.question:
        return None
    name = _topic(second)
    if name is None:
        return None
    question = vary(rng.choice(["And the {}?", "and the {}?", "What about the {}?"]).format(name), rng)
    numbers = second.targets or second.about
    names = ((name, numbers),) if numbers else ()
    return Turn(question, second.answer, second.targets, second.about, names=names, history=(_before(first),))


def _topic(turn: Turn) -> str | None:
    """What an answer speaks of: "The circle is red." speaks of "circle"."""
    for start, end in (("The ", " is "), ("There are ", "."), ("There is 1 ", ".")):
        if turn.answer.startswith(start) and end in turn.answer:
            words = turn.answer.removeprefix(start).split(end)[0].split()
            topic = " ".join(word for word in words if not word.isdigit() and word != "no")
            return topic if start != "There is 1 " else f"{topic}s"
    return None
