"""Questions about marked regions of a picture."""

import random
from dataclasses import replace

from sa2va_bento.model.chat_template import SEG
from training.questions.referring import Item, Items
from training.questions.templates import article, ask, listed, vary
from training.questions.turns import Turn, names_of

REGIONS = (1, 2, 2, 3, 3)  # how many are marked; one is drawn


def name_regions(items: Items, rng: random.Random) -> Turn | None:
    """ "What is region2?", or all of them one after the other."""
    chosen = rng.sample(list(items), min(len(items), rng.choice(REGIONS)))
    names = [f"region{number} is {article(item.name)} {item.name}" for number, item in enumerate(chosen, start=1)]
    if rng.random() < 0.25:
        question = rng.choice(["Please describe each region.", "What are the regions?", "What is in each region?"])
        turn = Turn(vary(question, rng), f"{listed(names).capitalize()}.", lists=tuple(i.number for i in chosen))
    else:
        number = rng.randrange(len(chosen))
        turn = _of_region(f"region{number + 1}", chosen[number], names[number], rng)
    return replace(
        turn,
        regions=tuple(item.box_cells if rng.random() < 0.5 else item.cells for item in chosen),
        shown=tuple(item.number for item in chosen),
    )


def _of_region(name: str, item: Item, answer: str, rng: random.Random) -> Turn:
    """A question about one region; `answer` says what it is."""
    draw, called = rng.random(), names_of((name, item))
    if draw < 0.13:
        question = ask(("Please segment {}.", "Can you segment {}?"), name, rng)
        return Turn(question, f"Sure, {SEG}.", (item.number,), names=called)
    templates = ("What is {}?", "What is in {}?", "Please describe {}.", "Describe {}.")
    if draw < 0.3:
        templates, answer = ("What color is {}?",), f"{name} is {item.color}"
    elif draw < 0.45:
        templates, answer = ("What shape is {}?",), f"{name} is a {item.shape}"
    return Turn(ask(templates, name, rng), f"{answer.capitalize()}.", about=(item.number,), names=called)
