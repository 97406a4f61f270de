"""A whole data set through one model: rows read, answered in full batches, and written in their order."""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from pycocotools import mask as coco
from tqdm import tqdm

from sa2va_bento.cli.batch.results import Results
from sa2va_bento.cli.batch.rows import Row, rows_of
from sa2va_bento.cli.writers import OF_A_PICTURE, OF_ALL, stem_of, write_all, write_picture
from sa2va_bento.errors import Sa2VAError
from sa2va_bento.labels.labelled import Labelled
from sa2va_bento.local.answer import Answer
from sa2va_bento.local.predictor import Predictor
from sa2va_bento.types import Segment


def batch(
    source: str,
    prompts: Sequence[str],
    out: Path,
    formats: Sequence[str],
    quiet: bool,
    model: str | None,
    device: str | None,
    threshold: float,
    max_new_tokens: int | None,
) -> None:
    """Answers every row that has no answer yet. Exit status 0 also where rows failed: their lines say why.

    Raises:
        Sa2VAError: nothing can be answered: the source, the folder or the model is wrong.
    """
    total = sum(1 for _ in rows_of(source, prompts))
    with closing(Results(out)) as results:
        rows = _left(rows_of(source, prompts), results)
        bar = tqdm(total=total, initial=results.done, unit="row", disable=quiet or None, file=sys.stderr)
        if results.done < total:
            options: dict[str, Any] = {"mask_threshold": threshold, "max_new_tokens": max_new_tokens}
            with Predictor.load(model, **({"device": device} if device else {})) as predictor, bar:
                _answer_all(predictor, rows, results, out, formats, options, bar)
    of_all = [name for name in formats if name in OF_ALL]
    if of_all:
        write_all(
            [_labelled(line) for line in results.lines() if line["status"] == "ok"], out, of_all, model or "sa2va"
        )
    click.echo(f"{total} rows, {results.failed} failed: {results.path}", err=True)


def _left(rows: Iterator[Row], results: Results) -> Iterator[Row]:
    """The rows that have no line yet, once those that have are seen to be the same."""
    for number, row in enumerate(islice(rows, results.done)):
        results.check(number, row)
    return rows


def _answer_all(
    predictor: Predictor,
    rows: Iterator[Row],
    results: Results,
    out: Path,
    formats: Sequence[str],
    options: dict[str, Any],
    bar: "tqdm[Any]",
) -> None:
    asked: deque[Row] = deque()

    def pairs() -> Iterator[tuple[Path, str]]:
        for row in rows:
            asked.append(row)
            yield row.path, row.prompt

    chosen = [name for name in formats if name in OF_A_PICTURE]
    for answer in predictor.predict_many(pairs(), keep_going=True, **options):
        row = asked.popleft()
        if isinstance(answer, Sa2VAError):
            results.add(row, None, answer.message)
        else:
            named = Answer(answer.prediction, answer.picture, row.prompt, row.image)
            write_picture(named, stem_of(row.image), out / "files", chosen)
            results.add(row, named.to_dict())
        bar.update()


def _labelled(line: dict[str, Any]) -> Labelled:
    size = line["image_size"]
    segments = [
        Segment(
            np.asarray(coco.decode(found["mask"]), dtype=bool),
            found["score"],
            found["object_score"],
            found["threshold"],
            found["phrase"],
        )
        for found in line["segments"]
    ]
    return Labelled(line["image"], (size["width"], size["height"]), segments)
