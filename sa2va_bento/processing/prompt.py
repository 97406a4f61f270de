"""What the language model reads and how its reply is taken apart: chat template, picture and region placeholders,
`[SEG]` and `<p>..</p>`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sa2va_bento.model.chat_template import IMAGE_CONTEXT, MARKERS, ChatTemplate, Piece, Special
from sa2va_bento.types import Turn

LEADING_IMAGE = re.compile(r"\s*<image>\s*(?=\S)")


class ImageTokens(Protocol):
    """How many image tokens a picture takes, each of its regions, and, of a video, how many frames take as many."""

    @property
    def image_tokens(self) -> int: ...
    @property
    def region_tokens(self) -> tuple[int, ...]: ...
    @property
    def frames(self) -> int: ...


@dataclass(frozen=True)
class PictureTokens:
    """Image tokens without a picture."""

    image_tokens: int
    region_tokens: tuple[int, ...] = ()
    frames: int = 1


def build_prompt(
    template: ChatTemplate, prompt: str, picture: ImageTokens | None, history: Sequence[Turn] = ()
) -> list[Piece]:
    """The conversation as pieces, the picture in front of its first user turn.

    People type the customary `<image>` in front of a question; it says what the request says already and is dropped.
    Anywhere else it is plain text, as is whatever else looks like a special token.
    """
    pieces: list[Piece] = list(template.start)
    pending = picture
    for role, content in (*((turn.role, turn.content) for turn in history), ("user", prompt)):
        if role == "assistant":
            pieces += [*_reply_pieces(content), *template.assistant_end]
            continue
        shown = _picture_pieces(template, pending) if pending else []
        pieces += [*template.user_start, *shown, _user_text(template, content), *template.user_end]
        pending = None
    return pieces


def _user_text(template: ChatTemplate, typed: str) -> str:
    text = without_leading_image(typed)
    return text.replace("<image>", "") if template.drops_image_words else text


def without_leading_image(prompt: str) -> str:
    """Drops one `<image>` at the start of a prompt that says more than that."""
    match = LEADING_IMAGE.match(prompt)
    return prompt[match.end() :] if match else prompt


def _picture_pieces(template: ChatTemplate, picture: ImageTokens) -> list[Piece]:
    tokens = Special(template.image_token, picture.image_tokens)
    start, end = ([Special(token)] if token else [] for token in (template.image_start, template.image_end))
    image = [*start, tokens, *end]
    images = [*image, *[template.between_images, *image] * (picture.frames - 1)]
    return [*images, *_region_pieces(picture.region_tokens), "\n"]


def _region_pieces(regions: Sequence[int]) -> list[Piece]:
    if not regions:
        return []
    pieces: list[Piece] = [f"\nThere are {len(regions)} part regions in the picture: "]
    for number, cells in enumerate(regions, start=1):
        separator = ", " if number > 1 else ""
        pieces += [f"{separator}region{number}", Special("<vp>"), Special(IMAGE_CONTEXT, cells), Special("</vp>")]
    return [*pieces, ".\n"]


def _reply_pieces(content: str) -> list[Piece]:
    """An earlier reply with its markers as the tokens they were; everything else in it is text."""
    parts = re.split("(" + "|".join(map(re.escape, MARKERS)) + ")", content)
    return [Special(part) if part in MARKERS else part for part in parts]
