"""Asks all questions of a data set, keeps what came of each, and sums up. A run that was stopped goes on."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from sa2va_bento.errors import BadRequestError, Sa2VAError
from sa2va_bento.evaluation.metrics import Overlap, ciou, contour_accuracy, giou, overlap, region_similarity
from sa2va_bento.evaluation.questions import Masks, Question, Said, Truth

FILE = "results.jsonl"
MasksKept = Literal["all", "first"]


class Asker(Protocol):
    """A model, wherever it is."""

    def about_pictures(self, asked: Iterable[tuple[Path, str]], kept: MasksKept) -> Iterator[Said | Sa2VAError]:
        """Answers in order; as many at once as is good."""
        ...

    def about_clip(self, frames: Sequence[Path], prompt: str, kept: MasksKept) -> Said:
        """The answer about a clip. Raises Sa2VAError."""
        ...


@dataclass(frozen=True)
class Summary:
    """Percentages by the measures' names; how many were asked, and how many of these failed and count as empty."""

    numbers: Mapping[str, float]
    asked: int
    failed: int


Measures = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float]]
"""The measures of all lines, in percent, by their names."""


def run(
    questions: Sequence[Question],
    asker: Asker,
    out: Path,
    kept: MasksKept,
    tell: Callable[[], object],
    measures: Measures | None = None,
) -> Summary:
    """Asks what has no line in `out/results.jsonl` yet; `tell` is called after each. `measures` are the data set's own,
    where a line by itself has none.

    Raises:
        BadRequestError: the file there is about something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    lines = _lines(out / FILE)
    known = {question.id for question in questions}
    if strange := next((line["id"] for line in lines if line["id"] not in known), None):
        raise BadRequestError(f"{out / FILE}: {strange} is not in this data set; choose another folder")
    done = {line["id"] for line in lines}
    left = [question for question in questions if question.id not in done]
    with (out / FILE).open("a", encoding="utf-8") as file:
        for question, said in _answers(left, asker, kept):
            lines.append(_line(question, said, out))
            file.write(json.dumps(lines[-1], ensure_ascii=False) + "\n")
            file.flush()
            tell()
    return summary(lines, measures or _means)


def summary(lines: Sequence[Mapping[str, Any]], measures: Measures) -> Summary:
    """Of lines of `results.jsonl`."""
    return Summary(measures(lines), len(lines), sum("error" in line for line in lines))


def _means(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
    overlaps = [Overlap(line["intersection"], line["union"]) for line in lines if "union" in line]
    clips = [(line["j"], line["f"]) for line in lines if "j" in line]
    numbers: dict[str, float] = {}
    if overlaps:
        numbers = {"cIoU": 100 * ciou(overlaps), "gIoU": 100 * giou(overlaps)}
    if clips:
        j, f = (100 * sum(part) / len(clips) for part in zip(*clips, strict=True))
        numbers |= {"J": j, "F": f, "J&F": (j + f) / 2}
    return numbers


def _answers(
    questions: Sequence[Question], asker: Asker, kept: MasksKept
) -> Iterator[tuple[Question, Said | Sa2VAError]]:
    asked = deque[Question]()

    def pictures() -> Iterator[tuple[Path, str]]:
        for question in questions:
            if len(question.frames) == 1:
                asked.append(question)
                yield question.frames[0], question.prompt

    for said in asker.about_pictures(pictures(), kept):
        yield asked.popleft(), said
    for question in questions:
        if len(question.frames) > 1:
            try:
                yield question, asker.about_clip(question.frames, question.prompt, kept)
            except Sa2VAError as error:
                yield question, error


def _line(question: Question, said: Said | Sa2VAError, out: Path) -> dict[str, Any]:
    """An answer without a mask counts as an empty one, and so does what failed."""
    line: dict[str, Any] = {"id": question.id, "prompt": question.prompt}
    if isinstance(said, Sa2VAError):
        line["error"] = said.message
        said = Said("", None)
    line["text"] = said.text
    if question.keep:
        return {**line, **question.keep(said)}
    if question.truth is None:
        _write(question, said, out)
        return line
    truth = question.truth()
    found = np.zeros_like(truth.masks) if said.masks is None else said.masks
    if found.shape != truth.masks.shape:
        raise BadRequestError(f"{question.id}: masks of {found.shape}, the annotation has {truth.masks.shape}")
    return {**line, **_scores(found, truth, is_clip=len(question.frames) > 1)}


def _scores(found: Masks, truth: Truth, is_clip: bool) -> dict[str, float]:
    if is_clip:
        return {"j": region_similarity(found, truth.masks), "f": contour_accuracy(found, truth.masks)}
    both = overlap(found, truth)
    return {"intersection": both.intersection, "union": both.union}


def _write(question: Question, said: Said, out: Path) -> None:
    """PNGs as the servers that keep the annotations take them: `Annotations/VIDEO/EXPRESSION/FRAME.png`."""
    folder = out / "Annotations" / question.place
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(question.frames):
        with Image.open(frame) as picture:
            size = picture.size
        mask = np.zeros(size[::-1], bool) if said.masks is None else said.masks[number]
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(folder / f"{frame.stem}.png")


def _lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines; what a run that was killed left of the last one is cut off."""
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    with path.open("rb+") as file:
        file.truncate(len(whole) + 1 if whole else 0)
    return [json.loads(line) for line in whole.decode().splitlines()]
