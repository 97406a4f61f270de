"""What a step of the engine may take on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a step may take on."""

    slots: int = 16
    """Sequences that run at once."""
    context: int = 8192
    """Prompt and reply tokens of a sequence, at most."""
    kv_tokens: int = 0
    """Tokens of all sequences that the KV cache holds, at least one context; 0 is as many as slots of whole contexts
    would have."""
    max_tiles: int = 16
    """Tiles encoded together."""
    max_prefill: int = 1024
    """Prompt tokens read in a step; a longer prompt is read in pieces."""
    max_images: int = 8
    """Pictures that SAM2 encodes together."""
    max_masks: int = 32
    """`[SEG]`s in one batch of the mask decoder."""
    decode_tokens: int = 8
    """Tokens that running replies grow by before what has arrived gets its turn: long replies are not held up by
    every newcomer, and newcomers are read in larger batches."""
    feature_cache_bytes: int = 0
    """Features of pictures that are kept."""
    prefix_cache_bytes: int = 0
    """Keys and values of prompts' beginnings that are kept."""
    clip_share: float = 0.3
    """Of the engine's time, what clips that are tracked may take while others have work."""

    def __post_init__(self) -> None:
        if not self.kv_tokens:
            object.__setattr__(self, "kv_tokens", self.slots * self.context)
