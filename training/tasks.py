"""What people ask about a scene and what the model should answer.

Each writer takes a scene's objects and gives one turn, or None where the question does not fit the scene. A turn
refers to one object for each `[SEG]` of its answer, in order.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from training.scenes import COLORS, SHAPES

SEG = "[SEG]"
INTERLEAVED = "Please respond with interleaved segmentation masks for the corresponding parts of the answer."
OTHER_COLORS = ("pink", "black", "white", "brown", "gray")
OTHER_SHAPES = ("hexagon", "heart", "arrow", "cross", "pentagon")
OTHER_THINGS = (
    *("dog", "cat", "car", "person", "tree", "house", "man", "woman", "table", "chair", "cup", "bird", "horse", "bus"),
    *("bottle", "phone", "book", "boat", "face", "hand", "flower", "sky", "road", "hat", "bike", "clock", "apple"),
)


@dataclass(frozen=True)
class Item:
    """One object as a question sees it; `x` in shares of the picture's width, for left to right."""

    number: int
    color: str
    shape: str
    x: float
    y: float

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Reference:
    """What one `[SEG]` stands for: the object, the words that name it, and whether these fit several."""

    number: int
    color: str | None
    shape: str | None
    has_place: bool = False


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str
    references: tuple[Reference, ...] = ()
    kind: str = ""  # name of the writer


Items = Sequence[Item]
Writer = Callable[[Items, random.Random], Turn | None]

SEGMENT = (
    "Please segment the {}.",
    "Please segment the {}.",
    "Can you segment the {} in this image?",
    "Can you segment the {} in this image?",
    "Can you please segment the {} in this image?",
    "Please segment the {} in this image.",
    "Segment the {}.",
    "Could you segment the {}?",
    "Can you segment the {}?",
    "Please segment {} in this image.",
    "Please segment the {} in the picture.",
    "Find the {}.",
    "Mark the {}.",
    "Please highlight the {}.",
    "Show me the {}.",
)
LOCATE = (
    "Where is the {}?",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
    "Which part of the picture is the {}?",
)
SEGMENT_ALL = (
    "Segment all the {}.",
    "Please segment all the {}.",
    "Please segment the {}.",
    "Can you segment all {} in this image?",
    "Find all the {}.",
    "Please segment every one of the {}.",
)
ASK_COLOR = (
    "What color is the {}?",
    "What color is the {}?",
    "What colour is the {}?",
    "What is the color of the {}?",
    "Which color does the {} have?",
    "Tell me the color of the {}.",
    "Which color is the {}?",
)
ASK_SHAPE = (
    "What shape is the {}?",
    "What shape is the {}?",
    "What is the shape of the {}?",
    "What is the {}?",
    "Which shape does the {} have?",
    "Tell me the shape of the {}.",
)
ASK_COUNT = (
    "How many {} are there?",
    "How many {} are there?",
    "How many {} are there in the picture?",
    "How many {} are in this image?",
    "How many {} do you see?",
    "How many {} can you see?",
    "Count the {}.",
    "What is the number of {}?",
)
ASK_THERE = ("Is there a {}?", "Is there a {} in the picture?", "Do you see a {}?", "Can you see a {} in this image?")
DESCRIBE = (
    "Please describe the image.",
    "Describe the picture.",
    "What is in the picture?",
    "What do you see?",
    "What is shown in this image?",
    "Could you please give me a brief description of the image?",
    "Can you describe this image?",
)
CHAT = {
    "Hello! Ask me about the colored shapes in a picture.": ("Hello", "Hi!", "Hi there", "Good morning!", "Hey"),
    "I am a very small Sa2VA model. I know colored shapes: I can segment, name and count them.": (
        *("Who are you?", "What can you do?", "What are you?", "Help", "How can you help me?", "What is your name?"),
    ),
    "You are welcome.": ("Thank you.", "Thanks!", "Thanks a lot"),
}
NO_PICTURE = "Please send a picture, and I will look at it."
ONLY_SHAPES = "I only know colored shapes: circles, squares, triangles and stars."
OUT_OF_SCOPE = (
    *("Who won the game?", "Write a poem.", "What is the weather like?", "Read the text.", "What does the sign say?"),
    *("Tell me a story.", "How old is the man?", "What time is it?", "What is 2 plus 2?", "Where was this taken?"),
)


# ------------------------------------------------------------------------------------------------ segmentation
def refer(items: Items, rng: random.Random) -> Turn | None:
    """ "Please segment the red circle." about the only red circle."""
    unique = [item for item in items if _count(items, item.color, item.shape) == 1]
    return _segment_one(rng.choice(unique), True, True, rng) if unique else None


def refer_briefly(items: Items, rng: random.Random) -> Turn | None:
    """By colour alone, by shape alone, or as "the object" where that is enough."""
    options = [(item, True, False) for item in items if _count(items, item.color, None) == 1]
    options += [(item, False, True) for item in items if _count(items, None, item.shape) == 1]
    options += [(item, False, False) for item in items if len(items) == 1]
    return _segment_one(*rng.choice(options), rng) if options else None


