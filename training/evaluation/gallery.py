"""Draws twelve answers of the embedded model for its card, six right and six wrong, from a finished evaluation.

    python -m training.evaluation.gallery docs/nano.png

Of each task the first right and the first wrong answers in the order of their seeds are taken, tasks by turns, so that
nobody picks. Each is asked again and drawn with the service's own overlay.
"""

import json
from pathlib import Path

from PIL import Image, ImageDraw

from sa2va_bento.media.overlay.draw import draw_overlay
from sa2va_bento.media.overlay.fonts import draw_spans, font_of, spans_of
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest, Turn
from training.arguments import parser_of
from training.evaluation.evaluate import SCENE_TASKS, Outcome, questions_of
from training.evaluation.tasks import Question
from training.paths import RUNS

SIDE, LINE, MARGIN, COLUMNS = 300, 17, 10, 4
RIGHT, WRONG = (20, 120, 60), (180, 40, 40)
STILLS = (*SCENE_TASKS, "text", "handwriting")


def chosen(outcomes: list[Outcome], are_right: bool, count: int) -> list[Outcome]:
    """The first right or wrong outcomes, tasks by turns."""
    of_task = {
        task: [o for o in outcomes if o.task == task and (next(iter(o.marks.values())) > 0.5) == are_right]
        for task in STILLS
    }
    turns = [found[i] for i in range(count) for found in of_task.values() if i < len(found)]
    return turns[:count]


def question_of(outcome: Outcome) -> Question:
    """The question that an outcome answers."""
    seed, question = next(questions_of(outcome.task, 1, outcome.seed))
    assert (seed, question.prompt) == (outcome.seed, outcome.prompt)
    return question


def panel(predictor: Predictor, outcome: Outcome, color: tuple[int, int, int]) -> Image.Image:
    """The picture with the answer's masks, and what was said, below it."""
    question = question_of(outcome)
    history = ()
    if question.before is not None:
        first = predictor.predict(PredictRequest(prompt=question.before, image=question.image))
        history = (Turn("user", question.before), Turn("assistant", first.result))
    got = predictor.predict(
        PredictRequest(prompt=question.prompt, image=question.image, regions=question.regions, history=history)
    )
    shown = draw_overlay(question.image, got.segments)
    shown.thumbnail((SIDE, SIDE))
    said = [turn.content for turn in history] + [question.prompt, got.result]
    canvas = Image.new("RGB", (SIDE + MARGIN, SIDE + (LINE + 2) * 6), "white")
    canvas.paste(shown, (0, 0))
    draw, y = ImageDraw.Draw(canvas), SIDE + LINE
    for number, text in enumerate(said):
        for line in _wrapped(text):
            is_answer = number % 2 == 1
            draw_spans(draw, (0, y), spans_of(line, LINE - 4, SIDE), color if is_answer else (40, 40, 40))
            y += LINE
    return canvas


def _wrapped(text: str) -> list[str]:
    """Lines that fit a panel."""
    font, lines = font_of(LINE - 4), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= SIDE else [*lines, word]
    return lines


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--json", type=Path, default=RUNS / "evaluation.json")
    args = parser.parse_args()
    outcomes = [Outcome(**outcome) for outcome in json.loads(args.json.read_text())["outcomes"]]
    predictor = Predictor.load(Settings())
    panels = [
        panel(predictor, outcome, color)
        for are_right, color in ((True, RIGHT), (False, WRONG))
        for outcome in chosen(outcomes, are_right, 6)
    ]
    predictor.close()
    width, height = panels[0].size
    sheet = Image.new("RGB", (COLUMNS * width, -(-len(panels) // COLUMNS) * height), "white")
    for number, picture in enumerate(panels):
        sheet.paste(picture, (number % COLUMNS * width, number // COLUMNS * height))
    sheet.quantize(192).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
