"""`evaluate`: a data set, a model or a service, and a table."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from sa2va_bento.cli.remote import Remote
from sa2va_bento.clips import ClipReply
from sa2va_bento.errors import BadRequestError, Sa2VAError
from sa2va_bento.evaluation import captions as grounded
from sa2va_bento.evaluation.clips import mevis, ref_davis, ref_youtube_vos
from sa2va_bento.evaluation.pictures import reasonseg, refcoco
from sa2va_bento.evaluation.published import DIFFERENCES, published
from sa2va_bento.evaluation.questions import Masks, Question, Said
from sa2va_bento.evaluation.run import MasksKept, Summary, run
from sa2va_bento.local.answer import Answer
from sa2va_bento.local.predictor import Predictor
from sa2va_bento.model.phrases import bert as load_bert

DATASETS = {
    "refcoco": "val",
    "refcoco+": "val",
    "refcocog": "val",
    "reasonseg": "val",
    "mevis": "valid_u",
    "ref-youtube-vos": "valid",
    "ref-davis": "valid",
    "gcg": "val",
}
"""With the split that is usually reported."""
AT_ONCE = 16
"""Requests to a service."""


def evaluate(
    dataset: str,
    data: Path,
    images: Path | None,
    split: str | None,
    out: Path,
    masks: MasksKept | None,
    limit: int | None,
    quiet: bool,
    url: str | None,
    key: str | None,
    model: str | None,
    device: str | None,
    threshold: float,
    max_new_tokens: int | None,
    adapter: str | None,
    bert: str,
) -> None:
    """Prints the table. Raises Sa2VAError in one line where nothing can be evaluated."""
    wanted = split or DATASETS[dataset]
    captions = grounded.GranDf(data, wanted) if dataset == "gcg" else None
    asked = captions.questions() if captions else _questions(dataset, data, wanted, images)
    questions = list(islice(asked, limit))
    measured = partial(grounded.measures, captions, alike=load_bert(bert)) if captions else None
    if not questions:
        raise BadRequestError(f"{data}: no question of {dataset}'s {wanted} there")
    kept = masks or ("first" if len(questions[0].frames) > 1 else "all")
    options: dict[str, Any] = {"mask_threshold": threshold, "max_new_tokens": max_new_tokens, "adapter": adapter}
    bar = tqdm(total=len(questions), unit="expression", disable=quiet or None, file=sys.stderr)
    with closing(_There(url, key, options) if url else _Here(model, device, options)) as asker, bar:
        found = run(questions, asker, out / f"{dataset}-{wanted}", kept, bar.update, measured)
    _print(found, dataset, wanted, model or "")


def _questions(dataset: str, data: Path, split: str, images: Path | None) -> Iterator[Question]:
    match dataset:
        case "reasonseg":
            return reasonseg(data, split)
        case "mevis":
            return mevis(data, split)
        case "ref-youtube-vos":
            return ref_youtube_vos(data, split)
        case "ref-davis":
            return ref_davis(data, split)
        case _:
            return refcoco(dataset, data, split, images)


class _Here:
    """A model in this process."""

    def __init__(self, model: str | None, device: str | None, options: dict[str, Any]) -> None:
        self._predictor = Predictor.load(model, **({"device": device} if device else {}))
        self._options = options

    def close(self) -> None:
        self._predictor.close()

    def about_pictures(self, asked: Iterable[tuple[Path, str]], kept: MasksKept) -> Iterator[Said | Sa2VAError]:
        for answer in self._predictor.predict_many(asked, keep_going=True, **self._options):
            if isinstance(answer, Sa2VAError):
                yield answer
            else:
                yield _said(answer, kept)

    def about_clip(self, frames: Sequence[Path], prompt: str, kept: MasksKept) -> Said:
        text, found = "", dict[int, Masks | None]()
        for event in self._predictor.follow(frames, prompt, **self._options):
            if isinstance(event, ClipReply):
                text = event.result
            else:
                found[event.index] = _joined([segment.mask[None] for segment in event.segments], kept)
        ordered = [found[index] for index in sorted(found)]
        masks = [mask for mask in ordered if mask is not None]
        return Said(text, np.concatenate(masks) if masks else None)


class _There:
    """A running service."""

    def __init__(self, url: str, key: str | None, options: dict[str, Any]) -> None:
        self._remote, self._options = Remote(url, key), options
        self._pool = ThreadPoolExecutor(AT_ONCE)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._remote.close()

    def about_pictures(self, asked: Iterable[tuple[Path, str]], kept: MasksKept) -> Iterator[Said | Sa2VAError]:
        waiting: list[Any] = []
        for pair in asked:
            waiting.append(self._pool.submit(self._about_picture, *pair, kept))
            if len(waiting) >= 2 * AT_ONCE:
                yield waiting.pop(0).result()
        for one in waiting:
            yield one.result()

    def _about_picture(self, path: Path, prompt: str, kept: MasksKept) -> Said | Sa2VAError:
        try:
            answer = self._remote.predict(path.read_bytes(), path.name, prompt, **self._options)
        except Sa2VAError as error:
            return error
        except OSError as error:
            return BadRequestError(f"{path}: {error.strerror or error}")
        return _said(answer, kept)

    def about_clip(self, frames: Sequence[Path], prompt: str, kept: MasksKept) -> Said:
        text, tracks = self._remote.follow_frames(frames, prompt, **self._options)
        return Said(text, _joined(tracks, kept))


def _said(answer: Answer, kept: MasksKept) -> Said:
    joined = _joined([segment.mask[None] for segment in answer.segments], kept)
    return Said(answer.result, joined, tuple((segment.phrase, segment.mask) for segment in answer.segments))


def _joined(masks: Sequence[Masks], kept: MasksKept) -> Masks | None:
    """One of several (T, H, W)."""
    if not masks:
        return None
    return masks[0] if kept == "first" else np.logical_or.reduce(masks)


def _print(found: Summary, dataset: str, split: str, model: str) -> None:
    click.echo(f"{dataset} {split}: {found.asked} expressions, {found.failed} failed")
    for name, number in found.numbers.items():
        click.echo(f"  {name:5} {number:6.2f}")
    if not found.numbers:
        click.echo("  no annotations here: Annotations/ is what the data set's server takes")
    theirs = published(model, dataset, split)
    if theirs is not None:
        click.echo(f"  published: {theirs:.1f} ({'cIoU' if 'cIoU' in found.numbers else 'J&F'}). Where they differ:")
        for line in DIFFERENCES:
            click.echo(f"  - {line}")
