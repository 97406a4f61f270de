"""From the core's answer to a chat completion, or to the chunks of one while it is made."""

import json
import time
from collections.abc import AsyncIterator

from starlette.requests import Request

from sa2va_bento import __version__
from sa2va_bento.result import Prediction, SegmentReady, TextDelta, Usage
from sa2va_bento.web.conversion import to_segments
from sa2va_bento.web.openai_request import Chat
from sa2va_bento.web.openai_schemas import AnswerMessage, ChatCompletion, ChatUsage, Choice, PromptDetails
from sa2va_bento.web.responses import error_body, known_error, request_id_of
from sa2va_bento.web.runtime import Runtime
from sa2va_bento.web.sse import HEARTBEAT, event
from sa2va_bento.web.watching import News

FINGERPRINT = f"sa2va-bento-{__version__}"
DONE = event("[DONE]")


class Answer:
    """Renders what becomes of one request."""

    def __init__(self, request: Request, runtime: Runtime, chat: Chat) -> None:
        self._scope, self._runtime, self._chat = request.scope, runtime, chat
        self._id, self._created = f"chatcmpl-{request_id_of(request.scope)}", int(time.time())

    def completion(self, prediction: Prediction) -> ChatCompletion:
        """The whole answer. Encoding masks takes time: not for the event loop."""
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._runtime.settings.model_name,
            choices=[Choice(message=self._message(prediction), finish_reason=prediction.finish_reason)],
            usage=_usage(prediction.usage),
            system_fingerprint=FINGERPRINT,
            warnings=[*self._chat.warnings, *prediction.warnings],
        )

    async def events(self, news: AsyncIterator[News]) -> AsyncIterator[bytes]:
        """The answer in chunks: the role at once, text as it comes, segments with the end."""
        yield self._delta({"role": "assistant", "content": ""})
        try:
            async for item in news:
                match item:
                    case None:
                        yield HEARTBEAT
                    case TextDelta():
                        yield self._delta({"content": item.text})
                    case SegmentReady():
                        pass
                    case Prediction() as prediction:
                        yield await self._runtime.in_media_pool(lambda: self._end(prediction))
        except Exception as error:
            yield event(json.dumps(error_body(known_error(error, self._scope), self._scope)))

    def _end(self, prediction: Prediction) -> bytes:
        """The last chunks. Encoding masks takes time: not for the event loop."""
        extension = self._message(prediction).model_dump(mode="json", include={"text", "segments"})
        last = self._delta(extension, prediction.finish_reason)
        if not self._chat.request.stream_options.include_usage:
            return last + DONE
        return last + self._chunk([], _usage(prediction.usage)) + DONE

    def _message(self, prediction: Prediction) -> AnswerMessage:
        segments = to_segments(prediction.segments, self._chat.request.mask_format)
        return AnswerMessage(content=prediction.result, text=prediction.text, segments=segments)

    def _delta(self, delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])

    def _chunk(self, choices: list[dict[str, object]], usage: ChatUsage | None = None) -> bytes:
        chunk: dict[str, object] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._runtime.settings.model_name,
            "choices": choices,
            "system_fingerprint": FINGERPRINT,
        }
        if self._chat.request.stream_options.include_usage:
            chunk["usage"] = usage and usage.model_dump()
        return event(json.dumps(chunk))


def _usage(usage: Usage) -> ChatUsage:
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptDetails(image_tokens=usage.image_tokens),
    )
