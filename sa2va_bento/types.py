"""The types that travel: the one request that goes into the core, the one picture that its models read, the one result
that comes out, and the context that goes along.

The edge (HTTP schemas, encoders) builds the request and renders the result; nothing in the core knows JSON.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FinishReason = Literal["stop", "length"]
Role = Literal["user", "assistant"]
Rendered = TypeVar("Rendered", covariant=True)


class Stage(StrEnum):
    """What a request's time is spent on, in the order of its way; the names are those of `timings_ms`."""

    RECEIVE = "receive"
    """Reading its body."""
    QUEUE = "queue"
    """Waiting for a worker thread or for the engine, between the engine's stages too."""
    IMAGE_DECODE = "image_decode"
    """Parsing the request, decoding its picture and regions."""
    PREPROCESS = "preprocess"
    """Image processing and tokenising."""
    ENCODE = "encode"
    """The vision tower."""
    PREFILL = "prefill"
    """Reading the prompt, or what of it is not in the prefix cache."""
    DECODE = "decode"
    """Writing the reply."""
    SEGMENT = "segment"
    """SAM2, and its masks at the picture's size."""
    RENDER = "render"
    """Encoding the answer."""


class RequestContext:
    """What is known of a request from its arrival to its answer, whatever is asked: made once, passed on.

    It is the request's clock, too: every moment since its arrival belongs to one stage, so that the stages add up to
    the whole.
    """

    def __init__(self, request_id: str = "", timeout_s: float | None = None) -> None:
        """`timeout_s` seconds after now nobody waits for the answer; None leaves that to the service's settings.
        `may_wait` says that it gives way to others."""
        self.request_id, self.timeout_s = request_id, timeout_s
        self.may_wait = False
        self.arrived = self._since = time.monotonic()
        self._seconds: dict[Stage, float] = {}
        self._moments: dict[Stage, tuple[float, float]] = {}

    @property
    def deadline(self) -> float | None:
        """`time.monotonic()` value."""
        return None if self.timeout_s is None else self.arrived + self.timeout_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative once it has passed."""
        return float("inf") if self.timeout_s is None else self.arrived + self.timeout_s - time.monotonic()

    def lap(self, stage: Stage) -> None:
        """Ends a stage: the time since the last one ended was spent on it."""
        now = time.monotonic()
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._since
        self._moments[stage] = (self._moments.get(stage, (self._since, now))[0], now)
        self._since = now

    @property
    def seconds(self) -> Mapping[Stage, float]:
        """Spent on each stage so far."""
        return dict(self._seconds)

    @property
    def moments(self) -> Mapping[Stage, tuple[float, float]]:
        """When each stage first began and last ended, `time.monotonic()` values: stages take turns."""
        return dict(self._moments)

    @property
    def timings_ms(self) -> dict[str, float]:
        """Milliseconds of each stage, and `total`: from the arrival to the end of the last stage."""
        spent = {stage.value: 1e3 * seconds for stage, seconds in self._seconds.items()}
        return {**spent, "total": 1e3 * (self._since - self.arrived)}


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
    frames: tuple[Image.Image, ...] = ()
    """In place of `image`: the frames of a clip that the language model sees, all of one size."""
    soft_masks: bool = False
    """Whether `Segment.probability` is wanted, too."""
    adapter: str | None = None
    """Name of the adapter that answers, None for the model itself."""
    context: RequestContext = field(default_factory=RequestContext, compare=False)


class TokenGrid(NamedTuple):
    """Rows and columns of the image tokens that stand for one image, or for one tile of it."""

    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        return self.rows * self.columns


class Pixels:
    """An array that is made once, by whichever thread asks first, and let go when nobody needs it any more: a large
    picture may take hundreds of megabytes."""

    def __init__(self, make: Callable[[], NDArray[np.float32]]) -> None:
        self._make: Callable[[], NDArray[np.float32]] | None = make
        self._made: NDArray[np.float32] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> NDArray[np.float32]:
        with self._lock:
            if self._made is None:
                if self._make is None:
                    raise RuntimeError("these pixels were let go")
                self._made, self._make = self._make(), None
            return self._made

    def prepare(self, is_needless: bool) -> None:
        """Makes the array now or, where what would be computed from it is at hand, never."""
        self.let_go() if is_needless else self()

    def let_go(self) -> None:
        """Frees the array, and what it is made of."""
        with self._lock:
            self._made = self._make = None


@dataclass(frozen=True)
class Picture:
    """A picture as the model reads it, from the image processor to the runner; its pixels, float32 on the CPU, are made
    when they are first asked for.

    `tiles()` gives (N, 3, S, S), the thumbnail last, or whatever else the family's vision tower reads, and
    `sam_pixels()` (3, M, M). `key` names the picture's content, `tiles_key` its content and cut, so that what was
    computed from them once can be found again. `tile_count` says how much encoding it costs, in tiles; `grids` has the
    image tokens of each tile or image that the language model sees; `size` is (width, height). `region_cells` has a
    boolean (cells,) for each region: the cells of the last tile that it covers.
    """

    key: str
    tiles_key: str
    tile_count: int
    tiles: Pixels
    sam_pixels: Pixels
    grids: tuple[TokenGrid, ...]
    size: tuple[int, int] = (0, 0)
    region_cells: tuple[NDArray[np.bool_], ...] = ()
    warnings: tuple[str, ...] = ()

    frames: int = 1
    """Of a clip, which take as many image tokens each."""
    is_clip: bool = False
    """What it shows is followed through a clip instead of being grounded on it, and nothing of it is kept."""

    @property
    def image_tokens(self) -> int:
        """Image tokens of the picture itself, or of each frame, its regions apart."""
        return sum(grid.tokens for grid in self.grids) // self.frames

    @property
    def region_tokens(self) -> tuple[int, ...]:
        """Image tokens of each region."""
        return tuple(int(cells.sum()) for cells in self.region_cells)

    @property
    def all_tokens(self) -> int:
        """Image tokens of the picture and its regions."""
        return self.image_tokens * self.frames + sum(self.region_tokens)


@dataclass(frozen=True)
class Segment:
    """One `[SEG]` of the reply.

    `mask` is boolean (H, W) at the picture's size. `score` is SAM2's predicted IoU (0..1, not calibrated),
    `object_score` the probability that the object is visible at all. `phrase` and `text_span` (start, end in
    `Prediction.text`) come from the `<p>..</p>` group before the `[SEG]`, if there is one. `probability`, where it is
    asked for, is each pixel's, 0 to 255, before the cut.
    """

    mask: NDArray[np.bool_]
    score: float
    object_score: float
    threshold: float
    phrase: str | None = None
    text_span: tuple[int, int] | None = None
    probability: NDArray[np.uint8] | None = None

    @property
    def box(self) -> tuple[int, int, int, int]:
        """[x, y, w, h] of the smallest box around the mask, in pixels; all zero where it is empty."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not rows.size:
            return 0, 0, 0, 0
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1

    @property
    def area(self) -> int:
        """Pixels inside the mask."""
        return int(self.mask.sum())


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

    def with_timings(self, timings_ms: Mapping[str, float]) -> "Prediction":
        return replace(self, timings_ms=timings_ms)


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