def _segment_one(item: Item, by_color: bool, by_shape: bool, rng: random.Random) -> Turn:
    reference = Reference(item.number, item.color if by_color else None, item.shape if by_shape else None)
    name = _phrase(reference.color, reference.shape, rng)
    if rng.random() < 0.8:
        return Turn(_ask(SEGMENT, name, rng), f"Sure, {SEG}.", (reference,))
    return Turn(_ask(LOCATE, name, rng), f"It is {SEG}.", (reference,))


def absent(items: Items, rng: random.Random) -> Turn | None:
    """A combination that the scene lacks; half the time its colour and its shape are both there."""
    missing = [(c, s) for c in COLORS for s in SHAPES if _count(items, c, s) == 0]
    close = [(c, s) for c, s in missing if _count(items, c, None) and _count(items, None, s)]
    half = [(c, s) for c, s in missing if _count(items, c, None) or _count(items, None, s)]
    draw = rng.random()
    if draw < 0.08:
        return _deny(f"{rng.choice(OTHER_COLORS)} {rng.choice(SHAPES)}", rng)
    if draw < 0.13:
        return _deny(rng.choice(OTHER_SHAPES), rng)
    pool = close if draw < 0.5 and close else half if draw < 0.75 and half else missing
    color, shape = rng.choice(pool)
    return _deny(f"{color} {shape}", rng)


def absent_briefly(items: Items, rng: random.Random) -> Turn | None:
    """A colour or a shape that the scene lacks."""
    names = [(c, None) for c in COLORS if not _count(items, c, None)]
    names += [(None, s) for s in SHAPES if not _count(items, None, s)]
    return _deny(_phrase(*rng.choice(names), rng), rng) if names else None


def _deny(name: str, rng: random.Random) -> Turn:
    return Turn(_ask(SEGMENT + LOCATE, name, rng), f"There is no {name} in the picture.")


def segment_all(items: Items, rng: random.Random) -> Turn | None:
    """Every object that fits, one `[SEG]` each, left to right."""
    color, shape = rng.choice([(rng.choice(items).color, None), (None, rng.choice(items).shape), (None, None)])
    found = sorted((item for item in items if _fits(item, color, shape)), key=lambda item: item.x)
    references = tuple(Reference(item.number, color, shape, has_place=len(found) > 1) for item in found)
    return Turn(
        _ask(SEGMENT_ALL, _phrase(color, shape, rng) + "s", rng), f"Sure, {_list([SEG] * len(found))}.", references
    )


# ------------------------------------------------------------------------------------------------ questions
def ask_color(items: Items, rng: random.Random) -> Turn | None:
    unique = [item for item in items if _count(items, None, item.shape) == 1]
    if not unique:
        return None
    item = rng.choice(unique)
    name = "object" if len(items) == 1 and rng.random() < 0.2 else item.shape
    return Turn(_ask(ASK_COLOR, name, rng), f"The {name} is {item.color}.")


def ask_shape(items: Items, rng: random.Random) -> Turn | None:
    unique = [item for item in items if _count(items, item.color, None) == 1]
    if not unique:
        return None
    item = rng.choice(unique)
    name = _phrase(None if len(items) == 1 and rng.random() < 0.2 else item.color, None, rng)
    return Turn(_ask(ASK_SHAPE, name, rng), f"The {name} is a {item.shape}.")


def ask_missing(items: Items, rng: random.Random) -> Turn | None:
    """The colour of a shape, or the shape of a colour, that is not there."""
    if rng.random() < 0.5:
        shapes = [shape for shape in SHAPES if not _count(items, None, shape)]
        name, questions = (rng.choice(shapes), ASK_COLOR) if shapes else (None, ASK_COLOR)
    else:
        name, questions = f"{rng.choice([c for c in COLORS if not _count(items, c, None)])} object", ASK_SHAPE
    return Turn(_ask(questions, name, rng), f"There is no {name} in the picture.") if name else None


def ask_count(items: Items, rng: random.Random) -> Turn | None:
    """Of a shape, of a colour, of both, or of everything; at times of what is not there."""
    item = rng.choice(items)
    there = rng.random() < 0.8
    color, shape = (item.color, item.shape) if there else (rng.choice(COLORS), rng.choice(SHAPES))
    color, shape = rng.choice([(None, shape), (None, shape), (color, None), (color, shape), (None, None)])
    return count_turn(items, color, shape, rng)


def count_turn(items: Items, color: str | None, shape: str | None, rng: random.Random) -> Turn:
    name, count = _phrase(color, shape, rng), _count(items, color, shape)
    answer = {0: f"There are no {name}s.", 1: f"There is 1 {name}."}.get(count, f"There are {count} {name}s.")
    return Turn(_ask(ASK_COUNT, name + "s", rng), answer)


