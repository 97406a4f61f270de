"""How a conversation is written for a language model: its special tokens, and the places of text and pictures."""

from dataclasses import dataclass

IMAGE_CONTEXT, SEG = "<IMG_CONTEXT>", "[SEG]"
PHRASE_START, PHRASE_END = "<p>", "</p>"
MARKERS = (SEG, PHRASE_START, PHRASE_END)
"""What the model writes beside prose."""


@dataclass(frozen=True)
class Special:
    """A special token, `count` times over."""

    token: str
    count: int = 1


Piece = str | Special
"""Part of a prompt: plain text or a special token."""


@dataclass(frozen=True)
class ChatTemplate:
    """A conversation as upstream formats it. `start` stands in front of all turns; a picture is `image_token`, as often
    as it has image tokens, between `image_start` and `image_end`, if these are anything."""

    name: str
    """In `config.json`, or the family's."""
    user_start: tuple[Piece, ...]
    user_end: tuple[Piece, ...]
    assistant_end: tuple[Piece, ...]
    stop_words: tuple[str, ...]
    start: tuple[Piece, ...] = ()
    image_start: str = "<img>"
    image_token: str = IMAGE_CONTEXT
    image_end: str = "</img>"
    between_images: str = "\n"
    drops_image_words: bool = False
    """Whether a typed `<image>` goes from everywhere, not from the front of a question alone."""


CHATML = ChatTemplate(
    name="qwen_chat",
    user_start=(Special("<|im_start|>"), "user\n"),
    user_end=(Special("<|im_end|>"), "\n", Special("<|im_start|>"), "assistant\n"),
    assistant_end=(Special("<|im_end|>"), "\n"),
    stop_words=("<|im_end|>", "<|endoftext|>"),
)
"""OpenAI's ChatML, as Qwen's language models were trained with it."""