@dataclass(frozen=True)
class CacheStats:
    """A cache at a moment: what it holds, and its look-ups since the start."""

    entries: int
    bytes: int
    hits: int
    misses: int


@dataclass(frozen=True)
class EngineStats:
    """The engine at a moment. `kv_tokens` of `kv_capacity` places of the KV cache are in use, in `kv_rows` rows; `held`
    counts the sequences that the device keeps anything of; `caches` has the feature and prefix caches by name."""

    kv_tokens: int = 0
    kv_capacity: int = 0
    kv_rows: int = 0
    held: int = 0
    has_cuda_graphs: bool = False
    caches: Mapping[str, CacheStats] = field(default_factory=dict)


class Exchange(Protocol[Rendered]):
    """A request and its answer in the terms of whoever asks. `read` and `render` run in the worker threads."""

    @property
    def context(self) -> RequestContext: ...

    def read(self) -> PredictRequest:
        """Parses and decodes what is asked. Raises Sa2VAError."""
        ...

    def begin(self) -> bool:
        """The request is sound and goes to the engine. Whether `tell` wants to hear how the answer grows."""
        ...

    def tell(self, event: StreamEvent) -> None:
        """What has become of the answer, on threads of the predictor and before it is complete. Must be quick."""
        ...

    def render(self, prediction: Prediction) -> Rendered:
        """The answer as it is wanted."""
        ...
