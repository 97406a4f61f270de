"""What the language model reads and how its reply is taken apart: chat template, picture and region placeholders,
`[SEG]` and `<p>..</p>`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sa2va_bento.model.tokenizer import Piece, PromptTokenizer, Special
from sa2va_bento.result import Turn

IMAGE_CONTEXT, SEG = "<IMG_CONTEXT>", "[SEG]"
PHRASE_START, PHRASE_END = "<p>", "</p>"
MARKERS = (SEG, PHRASE_START, PHRASE_END)

LEADING_IMAGE = re.compile(r"\s*<image>\s*(?=\S)")


@dataclass(frozen=True)
class ChatTemplate:
    """A conversation as upstream formats it. `start` stands in front of all turns; a picture is `image_token`, as often
    as it has image tokens, between `image_start` and `image_end`."""

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


_CHATML = ChatTemplate(
    user_start=(Special("<|im_start|>"), "user\n"),
    user_end=(Special("<|im_end|>"), "\n", Special("<|im_start|>"), "assistant\n"),
    assistant_end=(Special("<|im_end|>"), "\n"),
    stop_words=("<|im_end|>", "<|endoftext|>"),
)

_QWEN_VL = replace(
    _CHATML,
    image_start="<|vision_start|>",
    image_token="<|image_pad|>",
    image_end="<|vision_end|>",
    between_images="",
    drops_image_words=True,
)

TEMPLATES: Mapping[str, ChatTemplate] = {
    "qwen_chat": _CHATML,
    "internlm2_chat": replace(_CHATML, stop_words=("<|im_end|>",)),
    "phi3_chat": ChatTemplate(
        user_start=(Special("<|user|>"), "\n"),
        user_end=(Special("<|end|>"), "\n", Special("<|assistant|>"), "\n"),
        assistant_end=(Special("<|end|>"), "\n"),
        stop_words=("<|end|>",),
    ),
    "qwen2_5_vl": replace(
        _QWEN_VL,
        start=(Special("<|im_start|>"), "system\nYou are a helpful assistant.", Special("<|im_end|>"), "\n"),
    ),
    "qwen3_vl": _QWEN_VL,
}
"""By name in `config.json`; the last two by family, as their processors' chat templates have it."""


@dataclass(frozen=True)
class PictureTokens:
    """How many image tokens a picture takes, each of its regions, and, of a video, how many frames take as many."""

    image: int
    regions: tuple[int, ...] = ()
    frames: int = 1

    @property
    def total(self) -> int:
        return self.image * self.frames + sum(self.regions)


def build_prompt(
    template: ChatTemplate, prompt: str, picture: PictureTokens | None, history: Sequence[Turn] = ()
) -> list[Piece]:
    """The conversation as pieces, the picture in front of its first user turn.

    People type the customary `<image>` in front of a question; it says what the request says already and is dropped.
    Anywhere else it is plain text, as is whatever else looks like a special token.
    """
    pieces: list[Piece] = list(template.start)
    pending = picture
    for turn in (*history, Turn("user", prompt)):
        if turn.role == "assistant":
            pieces += [*_reply_pieces(turn.content), *template.assistant_end]
            continue
        shown = _picture_pieces(template, pending) if pending else []
        pieces += [*template.user_start, *shown, _user_text(template, turn.content), *template.user_end]
        pending = None
    return pieces


def _user_text(template: ChatTemplate, typed: str) -> str:
    text = without_leading_image(typed)
    return text.replace("<image>", "") if template.drops_image_words else text


def without_leading_image(prompt: str) -> str:
    """Drops one `<image>` at the start of a prompt that says more than that."""
    match = LEADING_IMAGE.match(prompt)
    return prompt[match.end() :] if match else prompt


def _picture_pieces(template: ChatTemplate, picture: PictureTokens) -> list[Piece]:
    tokens = Special(template.image_token, picture.image)
    image = [Special(template.image_start), tokens, Special(template.image_end)]
    images = [*image, *[template.between_images, *image] * (picture.frames - 1)]
    return [*images, *_region_pieces(picture.regions), "\n"]


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


@dataclass(frozen=True)
class Phrase:
    """The words that a `[SEG]` belongs to, and where they stand in the reply's prose (start, end)."""

    text: str
    span: tuple[int, int]


@dataclass(frozen=True)
class Reply:
    """A reply taken apart: `result` keeps the markers, `text` is prose, `phrases` has one entry a `[SEG]`."""

    result: str
    text: str
    phrases: tuple[Phrase | None, ...]


def parse_reply(tokenizer: PromptTokenizer, ids: Sequence[int], stop: Sequence[str] = ()) -> Reply:
    """Takes a reply's token ids (without the stop token) apart, up to the first of the stop strings.

    Markers are told by their ids, so that a model that quotes a user's plain `[SEG]` marks nothing.
    """
    marker_ids = {tokenizer.id_of(marker): marker for marker in MARKERS}
    result = tokenizer.decode(ids)
    end = min((place for text in stop if (place := result.find(text)) >= 0), default=len(result))
    prose, left = _Prose(), end
    for marker, text in _runs(tokenizer, ids, marker_ids):
        if left <= 0:
            break
        prose.add_marker(marker) if marker else prose.add_text(text[:left])
        left -= len(marker or text)
    return Reply(result[:end].strip(), prose.finished(), tuple(prose.phrases))


def _runs(
    tokenizer: PromptTokenizer, ids: Sequence[int], marker_ids: Mapping[int, str]
) -> list[tuple[str | None, str]]:
    runs: list[tuple[str | None, str]] = []
    start = 0
    for place, token in enumerate([*ids, None]):
        if token is not None and token not in marker_ids:
            continue
        if place > start:
            runs.append((None, tokenizer.decode(ids[start:place])))
        if token is not None:
            runs.append((marker_ids[token], ""))
        start = place + 1
    return runs


class _Prose:
    """Collects the words of a reply; what a removed marker leaves behind (", ." or two blanks) is tidied."""

    def __init__(self) -> None:
        self.phrases: list[Phrase | None] = []
        self._text = ""
        self._after_seg = False
        self._phrase_start: int | None = None
        self._phrase: Phrase | None = None

    def add_text(self, text: str) -> None:
        if self._after_seg and text.lstrip()[:1] in tuple(".!?;:,"):
            self._text = self._text.rstrip().rstrip(",")
            text = text.lstrip()
        if not self._text or self._text[-1].isspace():
            text = text.lstrip()
        self._text += text
        self._after_seg = False

    def add_marker(self, marker: str) -> None:
        if marker == PHRASE_START:
            self._phrase_start, self._phrase = len(self._text), None
        elif marker == PHRASE_END and self._phrase_start is not None:
            self._phrase = self._closed(self._phrase_start)
            self._phrase_start = None
        elif marker == SEG:
            self.phrases.append(self._phrase)
            self._after_seg = True

    def finished(self) -> str:
        return self._text.rstrip().rstrip(",") if self._after_seg else self._text.rstrip()

    def _closed(self, start: int) -> Phrase | None:
        inside = self._text[start:]
        words = inside.strip()
        if not words:
            return None
        begin = start + len(inside) - len(inside.lstrip())
        return Phrase(words, (begin, begin + len(words)))
