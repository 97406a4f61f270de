"""A request's whole state while the engine works on it. No torch in here: tensors are the runner's business."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sa2va_bento.types import FinishReason, Picture, RequestContext, Sampling

GREEDY = Sampling()


class Status(Enum):
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


@dataclass(frozen=True)
class Prefix:
    """The part of a prompt that the prefix cache may hold: its first `length` tokens, where they depend on the picture
    alone. Every question about it begins with them, so that their keys and values serve all of these. Equal keys mean
    equal tokens and equal pictures."""

    key: str
    length: int


@dataclass(frozen=True)
class MaskLogits:
    """What SAM2 says of one `[SEG]`: low-resolution logits (h, w) float32, predicted IoU, object score (0..1)."""

    logits: NDArray[np.float32]
    score: float
    object_score: float


@dataclass(frozen=True)
class Generation:
    """The engine's answer: reply ids without the stop token, one entry of `masks` a grounded `[SEG]`."""

    output_ids: tuple[int, ...]
    completion_tokens: int
    finish_reason: FinishReason
    masks: tuple[MaskLogits, ...]
    timings_ms: dict[str, float]
    prompts: Any = None
    """Of a reply about a clip: what its objects are followed by, one row a `[SEG]`, a tensor of the runner's."""


class Listener(Protocol):
    """Is told, on the engine's thread, how a reply grows. Must be quick and must not raise."""

    def on_token(self, token: int) -> None:
        """The next token, stop tokens apart."""
        ...

    def on_masks(self, sequence: "Sequence") -> None:
        """There are new masks."""
        ...


@dataclass(eq=False)
class Sequence:
    """One request on its way through the engine."""

    prompt_ids: tuple[int, ...]
    picture: Picture | None
    max_new_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling = GREEDY
    ends_reply: Callable[[list[int]], bool] = lambda output_ids: False
    """Whether a stop string of the request is in the reply so far."""
    seg_id: int = -1
    prefix: Prefix | None = None
    adapter: str | None = None
    """Name of the adapter that answers, None for the model itself."""
    may_wait: bool = False
    """Of the class of requests that give way to others."""
    listener: "Listener | None" = None
    deadline: float = float("inf")
    """`time.monotonic()` value after which nobody waits for the answer."""
    is_cancelled: Callable[[], bool] = lambda: False

    status: Status = Status.WAITING
    is_encoded: bool = False
    """Whether the runner holds the picture's features, or there is no picture."""
    prefilled: int = 0
    """Prompt tokens read so far."""
    resumed: int = 0
    """Reply tokens that are read again with the prompt, since its row of the KV cache was taken from it."""
    output_ids: list[int] = field(default_factory=list[int])
    """Reply ids so far, the stop token included once it came."""
    has_stopped: bool = False
    segs_read: int = 0
    """`[SEG]`s that the language model has read."""
    is_last_seg_read: bool = False
    masks: tuple[MaskLogits, ...] = ()
    prompts: Any = None
    pinned: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Features of its picture, by their keys, that the caches had when it came: it has them whatever they drop."""
    context: RequestContext = field(default_factory=RequestContext)
    first_token_at: float | None = None
    """`time.monotonic()` value."""

    def __post_init__(self) -> None:
        self.is_encoded = self.picture is None

    @property
    def tile_count(self) -> int:
        return self.picture.tile_count if self.picture else 0

    @property
    def may_hit_prefix_cache(self) -> bool:
        """Whether nothing of the prompt was read yet and others may have read its beginning."""
        return self.prefix is not None and self.prefilled == 0

    @property
    def unread(self) -> int:
        """Prompt tokens still to be read, or to be read again with the reply so far."""
        return len(self.prompt_ids) + self.resumed - self.prefilled

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the reply so far: what its row of the KV cache must hold in the next step."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def is_full(self) -> bool:
        """Whether the reply has as many tokens as it may."""
        return len(self.output_ids) >= self.max_new_tokens

    @property
    def is_complete(self) -> bool:
        return self.has_stopped or (self.is_full and not self.has_seg_to_read)

    @property
    def has_seg_to_read(self) -> bool:
        """Whether the reply is cut off right at a `[SEG]`: it is read, too, since its state there prompts its mask.
        (Upstream leaves such a marker without a mask.)"""
        ends_with_seg = bool(self.output_ids) and self.output_ids[-1] == self.seg_id
        return self.is_full and ends_with_seg and self.picture is not None and not self.is_last_seg_read

    @property
    def is_decoding(self) -> bool:
        return self.unread == 0 and not self.is_complete

    @property
    def has_masks_to_come(self) -> bool:
        return self.picture is not None and not self.picture.is_clip and len(self.masks) < self.segs_read

    @property
    def wants_grounding(self) -> bool:
        """Now: when the text is complete; as soon as a `[SEG]` was read where somebody watches."""
        return self.has_masks_to_come and (self.is_complete or self.listener is not None)

    @property
    def is_finished(self) -> bool:
        return self.is_complete and not self.has_masks_to_come

    @property
    def is_expired(self) -> bool:
        return time.monotonic() > self.deadline

    @property
    def finish_reason(self) -> FinishReason:
        return "stop" if self.has_stopped else "length"

    def start(self) -> None:
        self.status = Status.RUNNING

    def skip(self, tokens: int) -> None:
        """Notes that the first tokens of the prompt are in the cache, and with them the picture's."""
        self.prefilled = tokens
        if tokens and self.picture and not self.picture.region_cells:
            self.is_encoded = True

    def preempt(self, is_encoded: bool) -> None:
        """Goes back to waiting: prompt and reply so far are read again before the reply goes on. Its last token was
        not read yet."""
        self.status, self.prefilled, self.resumed = Status.WAITING, 0, max(0, len(self.output_ids) - 1)
        self.is_encoded = is_encoded

    def append(self, token: int) -> None:
        """Adds the reply's next token and notes whether it ends the reply. What follows a `[SEG]` that was read for its
        mask alone is not part of it."""
        if self.has_seg_to_read:
            self.segs_read, self.is_last_seg_read = self.segs_read + 1, True
            return
        self.segs_read += bool(self.output_ids) and self.output_ids[-1] == self.seg_id
        self.output_ids.append(token)
        if self.first_token_at is None:
            self.first_token_at = time.monotonic()
        self.has_stopped = token in self.stop_ids or self.ends_reply(self.output_ids)
        if self.listener and token not in self.stop_ids:
            self.listener.on_token(token)

    def add_masks(self, masks: tuple[MaskLogits, ...]) -> None:
        """Adds the next `[SEG]`s' masks."""
        self.masks += masks
        if self.listener and masks:
            self.listener.on_masks(self)

    def uniform(self) -> float:
        """The random number (0 <= u < 1) behind the next token: a function of seed and place alone, so that an answer
        does not depend on what else runs, nor on a step that is repeated."""
        return random.Random(f"{self.sampling.seed}/{len(self.output_ids)}").random()

    def generation(self) -> Generation:
        """The finished answer."""
        ended_by_token = bool(self.output_ids) and self.output_ids[-1] in self.stop_ids
        reply = self.output_ids[:-1] if ended_by_token else self.output_ids
        return Generation(
            output_ids=tuple(reply),
            completion_tokens=len(self.output_ids),
            finish_reason=self.finish_reason,
            masks=self.masks,
            timings_ms=self.context.timings_ms,
            prompts=self.prompts,
        )