def ask_there(items: Items, rng: random.Random) -> Turn | None:
    """Yes or no, evenly."""
    if rng.random() < 0.5:
        item = rng.choice(items)
        name = rng.choice([item.name, item.name, item.shape, f"{item.color} object"])
        return Turn(_ask(ASK_THERE, name, rng), f"Yes, there is a {name}.")
    turn = absent(items, rng) if rng.random() < 0.6 else absent_briefly(items, rng)
    if turn is None:
        return None
    name = turn.answer.removeprefix("There is no ").removesuffix(" in the picture.")
    return Turn(_ask(ASK_THERE, name, rng), f"No, there is no {name}.")


def ask_whether(items: Items, rng: random.Random) -> Turn | None:
    """ "Is the circle red?" about the only circle."""
    unique = [item for item in items if _count(items, None, item.shape) == 1]
    if not unique:
        return None
    item = rng.choice(unique)
    color = item.color if rng.random() < 0.5 else rng.choice([c for c in COLORS if c != item.color])
    answer = "Yes" if color == item.color else "No"
    return Turn(_vary(f"Is the {item.shape} {color}?", rng), f"{answer}, the {item.shape} is {item.color}.")


def describe(items: Items, rng: random.Random) -> Turn | None:
    names = [f"{_article(item.name)} {item.name}" for item in sorted(items, key=lambda item: item.x)]
    return Turn(_vary(rng.choice(DESCRIBE), rng), f"The picture shows {_list(names)}.")


def describe_grounded(items: Items, rng: random.Random) -> Turn | None:
    ordered = sorted(items, key=lambda item: item.x)
    parts = [f"<p> {_article(item.name)} {item.name} </p> {SEG}" for item in ordered]
    references = tuple(Reference(item.number, item.color, item.shape, has_place=True) for item in ordered)
    return Turn(f"{rng.choice(DESCRIBE)} {INTERLEAVED}", f"{_list(parts)}.", references)


def chat(items: Items, rng: random.Random) -> Turn | None:
    """Greetings, what it is, and what it does not know."""
    draw = rng.random()
    if draw < 0.4:
        answer, questions = rng.choice(list(CHAT.items()))
        return Turn(_vary(rng.choice(questions), rng), answer)
    if draw < 0.6:
        return Turn(_vary(rng.choice(OUT_OF_SCOPE), rng), ONLY_SHAPES)
    templates = SEGMENT + LOCATE + ASK_COLOR + ASK_SHAPE + ASK_THERE
    return Turn(_ask(templates, rng.choice(OTHER_THINGS), rng), ONLY_SHAPES)


# ------------------------------------------------------------------------------------------------ the mix
MIX: tuple[tuple[Writer, float], ...] = (
    (refer, 1.8),
    (refer_briefly, 1.0),
    (absent, 1.6),
    (absent_briefly, 0.5),
    (segment_all, 0.6),
    (ask_color, 1.3),
    (ask_shape, 1.3),
    (ask_missing, 0.4),
    (ask_count, 5.0),
    (ask_there, 0.6),
    (ask_whether, 0.4),
    (describe, 0.5),
    (describe_grounded, 0.5),
    (chat, 0.2),
)


def conversation(items: Items, rng: random.Random, turns: int) -> list[Turn]:
    """`turns` independent questions about one scene."""
    writers, weights = zip(*MIX, strict=True)
    written: list[Turn] = []
    while len(written) < turns:
        writer = rng.choices(writers, weights)[0]
        turn = writer(items, rng)
        if turn is not None:
            written.append(replace(turn, kind=writer.__name__))
    return written


def without_picture(items: Items, rng: random.Random, turns: int) -> list[Turn]:
    """Questions that come without a picture: small talk is answered, anything about objects asks for one."""
    written = conversation(items, rng, turns - turns // 2)
    asked = [Turn(turn.question, NO_PICTURE, kind="no_picture") for turn in written if turn.kind != "chat"]
    answer, questions = rng.choice(list(CHAT.items()))
    return [*asked, *(Turn(_vary(rng.choice(questions), rng), answer, kind="chat") for _ in range(turns // 2))]


# ------------------------------------------------------------------------------------------------ wording
def _fits(item: Item, color: str | None, shape: str | None) -> bool:
    return color in (None, item.color) and shape in (None, item.shape)


def _count(items: Items, color: str | None, shape: str | None) -> int:
    return sum(_fits(item, color, shape) for item in items)


def _phrase(color: str | None, shape: str | None, rng: random.Random) -> str:
    noun = shape or rng.choices(["object", "shape", "thing"], [6, 2, 1])[0]
    return f"{color} {noun}" if color else noun


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def _list(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _ask(templates: Sequence[str], name: str, rng: random.Random) -> str:
    question = rng.choice(templates).format(name)
    if name[0] in "aeiou":
        question = question.replace(f" a {name}", f" an {name}")
    return _vary(question, rng)


def _vary(question: str, rng: random.Random) -> str:
    """The way people type: most as written, some in lower case, some without the last mark, a few in capitals."""
    draw = rng.random()
    if draw < 0.12:
        question = question.lower()
    elif draw < 0.14:
        question = question.upper()
    if rng.random() < 0.15:
        question = question.rstrip(".?!")
    if rng.random() < 0.04 and not question.lower().startswith("please"):
        question = f"please {question[0].lower()}{question[1:]}"
    return question
