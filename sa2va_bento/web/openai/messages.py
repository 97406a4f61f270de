"""OpenAI's messages as the conversation that Sa2VA knows: turns that alternate, and one picture.

The model has no system turn: what system and developer messages say goes in front of the first user turn. Messages of
the same role in a row are one turn; a greeting in front of the first question is left out. The picture may come in any
user message, the model sees it in the first; of several it sees the latest. Overlays that an earlier answer carried
(`include_overlay`) are left out of it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sa2va_bento.errors import BadRequestError
from sa2va_bento.types import Turn
from sa2va_bento.web.openai.schemas import ImagePart, ImageUrl, Message, VideoPart
from sa2va_bento.web.request import PictureSource

_OVERLAY = re.compile(r"\s*!\[[^\]\n]{0,64}\]\(data:image/[^)\s]*\)")


@dataclass(frozen=True)
class Conversation:
    """`history` alternates, the user's turn first and the assistant's last; `prompt` is the user's."""

    history: tuple[Turn, ...]
    prompt: str
    picture: PictureSource | None
    detail: str | None = None
    """How closely the picture is looked at."""
    warnings: tuple[str, ...] = ()
    video: PictureSource | None = None
    """In place of a picture."""


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Takes a request's messages apart.

    Raises:
        BadRequestError: there is none of the user, or the last one is not the user's.
    """
    turns, warnings = _turns(messages), []
    if turns and turns[0].role == "assistant":
        turns, warnings = turns[1:], ["messages: a greeting in front of the first question is not read"]
    if not turns:
        raise BadRequestError("messages: there must be a message of the user")
    if turns[-1].role != "user":
        raise BadRequestError("messages: the last one must be the user's")
    if not turns[-1].content.strip():
        raise BadRequestError("messages: the user's last message has no text")
    videos = list(_videos(messages))
    first, *others = turns
    system = [text for message in messages if message.role in ("system", "developer") if (text := _text(message))]
    *history, last = [Turn("user", "\n\n".join([*system, first.content])), *others]
    pictures = list(_pictures(messages))
    if len({picture.url for picture, _ in pictures}) > 1:
        warnings.append("messages: of several pictures the latest is looked at; this model sees one")
    if videos:
        if pictures or len({video.text for video in videos}) > 1:
            raise BadRequestError(f"{videos[-1].field}: a conversation is about one video, or about pictures")
        return Conversation(tuple(history), last.content, None, None, tuple(warnings), videos[-1])
    if not pictures:
        return Conversation(tuple(history), last.content, None, None, tuple(warnings))
    picture, field = pictures[-1]
    return Conversation(
        tuple(history), last.content, PictureSource(picture.url, field), picture.detail, tuple(warnings)
    )


def _turns(messages: Sequence[Message]) -> list[Turn]:
    turns: list[Turn] = []
    for message in messages:
        if message.role not in ("user", "assistant"):
            continue
        if turns and turns[-1].role == message.role:
            earlier = turns.pop().content
            turns.append(Turn(message.role, "\n".join(text for text in (earlier, _text(message)) if text)))
        else:
            turns.append(Turn(message.role, _text(message)))
    return turns


def _text(message: Message) -> str:
    texts = (
        part.refusal if part.type == "refusal" else part.text
        for part in message.content
        if not isinstance(part, ImagePart | VideoPart)
    )
    return _OVERLAY.sub("", "\n".join(texts)) if message.role == "assistant" else "\n".join(texts)


def _pictures(messages: Sequence[Message]) -> Iterator[tuple[ImageUrl, str]]:
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content):
            field = f"messages[{i}].content[{j}].image_url"
            if not isinstance(part, ImagePart):
                continue
            if message.role != "user":
                raise BadRequestError(f"{field}: only messages of the user may hold pictures")
            yield part.image_url, field


def _videos(messages: Sequence[Message]) -> Iterator[PictureSource]:
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content):
            if not isinstance(part, VideoPart):
                continue
            field = f"messages[{i}].content[{j}].video_url"
            if message.role != "user":
                raise BadRequestError(f"{field}: only messages of the user may hold videos")
            if not part.video_url.url.lstrip()[:5].lower().startswith("data:"):
                raise BadRequestError(f"{field}: must be a data URL")
            yield PictureSource(part.video_url.url, field)
