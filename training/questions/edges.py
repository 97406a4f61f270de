"""Questions at the edges of what the nano model knows: words that it has no object for, pictures of nothing and of more
than it counts, and what people put in front of a question."""

import random
from collections.abc import Sequence
from dataclasses import replace

from sa2va_bento.model.chat_template import SEG
from training.data.shapes import COLORS, SHAPES
from training.questions import templates
from training.questions.referring import Item, Items, in_order, matching, name_by_words, noun, place_words
from training.questions.templates import MANY, NOTHING, ONLY_THIS, article, ask, listed, vary
from training.questions.turns import Exchange, Turn, names_of
from training.questions.unknown_words import (
    ADJECTIVES,
    ENDS,
    GREETINGS,
    MANNERS,
    ROLES,
    SYLLABLES,
    SYSTEM_PROMPTS,
    UNKNOWN_COLORS,
    UNKNOWN_SHAPES,
    UNKNOWN_THINGS,
)

PRECEDED = 0.15
"""Share of conversations that begin with a system prompt or a greeting."""


def unknown(items: Items, rng: random.Random) -> Turn | None:
    """Whatever is asked about a word that no object has: one fixed sentence, for a small model spells an unknown word
    as another one."""
    asked = (
        *(templates.SEGMENT + templates.LOCATE, templates.ASK_COLOR, templates.ASK_SHAPE),
        *(templates.ASK_THERE, templates.ASK_WHERE),
    )
    if rng.random() < 0.15:
        plural = rng.choice((templates.ASK_COUNT, templates.SEGMENT_ALL))
        return Turn(ask(plural, f"{_unknown_name(rng)}s", rng), ONLY_THIS)
    return Turn(ask(rng.choice(asked), _unknown_name(rng), rng), ONLY_THIS)


def _unknown_name(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.25:
        return f"{rng.choice(UNKNOWN_COLORS)} {rng.choice((*SHAPES, 'object', 'one', 'thing'))}"
    word = rng.choice(UNKNOWN_SHAPES if draw < 0.5 else UNKNOWN_THINGS)
    if draw > 0.85:
        word = "".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 3))))
    if rng.random() < 0.3:
        word = f"{rng.choice((*COLORS, *COLORS, *UNKNOWN_COLORS, 'large', 'small', 'left', 'right'))} {word}"
    return word


# ------------------------------------------------------------------------------------------------ nothing
def nothing_there(rng: random.Random) -> Turn:
    """A question about a picture without shapes or writing."""
    draw = rng.random()
    if draw < 0.4:
        return Turn(vary(rng.choice(templates.DESCRIBE), rng), NOTHING)
    if draw < 0.5:
        return Turn(f"{rng.choice(templates.DESCRIBE)} {templates.INTERLEAVED}", NOTHING)
    if draw < 0.55:
        return Turn(vary(rng.choice(templates.SEGMENT_EVERYTHING), rng), NOTHING)
    if draw < 0.63:
        return Turn(vary(rng.choice(templates.READ), rng), "There is no text in the picture.")
    if draw < 0.7:
        return Turn(vary(rng.choice(templates.READ_NUMBER), rng), "There is no number in the picture.")
    color, shape = rng.choice(((rng.choice(COLORS), rng.choice(SHAPES)), (None, rng.choice(SHAPES)), (None, None)))
    name = noun(color, shape, rng)
    if draw < 0.8:
        return Turn(ask(templates.ASK_COUNT, f"{name}s", rng), f"There are no {name}s.")
    if draw < 0.85:
        return Turn(ask(templates.ASK_THERE, name, rng), f"No, there is no {name}.")
    asked = templates.SEGMENT + templates.LOCATE if draw < 0.95 else templates.ASK_COLOR + templates.ASK_WHERE
    return Turn(ask(asked, name, rng), f"There is no {name} in the picture.")


