"""A whole data set through one model: rows read, answered in full batches, and written in their order."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from pycocotools import mask as coco
from tqdm import tqdm

from sa2va_bento.cli.batch.answers import Answered, Wanted, answer_rows
from sa2va_bento.cli.batch.parquet import write_parquet
from sa2va_bento.cli.batch.results import Results
from sa2va_bento.cli.batch.rows import Row, rows_of
from sa2va_bento.cli.batch.spread import answers
from sa2va_bento.cli.writers import OF_ALL, write_all
from sa2va_bento.labels.labelled import Labelled
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
    adapter: str | None,
    ray: str | None,
    actors: int | None,
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
            options["adapter"] = adapter
            wanted = Wanted(options, out.absolute(), formats)
            loading: dict[str, Any] = {"model": model, **({"device": device} if device else {})}
            with bar:
                if ray:
                    _record(answers(rows, wanted, loading, ray, actors), results, bar)
                else:
                    with Predictor.load(**loading) as predictor:
                        _record(answer_rows(predictor, rows, wanted), results, bar)
    of_all = [name for name in formats if name in OF_ALL]
    if of_all:
        write_all(
            [_labelled(line) for line in results.lines() if line["status"] == "ok"], out, of_all, model or "sa2va"
        )
    if "parquet" in formats:
        write_parquet(results.lines(), out)
    click.echo(f"{total} rows, {results.failed} failed: {results.path}", err=True)


def _left(rows: Iterator[Row], results: Results) -> Iterator[Row]:
    """The rows that have no line yet, once those that have are seen to be the same."""
    for number, row in enumerate(islice(rows, results.done)):
        results.check(number, row)
    return rows


def _record(answered: Iterable[Answered], results: Results, bar: "tqdm[Any]") -> None:
    for one in answered:
        results.add(one.row, one.answer, one.error)
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
