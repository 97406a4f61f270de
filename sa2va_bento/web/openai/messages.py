"""OpenAI's messages as the conversation that Sa2VA knows: turns that alternate, and one picture.

The model has no system turn: what system and developer messages say goes in front of the first user turn. Messages of
the same role in a row are one turn. The picture may come in any user message, the model sees it in the first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sa2va_bento.errors import BadRequestError
from sa2va_bento.types import Turn
from sa2va_bento.web.openai.schemas import ImagePart, ImageUrl, Message
from sa2va_bento.web.request import PictureSource


@dataclass(frozen=True)
class Conversation:
    """`history` alternates, the user's turn first and the assistant's last; `prompt` is the user's."""

    history: tuple[Turn, ...]
    prompt: str
    picture: PictureSource | None
    detail: Literal["auto", "low", "high"] | None = None
    """How closely the picture is looked at."""


def read_conversation(messages: Sequence[Message]) -> Conversation:
    """Takes a request's messages apart.

    Raises:
        BadRequestError: they do not begin and end with the user, or hold several pictures.
    """
    turns = _turns(messages)
    if not turns or turns[0].role != "user":
        raise BadRequestError("messages: the conversation must begin with a message of the user")
    if turns[-1].role != "user":
        raise BadRequestError("messages: the last one must be the user's")
    if not turns[-1].content.strip():
        raise BadRequestError("messages: the user's last message has no text")
    first, *others = turns
    system = [text for message in messages if message.role in ("system", "developer") if (text := _text(message))]
    *history, last = [Turn("user", "\n\n".join([*system, first.content])), *others]
    found = _picture(messages)
    source, detail = (PictureSource(found[0].url, found[1]), found[0].detail) if found else (None, None)
    return Conversation(tuple(history), last.content, source, detail)


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
        part.refusal if part.type == "refusal" else part.text for part in message.content if part.type != "image_url"
    )
    return "\n".join(texts)


def _picture(messages: Sequence[Message]) -> tuple[ImageUrl, str] | None:
    """The one picture and its field; the same URL again, as clients repeat it turn by turn, is the same picture."""
    first: tuple[ImageUrl, str] | None = None
    for picture, field in _pictures(messages):
        if first is None:
            first = picture, field
        elif picture.url != first[0].url:
            raise BadRequestError(f"{field}: a second picture; this model takes one picture a conversation")
    return first


def _pictures(messages: Sequence[Message]) -> Iterator[tuple[ImageUrl, str]]:
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content):
            field = f"messages[{i}].content[{j}].image_url"
            if not isinstance(part, ImagePart):
                continue
            if message.role != "user":
                raise BadRequestError(f"{field}: only messages of the user may hold pictures")
            yield part.image_url, field
