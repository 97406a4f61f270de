"""Questions and answers about what is written in a picture."""

import random
from collections.abc import Callable

from training.data.shapes import COLORS, SHAPES
from training.questions import templates
from training.questions.task_mix import draw_turns, small_talk
from training.questions.templates import ask, vary
from training.questions.turns import Turn
from training.questions.vqa import count_words

ReadingWriter = Callable[[str, bool, random.Random], Turn | None]


def read(text: str, by_hand: bool, rng: random.Random) -> Turn | None:
    """All of it, as a text or, where it is one, as a number."""
    if text.isdigit() and rng.random() < (0.8 if by_hand else 0.4):
        return Turn(vary(rng.choice(templates.READ_NUMBER), rng), f"The number is {text}.", spells=text)
    return Turn(vary(rng.choice(templates.READ), rng), f'The text is "{text}".', spells=text)


def count_characters(text: str, by_hand: bool, rng: random.Random) -> Turn | None:
    name = rng.choice(["character", "digit"]) if text.isdigit() else "character"
    name = "letter" if text.isalpha() and rng.random() < 0.5 else name
    return Turn(ask(templates.ASK_COUNT, f"{name}s", rng), count_words(len(text), name))


def first_or_last(text: str, by_hand: bool, rng: random.Random) -> Turn | None:
    word, character = rng.choice([("first", text[0]), ("last", text[-1])])
    name = "digit" if text.isdigit() and rng.random() < 0.5 else "character"
    return Turn(vary(f"What is the {word} {name}?", rng), f'The {word} {name} is "{character}".')


def hand_or_print(text: str, by_hand: bool, rng: random.Random) -> Turn | None:
    said = "handwritten" if by_hand else "printed"
    questions = ("Is it handwritten or printed?", "Is the text printed or handwritten?")
    return Turn(vary(rng.choice(questions), rng), f"It is {said}.")


def no_such_object(text: str, by_hand: bool, rng: random.Random) -> Turn | None:
    """Shapes, where there is only writing."""
    color, shape = rng.choice(COLORS), rng.choice(SHAPES)
    name = rng.choice([shape, f"{color} {shape}"])
    if rng.random() < 0.3:
        return Turn(ask(templates.ASK_COUNT, f"{shape}s", rng), count_words(0, shape))
    return Turn(ask(templates.SEGMENT, name, rng), f"There is no {name} in the picture.")


def describe_writing(text: str, by_hand: bool, rng: random.Random) -> Turn | None:
    what = f"the handwritten number {text}" if by_hand else f'the text "{text}"'
    return Turn(vary(rng.choice(templates.DESCRIBE), rng), f"The picture shows {what}.", spells=text)


def chat_on(text: str, by_hand: bool, rng: random.Random) -> Turn | None:
    return small_talk(rng)


MIX: tuple[tuple[ReadingWriter, float], ...] = (
    (read, 6.0),
    (count_characters, 0.5),
    (first_or_last, 0.8),
    (hand_or_print, 0.3),
    (no_such_object, 0.6),
    (describe_writing, 0.7),
    (chat_on, 0.05),
)


def conversation(text: str, by_hand: bool, rng: random.Random, turns: int) -> list[Turn]:
    """`turns` independent questions about one piece of writing; the first asks to read it."""
    first = draw_turns(MIX[:1], 1, rng, text, by_hand)
    return first + draw_turns(MIX, turns - 1, rng, text, by_hand)
