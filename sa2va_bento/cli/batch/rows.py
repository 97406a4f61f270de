"""What is asked about which pictures, one row after the other, from a folder or a file."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sa2va_bento.cli.batch.storage import StoredFile, found, is_stored
from sa2va_bento.errors import BadRequestError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
NAMES = ("image", "file_name", "path")
"""Columns that may name a picture."""


@dataclass(frozen=True)
class Row:
    """`image` is how the source names the picture, `path` where it is; `id` is the source's own, if it has one."""

    image: str
    path: Path | StoredFile
    prompt: str
    id: str | int | None = None

    @property
    def key(self) -> str:
        """Tells it from other rows."""
        return json.dumps([self.image, self.prompt, self.id])


def rows_of(source: str, prompts: Sequence[str]) -> Iterator[Row]:
    """The rows of a folder (searched through), a pattern, or a JSONL, CSV, Parquet or COCO file, here or in a store
    (`storage.py`), in an order that is the same each time. A row without a prompt of its own is asked each of
    `prompts`.

    Raises:
        BadRequestError: there is nothing, a row names no picture, or there is no prompt for it.
    """
    count = 0
    for image, path, fields in _named(source):
        own = fields.get("prompt")
        wanted = [str(own)] if own not in (None, "") else list(prompts)
        if not wanted:
            raise BadRequestError(f"{image}: no prompt; give --prompt, or a column `prompt`")
        for prompt in wanted:
            count += 1
            yield Row(image, path, prompt, fields.get("id"))
    if not count:
        raise BadRequestError(f"{source}: no picture there")


Named = tuple[str, "Path | StoredFile", Mapping[str, Any]]
"""What a picture is called, where it is, and the columns of its row."""


def _named(source: str) -> Iterator[Named]:
    if is_stored(source):
        yield from _stored(source)
        return
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _in_folder(path)
    elif path.is_file():
        yield from _in_file(path)
    elif set(source) & set("*?["):
        yield from _matching(path)
    else:
        raise BadRequestError(f"{source}: no such file or folder")


def _stored(source: str) -> Iterator[Named]:
    files = found(source)
    if len(files) == 1 and not files[0][0]:
        yield from _in_file(files[0][1])
        return
    for name, file in files:
        if file.suffix.lower() in SUFFIXES:
            yield name, file, {}


def _in_folder(folder: Path) -> Iterator[Named]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            yield path.relative_to(folder).as_posix(), path, {}


def _matching(pattern: Path) -> Iterator[Named]:
    base = Path(pattern.anchor or ".")
    for path in sorted(base.glob(str(pattern.relative_to(pattern.anchor) if pattern.anchor else pattern))):
        yield path.as_posix(), path, {}


def _in_file(path: Path | StoredFile) -> Iterator[Named]:
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".parquet": _parquet, ".json": _coco}
    if path.suffix.lower() in SUFFIXES:
        yield path.name, path, {}
        return
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadRequestError(f"{path}: neither a picture, nor JSONL, CSV, Parquet or COCO's JSON")
    for number, fields in enumerate(reader(path), 1):
        image = next((str(fields[name]) for name in NAMES if fields.get(name)), None)
        if image is None:
            raise BadRequestError(f"{path}, row {number}: names no picture (columns {', '.join(NAMES)})")
        yield image, _beside(path, image), fields


def _beside(path: Path | StoredFile, image: str) -> Path | StoredFile:
    if isinstance(path, Path):
        return path.parent / image
    return StoredFile(image if is_stored(image) else f"{path.folder}/{image}")


def _text(path: Path | StoredFile, encoding: str = "utf-8") -> io.StringIO:
    """Lists of rows are small beside their pictures."""
    return io.StringIO(path.read_bytes().decode(encoding), newline="")


def _jsonl(path: Path | StoredFile) -> Iterator[Mapping[str, Any]]:
    with _text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield dict(json.loads(line))
                except (ValueError, TypeError):
                    raise BadRequestError(f"{path}, line {number}: not a JSON object") from None


def _csv(path: Path | StoredFile) -> Iterator[Mapping[str, Any]]:
    with _text(path, "utf-8-sig") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path | StoredFile) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found]
    except ImportError:
        raise BadRequestError(f"{path}: Parquet needs pyarrow (pip install pyarrow)") from None
    with path.open("rb") if isinstance(path, Path) else path.open() as file:
        for batch in parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()


def _coco(path: Path | StoredFile) -> Iterator[Mapping[str, Any]]:
    try:
        images = json.loads(path.read_bytes())["images"]
    except (ValueError, KeyError, TypeError):
        raise BadRequestError(f"{path}: not a COCO document") from None
    yield from images
