"""Measures a nano checkpoint through the serving code, one request at a time, on scenes that training never saw.

Every scene gets at most one question of each task, where the task applies:

refer   "Please segment the red circle." about an object that is the only one of its colour and shape; IoU at the
        picture's own size (0 without a mask; several masks count as their union)
color   "What color is the square?" about the only object of its shape; right when the answer names that one only
shape   "What shape is the red object?" about the only object of its colour; likewise
count   "How many circles are there?" (a shape, a colour's objects, or all objects; one in six asks for a random shape
        or colour, there or not); right when the answer holds that number and no other
absent  "Please segment the red circle." where no object has that colour and shape; right without a `[SEG]`

    python -m training.evaluate --scenes 500 --check
"""

import argparse
import json
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sa2va_bento.predictor import Predictor
from sa2va_bento.result import Prediction, PredictRequest
from sa2va_bento.settings import Settings
from training.pool import RUNS
from training.scenes import COLORS, SHAPES, Scene, make_scene

FIRST_SEED = 10_000_000  # training draws its scenes from 0 upwards
BOUNDS = {"refer_miou": 0.70, "refer_over_half": 0.80, "color": 0.90, "shape": 0.90, "count": 0.80, "absent": 0.80}
NUMBER_WORDS = {"no": 0, "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


@dataclass(frozen=True)
class Question:
    """A prompt, and how right a prediction is, from 0 to 1."""

    task: str
    prompt: str
    score: Callable[[Prediction], float]


def questions(scene: Scene, rng: random.Random) -> list[Question]:
    """One question of each task that applies to the scene."""
    found = [_refer(scene, rng), _color(scene, rng), _shape(scene, rng), _count(scene, rng), _absent(scene, rng)]
    return [question for question in found if question is not None]


def _number(scene: Scene, color: str | None, shape: str | None) -> int:
    return sum(color in (None, thing.color) and shape in (None, thing.shape) for thing in scene.things)


def _refer(scene: Scene, rng: random.Random) -> Question | None:
    unique = [i for i, thing in enumerate(scene.things) if _number(scene, thing.color, thing.shape) == 1]
    if not unique:
        return None
    index = rng.choice(unique)
    truth = scene.mask(index)
    return Question("refer", f"Please segment the {scene.things[index].name}.", lambda got: mask_iou(got, truth))


def mask_iou(prediction: Prediction, truth: np.ndarray) -> float:
    """Intersection over union of the united masks with the truth (H, W)."""
    if not prediction.segments:
        return 0.0
    union = np.logical_or.reduce([segment.mask for segment in prediction.segments])
    return float((union & truth).sum() / max(1, (union | truth).sum()))


def _color(scene: Scene, rng: random.Random) -> Question | None:
    unique = [thing for thing in scene.things if _number(scene, None, thing.shape) == 1]
    if not unique:
        return None
    thing = rng.choice(unique)
    return Question("color", f"What color is the {thing.shape}?", _names(thing.color, COLORS))


def _shape(scene: Scene, rng: random.Random) -> Question | None:
    unique = [thing for thing in scene.things if _number(scene, thing.color, None) == 1]
    if not unique:
        return None
    thing = rng.choice(unique)
    return Question("shape", f"What shape is the {thing.color} object?", _names(thing.shape, SHAPES))


def _names(wanted: str, names: tuple[str, ...]) -> Callable[[Prediction], float]:
    def score(prediction: Prediction) -> float:
        words = re.findall(r"[a-z]+", prediction.result.lower())
        return float({word for word in words if word in names} == {wanted})

    return score


def _count(scene: Scene, rng: random.Random) -> Question:
    there = rng.random() < 5 / 6
    thing = rng.choice(scene.things)
    color, shape = (thing.color, thing.shape) if there else (rng.choice(COLORS), rng.choice(SHAPES))
    by_color, by_shape = rng.choice([(False, True), (False, True), (True, False), (False, False)])
    noun = f"{color} objects" if by_color else f"{shape}s" if by_shape else "objects"
    wanted = _number(scene, color if by_color else None, shape if by_shape else None)

    def score(prediction: Prediction) -> float:
        return float(numbers_in(prediction.result) == {wanted})

    return Question("count", f"How many {noun} are there?", score)


def numbers_in(text: str) -> set[int]:
    """Every number that a reply names, in digits or words."""
    words = re.findall(r"[a-z]+|\d+", text.lower())
    return {
        int(word) if word.isdigit() else NUMBER_WORDS[word] for word in words if word.isdigit() or word in NUMBER_WORDS
    }


def _absent(scene: Scene, rng: random.Random) -> Question:
    missing = [(color, shape) for color in COLORS for shape in SHAPES if not _number(scene, color, shape)]
    close = [(c, s) for c, s in missing if _number(scene, c, None) or _number(scene, None, s)]
    color, shape = rng.choice(close if close and rng.random() < 0.5 else missing)
    return Question("absent", f"Please segment the {color} {shape}.", lambda got: float("[SEG]" not in got.result))


@dataclass(frozen=True)
class Outcome:
    """One answered question, with what a closer look needs."""

    task: str
    score: float
    objects: int
    background: str
    prompt: str
    result: str
    seed: int


def measure(predictor: Predictor, scenes: int, first_seed: int) -> list[Outcome]:
    outcomes = []
    for seed in range(first_seed, first_seed + scenes):
        scene = make_scene(seed, held_out=True)
        for question in questions(scene, random.Random(seed)):
            got = predictor.predict(PredictRequest(prompt=question.prompt, image=scene.image, max_new_tokens=64))
            score = question.score(got)
            facts = len(scene.things), scene.background, question.prompt, got.result, seed
            outcomes.append(Outcome(question.task, score, *facts))
    return outcomes


def figures(outcomes: list[Outcome]) -> dict[str, float]:
    """The figures that the bounds are about."""
    scores: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        scores[outcome.task].append(outcome.score)
    refer = scores.pop("refer", [0.0])
    found = {"refer_miou": float(np.mean(refer)), "refer_over_half": float(np.mean(np.array(refer) > 0.5))}
    return found | {task: float(np.mean(right)) for task, right in scores.items()}


def breakdown(outcomes: list[Outcome]) -> dict[str, dict[str, float]]:
    """Mean score of each task by number of objects and by background."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in outcomes:
        for group in (f"{outcome.objects} objects", outcome.background):
            groups[outcome.task, group].append(outcome.score)
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for (task, group), found in sorted(groups.items()):
        table[task][group] = round(float(np.mean(found)), 3)
    return dict(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first scene")
    parser.add_argument("--model", help="checkpoint folder; default the embedded nano model")
    parser.add_argument("--json", type=Path, default=RUNS / "evaluation.json")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is under its bound")
    args = parser.parse_args()
    predictor = Predictor.load(Settings(model_path=args.model) if args.model else Settings())
    started = time.monotonic()
    outcomes = measure(predictor, args.scenes, args.seed)
    seconds = time.monotonic() - started
    predictor.close()
    report(outcomes, args.scenes, args.seed, seconds, args.json)
    failed = [name for name, bound in BOUNDS.items() if figures(outcomes).get(name, 0.0) < bound]
    if args.check and failed:
        sys.exit(f"under their bounds: {', '.join(failed)}")


def report(outcomes: list[Outcome], scenes: int, seed: int, seconds: float, path: Path) -> None:
    """A table on standard output, everything as JSON in `path`."""
    print(__doc__.split("\n\n", 1)[1].rsplit("\n\n", 1)[0] if __doc__ else "", "\n")
    found = figures(outcomes)
    print(f"{scenes} scenes from seed {seed}, {len(outcomes)} questions, {seconds:.0f} s\n")
    print(f"{'figure':<18}{'value':>8}{'bound':>8}")
    for name, bound in BOUNDS.items():
        print(f"{name:<18}{found.get(name, float('nan')):>8.3f}{bound:>8.2f}")
    groups = breakdown(outcomes)
    for task, row in groups.items():
        print(f"\n{task:<8}" + "  ".join(f"{group} {value:.2f}" for group, value in row.items()), end="")
    print()
    path.parent.mkdir(parents=True, exist_ok=True)
    details = {"scenes": scenes, "seed": seed, "seconds": round(seconds), "figures": found, "breakdown": groups}
    path.write_text(json.dumps(details | {"outcomes": [vars(outcome) for outcome in outcomes]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
