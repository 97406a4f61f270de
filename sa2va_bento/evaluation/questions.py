"""What a data set asks, whichever it is: an expression about a picture or a clip, and the right masks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]
"""(T, H, W): of a clip's frames, or of one picture."""


@dataclass(frozen=True)
class Truth:
    """The right masks, and pixels that count for nothing."""

    masks: Masks
    ignored: Masks | None = None


class Said(NamedTuple):
    """A reply, and its masks joined into one: (T, H, W), or None where it has none; and of a picture each by itself,
    (H, W), with its phrase."""

    text: str
    masks: Masks | None
    segments: tuple[tuple[str | None, NDArray[np.bool_]], ...] = ()


@dataclass(frozen=True)
class Question:
    """`id` tells it from the others. `frames` are files, one for a picture. Without `truth` the masks are only written,
    for a server that has it: as `place`, the folders under which it wants them."""

    id: str
    frames: tuple[Path, ...]
    prompt: str
    truth: Callable[[], Truth] | None = None
    place: str = ""
    keep: Callable[[Said], dict[str, Any]] | None = None
    """What is kept of an answer, where its data set is measured as a whole."""
