"""What the nano model is asked about a scene, and how often."""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from training.questions import templates
from training.questions.edges import nothing_there, of_many, unknown
from training.questions.multi_turn import and_the_other, follow_up
from training.questions.referring import Items
from training.questions.segmentation import (
    absent,
    absent_briefly,
    refer,
    refer_by_place,
    refer_by_size,
    refer_two,
    segment_all,
    segment_everything,
)
from training.questions.templates import vary
from training.questions.turns import Turn, Writer
from training.questions.visual_prompts import name_regions
from training.questions.vqa import (
    ask_color,
    ask_count,
    ask_extreme,
    ask_missing,
    ask_shape,
    ask_there,
    ask_where,
    ask_whether,
    compare_places,
    compare_sizes,
    describe,
    describe_grounded,
)


def chat(items: Items, rng: random.Random) -> Turn | None:
    """Greetings, what it is, and what it does not know."""
    draw = rng.random()
    if draw < 0.4:
        return small_talk(rng)
    return Turn(vary(rng.choice(templates.OUT_OF_SCOPE), rng), templates.ONLY_THIS)


def small_talk(rng: random.Random) -> Turn:
    answer, questions = rng.choice(list(templates.CHAT.items()))
    return Turn(vary(rng.choice(questions), rng), answer)


def nothing_to_read(items: Items, rng: random.Random) -> Turn | None:
    if rng.random() < 0.5:
        return Turn(vary(rng.choice(templates.READ), rng), "There is no text in the picture.")
    return Turn(vary(rng.choice(templates.READ_NUMBER), rng), "There is no number in the picture.")


MIX: tuple[tuple[Writer, float], ...] = (
    (refer, 1.6),
    (refer_by_size, 2.6),
    (refer_by_place, 2.6),
    (refer_two, 0.8),
    (segment_all, 3.0),
    (absent, 1.0),
    (absent_briefly, 0.2),
    (ask_color, 0.4),
    (ask_shape, 0.4),
    (ask_missing, 0.2),
    (ask_count, 4.0),
    (ask_there, 0.5),
    (ask_whether, 0.3),
    (ask_where, 1.6),
    (compare_sizes, 3.0),
    (ask_extreme, 0.4),
    (compare_places, 0.8),
    (describe, 1.6),
    (describe_grounded, 4.0),
    (name_regions, 2.0),
    (follow_up, 1.2),
    (and_the_other, 0.4),
    (nothing_to_read, 0.2),
    (segment_everything, 1.4),
    (unknown, 0.8),
    (chat, 0.15),
)

CLIP_MIX: tuple[tuple[Writer, float], ...] = (
    (refer, 4.0),
    (refer_by_size, 0.5),
    (refer_by_place, 0.5),
    (refer_two, 0.5),
    (segment_all, 0.7),
    (absent, 1.2),
    (absent_briefly, 0.3),
    (ask_color, 0.7),
    (ask_shape, 0.7),
    (ask_count, 0.7),
    (ask_there, 0.4),
    (ask_where, 0.5),
    (describe, 0.5),
    (describe_grounded, 0.7),
    (follow_up, 0.5),
    (unknown, 0.3),
    (chat, 0.1),
)
MANY_MIX: tuple[tuple[Writer, float], ...] = ((of_many, 8.0), (absent, 1.0), (unknown, 0.4))


def draw_turns(
    mix: Sequence[tuple[Callable[..., Turn | None], float]], turns: int, rng: random.Random, *about: Any
) -> list[Turn]:
    """`turns` independent questions about one picture, by writers that take `about` and `rng`."""
    writers, weights = zip(*mix, strict=True)
    written: list[Turn] = []
    while len(written) < turns:
        writer = rng.choices(writers, weights)[0]
        turn = writer(*about, rng)
        if turn is not None:
            written.append(replace(turn, kind=writer.__name__))
    return written


def conversation(items: Items, rng: random.Random, turns: int) -> list[Turn]:
    """`turns` independent questions about one scene."""
    return draw_turns(MIX, turns, rng, items)


def crowd_conversation(items: Items, rng: random.Random, turns: int) -> list[Turn]:
    """`turns` independent questions about a scene of many objects."""
    return draw_turns(MANY_MIX, turns, rng, items)


def blank_conversation(rng: random.Random, turns: int) -> list[Turn]:
    """`turns` independent questions about a picture that shows nothing that the model knows."""
    asked = (unknown((), rng) if rng.random() < 0.15 else nothing_there(rng) for _ in range(turns))
    return [replace(turn, kind="blank") for turn in asked if turn]


def clip_conversation(items: Items, rng: random.Random, turns: int) -> list[Turn]:
    """`turns` independent questions about a clip, some of which call it so."""
    return [_in_the_video(turn, rng) for turn in draw_turns(CLIP_MIX, turns, rng, items)]


def _in_the_video(turn: Turn, rng: random.Random) -> Turn:
    name = rng.choice(["video", "clip", "video", None])
    question = re.sub("image|picture", name, turn.question) if name else turn.question
    return replace(turn, question=question, kind=f"clip_{turn.kind}")


def without_picture(items: Items, rng: random.Random, turns: int) -> list[Turn]:
    """Questions that come without a picture: small talk is answered, anything about objects asks for one."""
    written = conversation(items, rng, turns - turns // 2)
    asked = [Turn(t.question, templates.NO_PICTURE, kind="no_picture") for t in written if t.kind != "chat"]
    asked = [turn for turn, source in zip(asked, written, strict=False) if not source.regions]
    return [*asked, *(replace(small_talk(rng), kind="chat") for _ in range(turns // 2))]
