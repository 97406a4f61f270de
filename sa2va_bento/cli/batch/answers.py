"""Rows to lines: what one predictor says about them, wherever it runs."""

import gc
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sa2va_bento.cli.batch.rows import Row
from sa2va_bento.cli.batch.storage import StoredFile
from sa2va_bento.cli.writers import OF_A_PICTURE, stem_of, write_picture
from sa2va_bento.errors import Sa2VAError
from sa2va_bento.local.answer import Answer
from sa2va_bento.local.predictor import Predictor


class Answered(NamedTuple):
    """A row with its answer as JSON, or why it has none."""

    row: Row
    answer: dict[str, Any] | None
    error: str | None = None


@dataclass(frozen=True)
class Wanted:
    """The options of `predict`, and the files to write beside the results."""

    options: Mapping[str, Any]
    out: Path
    formats: Sequence[str] = ()


def answer_rows(predictor: Predictor, rows: Iterable[Row], wanted: Wanted) -> Iterator[Answered]:
    """In the order of the rows, the model's batch always full."""
    gc.collect()
    gc.freeze()  # what lives as long as the process is no matter of collection: what a row leaves behind is found soon
    asked: deque[Row] = deque()

    def pairs() -> Iterator[tuple[Path | StoredFile, str]]:
        for row in rows:
            asked.append(row)
            yield row.path, row.prompt

    chosen = [name for name in wanted.formats if name in OF_A_PICTURE]
    for answer in predictor.predict_many(pairs(), keep_going=True, **wanted.options):
        row = asked.popleft()
        if isinstance(answer, Sa2VAError):
            yield Answered(row, None, answer.message)
        else:
            named = Answer(answer.prediction, answer.picture, row.prompt, row.image)
            write_picture(named, stem_of(row.image), wanted.out / "files", chosen)
            yield Answered(row, named.to_dict())
