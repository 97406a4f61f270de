"""Rows over the machines of a Ray cluster: Ray Data with a pool of actors, each of which has the model."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sa2va_bento.cli.batch.answers import Answered, Wanted, answer_rows
from sa2va_bento.cli.batch.rows import Row
from sa2va_bento.cli.batch.storage import StoredFile, is_stored
from sa2va_bento.errors import BadRequestError
from sa2va_bento.local.predictor import Predictor

ROWS_AT_ONCE = 64
"""That an actor is given together: what is asked again where one dies. Many more than a model answers at once."""


def answers(
    rows: Iterator[Row], wanted: Wanted, model: dict[str, Any], address: str, actors: int | None
) -> Iterator[Answered]:
    """In the order of the rows. An actor that dies is started again, and its rows with it.

    Args:
        rows: Their pictures are where every machine finds them.
        wanted: Its folder, too.
        model: As `Predictor.load` takes it.
        address: Of the cluster; `auto` for the one that this machine belongs to, `local` to start one here.
        actors: How many; None is one for each GPU or, where there is none, one.

    Raises:
        BadRequestError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray  # type: ignore[import-not-found]
        import ray.data  # type: ignore[import-not-found]
    except ImportError:
        raise BadRequestError("--ray needs Ray (pip install 'sa2va-bento[ray]')") from None
    try:
        ray.init(address=None if address == "local" else address, log_to_driver=False, ignore_reinit_error=True)
    except (ConnectionError, ValueError) as error:
        raise BadRequestError(f"no Ray cluster at {address}: {error}") from None
    try:
        yield from _answers(ray, list(rows), wanted, model, actors)
    finally:
        with suppress(Exception):
            ray.shutdown()


def _answers(
    ray: Any, rows: list[Row], wanted: Wanted, model: dict[str, Any], actors: int | None
) -> Iterator[Answered]:
    gpus = int(ray.cluster_resources().get("GPU", 0))
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    asked = ray.data.from_items([_packed(row) for row in rows], override_num_blocks=-(-len(rows) // ROWS_AT_ONCE))
    answered = asked.map_batches(
        _Labeller,
        fn_constructor_args=(wanted, model),
        batch_size=ROWS_AT_ONCE,
        concurrency=actors or max(1, gpus),
        num_gpus=1 if gpus else 0,
        num_cpus=0 if gpus else 1,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row, said in zip(rows, answered.iter_rows(), strict=True):
        answer, error = json.loads(said["said"])
        yield Answered(row, answer, error)


class _Labeller:
    """An actor."""

    def __init__(self, wanted: Wanted, model: dict[str, Any]) -> None:
        self._wanted, self._predictor = wanted, Predictor.load(**model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        rows = [
            Row(**{**said, "path": StoredFile(said["path"]) if is_stored(said["path"]) else Path(said["path"])})
            for said in map(json.loads, batch["row"])
        ]
        return {
            "said": [json.dumps([one.answer, one.error]) for one in answer_rows(self._predictor, rows, self._wanted)]
        }


def _packed(row: Row) -> dict[str, str]:
    path = row.path.absolute() if isinstance(row.path, Path) else row.path.url
    return {"row": json.dumps({"image": row.image, "path": str(path), "prompt": row.prompt, "id": row.id})}