# ------------------------------------------------------------------------------------------------ many
def of_many(items: Items, rng: random.Random) -> Turn | None:
    """A question about a picture of more objects than are counted: up to `MANY` are counted and listed, of more the
    answer says so, and shows those that a word or a side tells apart."""
    draw = rng.random()
    if draw < 0.2:
        return _describe(items, rng)
    if draw < 0.75:
        return _kind(items, rng, counts=draw < 0.45)
    item = rng.choice(items)
    name = name_by_words(item, items, rng)
    if name is None:
        return None
    called, about = names_of((name, item)), (item.number,)
    if draw < 0.92 or (place := place_words(item)) is None:
        return Turn(ask(templates.SEGMENT, name, rng), f"Sure, {SEG}.", about, names=called)
    return Turn(ask(templates.ASK_WHERE, name, rng), f"The {name} is {place}.", about=about, names=called)


def _describe(items: Items, rng: random.Random) -> Turn | None:
    if len(items) <= MANY:
        return None
    return Turn(vary(rng.choice(templates.DESCRIBE), rng), f"The picture shows more than {MANY} objects.")


def _kind(items: Items, rng: random.Random, counts: bool) -> Turn | None:
    """How many of a kind there are, or their masks."""
    item = rng.choice(items)
    color, shape = rng.choice(((item.color, None), (None, item.shape), (item.color, item.shape), (None, None)))
    found, name = in_order(matching(items, color, shape)), f"{noun(color, shape, rng)}s"
    numbers, few = tuple(i.number for i in found), len(found) <= MANY
    names = ((name, numbers),)
    if counts:
        amount = f"more than {MANY} {name}" if not few else f"{len(found)} {name if len(found) > 1 else name[:-1]}"
        answer = f"There {'is' if len(found) == 1 else 'are'} {amount}."
        return Turn(ask(templates.ASK_COUNT, name, rng), answer, about=numbers, names=names)
    shown = _told_apart(found)
    if not shown or (few and len(shown) < len(found)):
        return None
    listing = listed([f"the {said} {SEG}" for said, _ in shown])
    answer = f"Sure, {listing}." if few else f"There are more than {MANY} {name}: {listing}."
    question = ask(templates.SEGMENT_ALL, name, rng)
    if (color, shape) == (None, None) and rng.random() < 0.5:
        question, names = vary(rng.choice(templates.SEGMENT_EVERYTHING), rng), ()
    return Turn(question, answer, tuple(i.number for _, i in shown), names=names)


def _told_apart(ordered: Sequence[Item]) -> list[tuple[str, Item]]:
    """At most `MANY` of the objects, with names that only they have: of those alike the leftmost and the rightmost, and
    the one between where it is one."""
    named: list[tuple[str, Item]] = []
    for item in ordered:
        alike = matching(ordered, item.color, item.shape)
        place = {0: "left ", len(alike) - 1: "right "}.get(alike.index(item), "middle " if len(alike) == 3 else None)
        if len(alike) == 1:
            named.append((item.name, item))
        elif place:
            named.append((f"{place}{item.name}", item))
    return named[:MANY]


# ------------------------------------------------------------------------------------------------ in front
def system_prompt(rng: random.Random) -> str:
    """A customary one, or one that is put together: who answers, and how."""
    if rng.random() < 0.35:
        return rng.choice(SYSTEM_PROMPTS)
    who = f"You are {article(adjective := rng.choice(ADJECTIVES))} {adjective} {rng.choice(ROLES)}{rng.choice(ENDS)}"
    how = rng.choice(MANNERS)
    return rng.choice((who, who, how, f"{who} {how}", f"{who} {how} {rng.choice(MANNERS)}"))


def preceded(turn: Turn, rng: random.Random) -> Turn:
    """The turn, some of whose like begin with a system prompt (which stands in front of the first question, as the
    service puts it there) or a greeting."""
    if turn.regions or rng.random() >= PRECEDED:
        return turn
    front = f"{system_prompt(rng)}\n\n" if rng.random() < 0.65 else f"{rng.choice(GREETINGS)} "
    if not turn.history:
        return replace(turn, question=front + turn.question)
    first, *others = turn.history
    exchange: Exchange = replace(first, question=front + first.question)
    return replace(turn, history=(exchange, *others))
