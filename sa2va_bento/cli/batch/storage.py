"""Files elsewhere, by fsspec: `s3://bucket/key`, `gs://bucket/key` and whatever else is installed for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec

from sa2va_bento.errors import BadRequestError

NETWORK = ("http", "https", "ftp", "github", "git", "webhdfs")
"""Not stores of the caller's own, but addresses of anybody's."""


@dataclass(frozen=True)
class StoredFile:
    """A file in a store."""

    url: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.url).suffix

    @property
    def folder(self) -> str:
        return self.url.rpartition("/")[0]

    def __str__(self) -> str:
        return self.url

    def read_bytes(self) -> bytes:
        """Raises OSError."""
        try:
            with self.open() as file:
                return file.read()
        except (OSError, BadRequestError):
            raise
        except Exception as error:  # each store has errors of its own
            raise OSError(f"{self.url}: {error or type(error).__name__}") from None

    @contextmanager
    def open(self) -> Iterator[Any]:
        """As bytes, read as they are needed. Raises OSError, or BadRequestError where there is no such store."""
        with _opened(self.url) as file:
            yield file


def is_stored(source: str) -> bool:
    """Whether a source is a URL."""
    return "://" in source


def found(source: str) -> list[tuple[str, StoredFile]]:
    """All files below a URL, named from there on, or the one that it names, in order. Raises BadRequestError."""
    system, path = _system(source)
    try:
        names: list[str] = [path] if system.isfile(path) else sorted(system.find(path))
    except Exception as error:  # each store has errors of its own
        raise BadRequestError(f"{source}: {error or type(error).__name__}") from None
    base = len(path.rstrip("/")) + 1
    return [(name[base:], StoredFile(system.unstrip_protocol(name))) for name in names]


def _opened(url: str) -> Any:
    system, path = _system(url)
    return system.open(path, "rb")


def _system(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    if protocol in NETWORK:
        raise BadRequestError(f"{url}: {protocol} is not read")
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise BadRequestError(f"{url}: {error}") from None
