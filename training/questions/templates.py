"""How people ask: the question templates, and what varies in the way that they type."""

import random
from collections.abc import Sequence

INTERLEAVED = "Please respond with interleaved segmentation masks for the corresponding parts of the answer."

SEGMENT = (
    *("Please segment the {}.",) * 6,
    *("Can you segment the {} in this image?",) * 4,
    *("Find the {}.",) * 3,
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
    "Highlight the {}.",
    "Select the {}.",
    "Outline the {}.",
    "Cut out the {}.",
    "Mask the {}.",
    "Give me a mask of the {}.",
    "I want a mask for the {}.",
    "segment {}",
    "the {}",
    "Where is the {}? Please segment it.",
    "Find and segment the {}.",
    "Can you find the {}?",
)
LOCATE = (
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
    "Which part of the picture is the {}?",
)
SEGMENT_ALL = (
    "Segment all the {}.",
    "Please segment all the {}.",
    "Please segment all the {} in the picture.",
    "Please segment the {}.",
    "Can you segment all {} in this image?",
    "Find all the {}.",
    "Please segment every one of the {}.",
    "Segment the {}.",
    "Mark all {}.",
    "Highlight all the {}.",
    "Give me masks of all {}.",
)
SEGMENT_EVERYTHING = (
    "Segment everything.",
    "segment everything",
    "Please segment everything.",
    "Segment everything in the picture.",
    "Can you segment everything in this image?",
    "Segment all.",
    "Segment all objects.",
    "Segment all objects in the image.",
    "Segment every object.",
    "Mask everything.",
    "Find everything.",
    "Please segment the image.",
)
SEGMENT_BUT = (
    "Segment everything except the {}.",
    "everything except the {}",
    "Please segment everything but the {}.",
    "Segment all objects except the {}.",
    "Please segment all but the {}.",
)
SEGMENT_TWO = (
    "Please segment the {} and the {}.",
    "Segment the {} and the {}.",
    "Can you segment the {} and the {} in this image?",
    "Find the {} and the {}.",
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
ASK_WHERE = ("Where is the {}?", "Where is the {}?", "Where is the {} in the picture?", "Where in the image is the {}?")
DESCRIBE = (
    "Please describe the image.",
    "Describe the picture.",
    "What is in the picture?",
    "What do you see?",
    "What is shown in this image?",
    "Could you please give me a brief description of the image?",
    "Can you describe this image?",
    "Describe the image.",
    "Describe this image.",
    "Describe this picture.",
    "Describe what you see.",
    "What's in the picture?",
    "What is in this image?",
    "What is in the image?",
    "What is this?",
    "What do you see in this image?",
    "What do you see in the picture?",
    "What can you see?",
    "What does the image show?",
    "What does this picture show?",
    "Tell me about this picture.",
    "Tell me what you see.",
    "What objects are in the picture?",
    "Which objects are there?",
    "What shapes are there?",
    "List the objects.",
    "Name the objects in the image.",
    "Caption this image.",
    "Write a caption for this picture.",
)
READ = (
    "What does the text say?",
    "What does the sign say?",
    "Read the text.",
    "Please read the text in this image.",
    "What is written in the picture?",
    "What is written here?",
    "What text is in this image?",
    "Can you read the text?",
    "What does it say?",
)
READ_NUMBER = (
    "What number is written in the picture?",
    "What number is this?",
    "Read the number.",
    "Please read the handwritten number.",
    "What digits are in this image?",
    "Which digits do you see?",
    "Read the digits.",
    "What is the handwritten number?",
    "What number do you see?",
)
CHAT = {
    "Hello! Ask me about the colored shapes or the writing in a picture.": (
        *("Hello", "Hi!", "Hi there", "Good morning!", "Hey"),
    ),
    "I am a very small Sa2VA model. I know colored shapes, capital letters and digits: I can segment, name, count "
    "and read them.": (
        *("Who are you?", "What can you do?", "What are you?", "Help", "How can you help me?", "What is your name?"),
    ),
    "You are welcome.": ("Thank you.", "Thanks!", "Thanks a lot"),
}
NO_PICTURE = "Please send a picture, and I will look at it."
ONLY_THIS = "I only know colored shapes, capital letters and digits."
NOTHING = "I see no shapes and no writing in the picture."
MANY = 5
"""What is more is not counted out nor listed."""
OUT_OF_SCOPE = (
    *("Who won the game?", "Write a poem.", "What is the weather like?", "Is it raining?", "Who is this?"),
    *("Tell me a story.", "How old is the man?", "What time is it?", "What is 2 plus 2?", "Where was this taken?"),
)


def ask(templates: Sequence[str], names: str | Sequence[str], rng: random.Random) -> str:
    """One of the templates with the names in it, typed as somebody might."""
    names = (names,) if isinstance(names, str) else names
    question = rng.choice(templates).format(*names)
    for name in names:
        question = question.replace(f" a {name}", f" {article(name)} {name}")
    return vary(question, rng)


def vary(question: str, rng: random.Random) -> str:
    """The way people type: most as written, some in lower case, some without the last mark, a few in capitals."""
    draw = rng.random()
    if draw < 0.12:
        question = question.lower()
    elif draw < 0.13:
        question = question.upper()
    if rng.random() < 0.15:
        question = question.rstrip(".?!")
    if rng.random() < 0.04 and not question.lower().startswith("please"):
        question = f"please {question[0].lower()}{question[1:]}"
    return question


def article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def listed(parts: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
