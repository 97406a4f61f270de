"""The results as one Parquet file, a row a row."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sa2va_bento.errors import BadRequestError

FILE = "results.parquet"
ROWS = 1000
"""Of a row group: what is in memory at a time."""


def write_parquet(lines: Iterable[Mapping[str, Any]], out: Path) -> Path:
    """Writes lines of `results.jsonl`, masks as COCO's run lengths. Raises BadRequestError where pyarrow is missing."""
    try:
        import pyarrow as pa  # type: ignore[import-not-found]
        from pyarrow import parquet  # type: ignore[import-not-found]
    except ImportError:
        raise BadRequestError("Parquet needs pyarrow (pip install 'sa2va-bento[parquet]')") from None
    schema, path, left = _schema(pa), out / FILE, iter(lines)
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(_rows(islice(left, ROWS))):
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return path


def _rows(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Ids are text: a source's own may be numbers or text."""
    for line in lines:
        number = line.get("id")
        yield {**line, "id": None if number is None else str(number)}


def _schema(pa: Any) -> Any:
    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    segment = pa.struct(
        [
            *(("id", pa.int32()), ("phrase", pa.string()), ("bbox", pa.list_(pa.int32())), ("area", pa.int64())),
            *(("score", pa.float64()), ("object_score", pa.float64()), ("threshold", pa.float64()), ("mask", mask)),
        ]
    )
    return pa.schema(
        [
            *((name, pa.string()) for name in ("id", "image", "prompt", "status", "error", "result", "text")),
            ("image_size", pa.struct([("width", pa.int32()), ("height", pa.int32())])),
            ("segments", pa.list_(segment)),
            ("finish_reason", pa.string()),
        ]
    )
