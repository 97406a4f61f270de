"""Measures a nano checkpoint through the serving code, on pictures that training never saw.

Every task has 500 questions (`--questions`), each about a scene of its own with 1 to 5 objects, or about writing of 1
to 6 printed characters or 1 to 3 handwritten digits; `training/evaluation/tasks.py` says what is asked and when it
counts as right, and `training/evaluation/edges.py` lists the 300 cases of `edges`. Requests run eight at a time through
the predictor that the service uses; clips go through the tracking modules, `training/evaluation/video.py`.

    python -m training.evaluation.evaluate --check                       # everything
    python -m training.evaluation.evaluate --questions 50 --tasks refer  # a quick look
"""

import json
import random
import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest, Turn
from training.arguments import parser_of
from training.data.scenes import Scene, make_scene
from training.data.shapes import BASIC
from training.data.writing import make_digits, make_text
from training.evaluation import tasks
from training.evaluation.edges import edge_cases
from training.evaluation.tasks import Marks, Question
from training.evaluation.video import measure_clips
from training.paths import RUNS

FIRST_SEED = 10_000_000  # training draws its pictures from 0 upwards
AT_ONCE = 8
BOUNDS = {
    "refer_miou": 0.85,
    "refer_over_half": 0.92,
    "several_miou": 0.80,
    "several_number": 0.92,
    "absent_right": 0.95,
    "question_right": 0.95,
    "text_right": 0.90,
    "handwriting_right": 0.90,
    "caption_right": 0.85,
    "region_right": 0.93,
    "second_right": 0.90,
    "video_j": 0.80,
    "edges_right": 0.90,
}
SCENE_TASKS: dict[str, Callable[[Scene, random.Random], Question | None]] = {
    "refer": tasks.refer,
    "several": tasks.several,
    "absent": tasks.absent,
    "question": tasks.question,
    "caption": tasks.grounded_caption,
    "region": tasks.region_names,
    "second": tasks.second_turn,
}
TASKS = (*SCENE_TASKS, "text", "handwriting", "edges", "video")


@dataclass(frozen=True)
class Outcome:
    """One marked answer, with what a closer look needs."""

    task: str
    kind: str
    seed: int
    marks: Marks
    prompt: str
    before: str
    result: str


def questions_of(task: str, count: int, first_seed: int) -> Iterator[tuple[int, Question]]:
    """`count` questions of a task, with the seeds of their pictures; of the edges the first so many, by their place."""
    if task == "edges":
        yield from islice(enumerate(edge_cases()), count)
        return
    seed = first_seed
    while count:
        rng, found = random.Random(f"{task} {seed}"), None
        if task == "text":
            found = tasks.reading(make_text(seed, held_out=True), rng)
        elif task == "handwriting":
            found = tasks.reading(make_digits(seed, held_out=True), rng)
        else:
            scene = make_scene(seed, held_out=True, words=BASIC)
            for _ in range(8):  # not every object can be named in every way
                found = found or SCENE_TASKS[task](scene, rng)
        if found is not None:
            yield seed, found
            count -= 1
        seed += 1


def answered(predictor: Predictor, seed: int, question: Question) -> Outcome:
    """Asks, and marks the answer."""
    history: tuple[Turn, ...] = ()
    if question.before is not None:
        first = predictor.predict(PredictRequest(prompt=question.before, image=question.image, max_new_tokens=96))
        history = (Turn("user", question.before), Turn("assistant", first.result))
    request = PredictRequest(
        prompt=question.prompt, image=question.image, regions=question.regions, history=history, max_new_tokens=96
    )
    got = predictor.predict(request)
    before = " / ".join(turn.content for turn in history)
    return Outcome(question.task, question.kind, seed, question.mark(got), question.prompt, before, got.result)


def measure(predictor: Predictor, task: str, count: int, first_seed: int) -> list[Outcome]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda asked: answered(predictor, *asked), questions_of(task, count, first_seed)))


def figures(outcomes: list[Outcome]) -> dict[str, float]:
    """Mean of each mark: the figures that the bounds are about, and some beside them."""
    marks: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        for name, value in outcome.marks.items():
            marks[f"{outcome.task}_{name}"].append(value)
    return {name: round(float(np.mean(values)), 4) for name, values in marks.items()}


def breakdown(outcomes: list[Outcome]) -> dict[str, dict[str, float]]:
    """The first mark of each task by kind of question."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.task, outcome.kind].append(next(iter(outcome.marks.values())))
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for (task, kind), found in sorted(groups.items()):
        table[task][f"{kind} ({len(found)})"] = round(float(np.mean(found)), 3)
    return dict(table)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--questions", type=int, default=500, help="of each task")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first picture")
    parser.add_argument("--model", help="checkpoint folder; default the embedded nano model")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--json", type=Path, default=RUNS / "evaluation.json")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a figure is under its bound")
    args = parser.parse_args()
    settings = Settings(dtype=args.dtype, **({"model_path": args.model} if args.model else {}))
    outcomes: list[Outcome] = []
    started = time.monotonic()
    predictor = Predictor.load(settings)
    for task in args.tasks:
        if task != "video":
            outcomes += measure(predictor, task, args.questions, args.seed)
            print(f"{time.monotonic() - started:5.0f} s  {task}", file=sys.stderr, flush=True)
    predictor.close()
    if "video" in args.tasks:
        outcomes += [
            Outcome("video", kind, seed, {"j": j}, prompt, "", result)
            for kind, seed, j, prompt, result in measure_clips(settings, args.questions, args.seed)
        ]
    report(outcomes, args, time.monotonic() - started)
    found = figures(outcomes)
    failed = [name for name, bound in BOUNDS.items() if found.get(name, 0.0) < bound]
    if args.check and failed:
        sys.exit(f"under their bounds: {', '.join(failed)}")


def report(outcomes: list[Outcome], args: Namespace, seconds: float) -> None:
    """A table on standard output, everything as JSON in `args.json`."""
    found, groups = figures(outcomes), breakdown(outcomes)
    print(f"{args.questions} questions a task from seed {args.seed}, {args.dtype}, {seconds:.0f} s\n")
    print(f"{'figure':<20}{'value':>8}{'bound':>8}")
    for name, value in found.items():
        print(f"{name:<20}{value:>8.3f}" + (f"{BOUNDS[name]:>8.2f}" if name in BOUNDS else ""))
    for task, row in groups.items():
        print(f"\n{task:<12}" + "  ".join(f"{kind} {value:.2f}" for kind, value in row.items()), end="")
    print()
    details = {"questions": args.questions, "seed": args.seed, "dtype": args.dtype, "seconds": round(seconds)}
    details |= {"figures": found, "breakdown": groups, "outcomes": [vars(outcome) for outcome in outcomes]}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(details, indent=1) + "\n")


if __name__ == "__main__":
    main()
