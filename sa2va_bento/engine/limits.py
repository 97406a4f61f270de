"""What a step of the engine may take on, and what the settings ask of it for a given checkpoint."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sa2va_bento.settings import Settings

if TYPE_CHECKING:
    from sa2va_bento.model.config import CheckpointConfig


@dataclass(frozen=True)
class Limits:
    """What a step may take on."""

    slots: int = 16
    """Sequences that run at once: rows of the cache."""
    context: int = 8192
    """Prompt and reply tokens that a row holds."""
    max_tiles: int = 16
    """Tiles encoded together."""
    max_prefill: int = 1024
    """Prompt tokens read in a step, padding included; a longer prompt is read in pieces."""
    max_images: int = 8
    """Pictures that SAM2 encodes together."""
    decode_tokens: int = 8
    """Tokens that running replies grow by before what has arrived gets its turn: long replies are not held up by
    every newcomer, and newcomers are read in larger batches."""
    clip_share: float = 0.3
    """Of the engine's time, what clips that are tracked may take while others have work."""


def limits_of(settings: Settings, config: "CheckpointConfig") -> Limits:
    """The engine's limits; a context longer than the model's own is cut to it."""
    context = min(settings.context, config.llm.max_position_embeddings)
    return Limits(slots=settings.slots, context=context, max_prefill=settings.max_prefill)
