"""The one request type that goes into the core and the one result type that comes out of it.

The edge (HTTP schemas, encoders) builds the first and renders the second; nothing in the core knows JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FinishReason = Literal["stop", "length"]
Role = Literal["user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """An earlier message of the conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: temperature 0 takes the likeliest; otherwise it is drawn from the smallest set of
    tokens whose probabilities sum to `top_p`, by random numbers that depend on `seed` alone."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class PredictRequest:
    """What a caller asks: an upright RGB picture (or none), a prompt, and how to answer.

    `regions` are visual prompts as boolean masks (H, W) of the picture's size. `mask_threshold` is the
    probability (0, 1) above which a pixel belongs to a mask. A limit left at None takes the service's default.
    """

    prompt: str
    image: Image.Image | None = None
    regions: tuple[NDArray[np.bool_], ...] = ()
    history: tuple[Turn, ...] = ()
    mask_threshold: float = 0.5
    max_new_tokens: int | None = None
    max_tiles: int | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    """Texts that end the reply where they begin; they are not part of it."""


@dataclass(frozen=True)
class Segment:
    """One `[SEG]` of the reply.

    `mask` is boolean (H, W) at the picture's size. `score` is SAM2's predicted IoU (0..1, not calibrated),
    `object_score` the probability that the object is visible at all. `phrase` and `text_span` (start, end in
    `Prediction.text`) come from the `<p>..</p>` group before the `[SEG]`, if there is one.
    """

    mask: NDArray[np.bool_]
    score: float
    object_score: float
    threshold: float
    phrase: str | None = None
    text_span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Usage:
    """Token counts; `image_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int
    image_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Prediction:
    """A complete answer. `result` keeps `[SEG]` and `<p>..</p>`, `text` is the prose without them."""

    result: str
    text: str
    segments: tuple[Segment, ...]
    image_size: tuple[int, int] | None
    usage: Usage
    finish_reason: FinishReason
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextDelta:
    """Text that continues `Prediction.result`; all deltas together are the result."""

    text: str


@dataclass(frozen=True)
class SegmentReady:
    """One of the answer's segments, `index` counting from 0."""

    index: int
    segment: Segment


StreamEvent = TextDelta | SegmentReady
"""What can be told of an answer while it is made."""
