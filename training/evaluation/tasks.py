"""What a nano model is asked when it is measured, and how its answers are marked.

Each function makes one question about a held-out picture, or None where the picture does not offer one. The wordings
are few and plain: the customary Sa2VA prompts and everyday ones. The truth comes from the scene, not from a model.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from sa2va_bento.model.chat_template import SEG
from sa2va_bento.types import Prediction
from training.data.scenes import Scene
from training.data.shapes import BASIC, COLORS, SHAPES
from training.data.writing import Writing
from training.evaluation.scoring import PLACE_WORDS, mask_iou, matched, united, words_in
from training.evaluation.short_answers import SHORT_ANSWERS
from training.questions.referring import (
    Item,
    matching,
    name_by_place,
    name_by_size,
    name_by_words,
    place_words,
)
from training.questions.templates import INTERLEAVED

SEGMENT = ("Please segment the {}.", "Can you segment the {} in this image?", "Find the {}.")

Marks = dict[str, float]
"""How right an answer is, by figure, 0 to 1."""


@dataclass(frozen=True)
class Question:
    """A prompt about a picture. `before` is an earlier question of the same conversation, answered by the model itself;
    `kind` tells questions of one task apart."""

    task: str
    kind: str
    image: Image.Image
    prompt: str
    mark: Callable[[Prediction], Marks]
    regions: tuple[np.ndarray, ...] = ()
    before: str | None = None


def items_of(scene: Scene) -> list[Item]:
    """The objects of a scene, sizes and places in shares of the picture."""
    height, width = scene.labels.shape
    found = []
    for number, thing in enumerate(scene.things):
        rows, columns = np.nonzero(scene.mask(number))
        extent = float((np.ptp(rows) + 1) * (np.ptp(columns) + 1)) / (height * width)
        x, y = float(columns.mean() + 0.5) / width, float(rows.mean() + 0.5) / height
        found.append(Item(number, thing.color, thing.shape, x, y, len(rows) / (height * width), extent))
    return found


# ------------------------------------------------------------------------------------------------ masks
def refer(scene: Scene, rng: random.Random) -> Question | None:
    """One object by colour, shape, size, position or several of these; IoU of the united masks (0 without a mask)."""
    items = items_of(scene)
    item = rng.choice(items)
    kind, namer = rng.choice([("words", name_by_words), ("size", name_by_size), ("place", name_by_place)])
    name = namer(item, items, rng)
    if name is None:
        return None
    if kind == "words":
        kind = "+".join(word for word, said in (("color", item.color in name), ("shape", item.shape in name)) if said)
    truth = scene.mask(item.number)

    def mark(got: Prediction) -> Marks:
        iou = mask_iou(united(got), truth) if got.segments else 0.0
        return {"miou": iou, "over_half": float(iou > 0.5)}

    return Question("refer", kind or "object", scene.image, rng.choice(SEGMENT).format(name), mark)


def several(scene: Scene, rng: random.Random) -> Question | None:
    """All of a kind, or two that are named. Masks are matched one to one; an object without one counts as IoU 0."""
    items = items_of(scene)
    if rng.random() < 0.5:
        chosen = rng.sample(items, min(2, len(items)))
        names = [name_by_words(item, items, rng) for item in chosen]
        if len(chosen) < 2 or None in names:
            return None
        kind, prompt = "two", f"Please segment the {names[0]} and the {names[1]}."
    else:
        item = rng.choice(items)
        noun, chosen = rng.choice(
            [
                (f"{item.shape}s", matching(items, None, item.shape)),
                (f"{item.color} objects", matching(items, item.color, None)),
                ("objects", items),
            ]
        )
        kind, prompt = "all", rng.choice(["Segment all the {}.", "Please segment all the {}."]).format(noun)
    truths = [scene.mask(item.number) for item in chosen]

    def mark(got: Prediction) -> Marks:
        ious = matched([segment.mask for segment in got.segments], truths)
        return {"miou": float(np.mean(ious)), "number": float(len(got.segments) == len(truths))}

    return Question("several", kind, scene.image, prompt, mark)


def absent(scene: Scene, rng: random.Random) -> Question | None:
    """A combination of colour and shape that the scene lacks: right without a `[SEG]`."""
    items = items_of(scene)
    missing = [(c, s) for c in BASIC.colors for s in BASIC.shapes if not matching(items, c, s)]
    close = [(c, s) for c, s in missing if matching(items, c, None) or matching(items, None, s)]
    color, shape = rng.choice(close if close and rng.random() < 0.5 else missing)
    prompt = rng.choice(SEGMENT).format(f"{color} {shape}")
    return Question("absent", "", scene.image, prompt, lambda got: {"right": float(SEG not in got.result)})


def grounded_caption(scene: Scene, rng: random.Random) -> Question | None:
    """Right when every object has a phrase that names it with a mask of IoU over 0.5, and no phrase is left over."""
    items = items_of(scene)
    prompt = f"{rng.choice(['Please describe the image.', 'Can you describe this image?'])} {INTERLEAVED}"

    def mark(got: Prediction) -> Marks:
        left = list(items)
        for segment in got.segments:
            words = set(re.findall(r"[a-z]+", (segment.phrase or "").lower()))
            fitting = [
                (mask_iou(segment.mask, scene.mask(item.number)), item)
                for item in left
                if {item.color, item.shape} <= words
            ]
            best = max(fitting, key=lambda pair: pair[0], default=(0.0, None))
            if best[1] is not None and best[0] > 0.5:
                left.remove(best[1])
        whole = not left and len(got.segments) == len(items)
        return {"right": float(whole), "objects": 1 - len(left) / len(items)}

    return Question("caption", f"{len(items)} objects", scene.image, prompt, mark)


# ------------------------------------------------------------------------------------------------ answers
def question(scene: Scene, rng: random.Random) -> Question | None:
    """Colour, shape, count, place, comparison of sizes, or yes and no, evenly."""
    kind, ask = rng.choice(list(SHORT_ANSWERS.items()))
    found = ask(items_of(scene), rng)
    if found is None:
        return None
    prompt, is_right = found
    return Question("question", kind, scene.image, prompt, lambda got: {"right": float(is_right(got.text))})


def region_names(scene: Scene, rng: random.Random) -> Question | None:
    """One to three regions, each a box or a mask; one is asked about, or all. Right when all that is asked is named."""
    items = items_of(scene)
    chosen = rng.sample(items, min(len(items), rng.randint(1, 3)))
    regions = tuple(
        scene.mask(item.number) if rng.random() < 0.5 else _box_of(scene.mask(item.number)) for item in chosen
    )
    number = rng.randrange(len(chosen))
    if rng.random() < 0.7:
        prompt, wanted = rng.choice(["What is region{}?", "Please describe region{}."]), chosen[number : number + 1]
    else:
        prompt, wanted = "Please describe each region.", chosen

    def mark(got: Prediction) -> Marks:
        said = re.findall(rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})", got.text.lower())
        return {"right": float(said == [(item.color, item.shape) for item in wanted])}

    return Question("region", f"{len(chosen)}", scene.image, prompt.format(number + 1), mark, regions)


def second_turn(scene: Scene, rng: random.Random) -> Question | None:
    """A question about what the question before was about; the model's own answer to that stands between."""
    items = items_of(scene)
    item = rng.choice(items)
    name = name_by_words(item, items, rng)
    if name is None:
        return None
    place, truth = place_words(item), scene.mask(item.number)
    firsts = [f"Please segment the {name}."]
    if item.color not in name:
        firsts.append(f"What color is the {name}?")
    if item.shape not in name:
        firsts.append(f"What shape is the {name}?")
    options: list[tuple[str, Callable[[Prediction], bool]]] = [
        ("And its color?", lambda got: words_in(got.text, COLORS) == {item.color}),
        ("And its shape?", lambda got: words_in(got.text, SHAPES) == {item.shape}),
        ("Please segment it.", lambda got: bool(got.segments) and mask_iou(united(got), truth) > 0.5),
    ]
    if place is not None:
        options.append(("Where is it?", lambda got: words_in(got.text, PLACE_WORDS) == words_in(place, PLACE_WORDS)))
    prompt, is_right = rng.choice(options)
    return Question(
        "second", prompt, scene.image, prompt, lambda got: {"right": float(is_right(got))}, before=rng.choice(firsts)
    )


# ------------------------------------------------------------------------------------------------ writing
def reading(writing: Writing, rng: random.Random) -> Question:
    """All that is written, character for character."""
    if writing.handwritten:
        prompt = rng.choice(["What number is written in the picture?", "Read the digits.", "What does it say?"])
    else:
        prompt = rng.choice(["What does the text say?", "Please read the text in this image.", "Read the text."])

    def mark(got: Prediction) -> Marks:
        quoted = re.findall(r'"([^"]*)"', got.text) or re.findall(r"\d+", got.text)
        return {"right": float(quoted == [writing.text])}

    task = "handwriting" if writing.handwritten else "text"
    return Question(task, f"{len(writing.text)} characters", writing.image, prompt, mark)


def _box_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box
