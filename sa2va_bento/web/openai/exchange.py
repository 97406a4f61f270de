"""A chat completion: the request read, its answer rendered at once or in chunks while it is made."""

import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from starlette.requests import Request

from sa2va_bento import __version__
from sa2va_bento.errors import InferenceError, RequestCancelledError, Sa2VAError, UnsupportedMediaError
from sa2va_bento.media.overlay.draw import draw_overlay, encode_overlay
from sa2va_bento.types import FinishReason, Prediction, PredictRequest, Stage, StreamEvent, TextDelta, Usage
from sa2va_bento.web.accept import HttpExchange, late
from sa2va_bento.web.body import Fields, parse_json_object
from sa2va_bento.web.errors import error_body, known_error, request_id_of
from sa2va_bento.web.openai.clip import answer_clip
from sa2va_bento.web.openai.messages import Conversation
from sa2va_bento.web.openai.request import (
    adapter_of,
    check_chat,
    check_promises,
    to_predict_request,
    without_noise,
)
from sa2va_bento.web.openai.schemas import (
    AnswerMessage,
    ChatCompletion,
    ChatRequest,
    ChatUsage,
    Choice,
    PromptDetails,
)
from sa2va_bento.web.rendering import to_segments
from sa2va_bento.web.runtime import Model, Runtime
from sa2va_bento.web.schemas import parse_fields
from sa2va_bento.web.sse import sse_event

logger = logging.getLogger(__name__)

VIDEO_PART = b"video_url"
"""Without this in its body a conversation is not about a video."""
FINGERPRINT = f"sa2va-bento-{__version__}"
DONE = sse_event("[DONE]")


async def chat_events(exchange: "ChatExchange") -> AsyncIterator[bytes]:
    """The answer in chunks: the role at once, text as it comes, segments with the end."""
    yield exchange.delta({"role": "assistant", "content": ""})
    try:
        async for data in exchange.events():
            yield data
    except Exception as error:
        yield sse_event(json.dumps(error_body(known_error(error, exchange.scope), exchange.scope)))


class ChatExchange(HttpExchange):
    """One request to `/v1/chat/completions`."""

    def __init__(self, request: Request, fields: Fields, runtime: Runtime) -> None:
        """Raises UnsupportedMediaError for a form."""
        super().__init__(request, fields, runtime)
        if not isinstance(fields, bytes):
            raise UnsupportedMediaError("content type must be application/json")
        self._body = fields
        self._conversation: Conversation | None = None
        self._id, self._created = f"chatcmpl-{request_id_of(request.scope)}", int(time.time())

    def start(self, model: Model) -> None:
        """A conversation about a video has a thread of its own; whether it is one shows when it is parsed."""
        if VIDEO_PART in self._body or (self._conversation and self._conversation.video):
            self._answer = Future()
            threading.Thread(target=self._answer_about_video, args=(model,), name="sa2va-chat", daemon=True).start()
        else:
            super().start(model)

    def _answer_about_video(self, model: Model) -> None:
        try:
            if self._conversation is None:
                self.parse()
            assert self._conversation
            if self._conversation.video is None:  # the word alone
                self._hand_on(model.answer(self))
                return
            data = self._conversation.video.bytes
            self.begin()
            reply, tracks = answer_clip(
                model,
                data,
                self._conversation,
                self.chat,
                self.settings,
                self.context,
                on_text=lambda text: self.tell(TextDelta(text)) if self.is_streamed else None,
                is_cancelled=lambda: self._answer.cancelled() or self.context.left_s <= 0,
            )
            message = AnswerMessage(content=reply.result, text=reply.text, segments=tracks)
            answer = self._answer_of(message, reply.usage, reply.finish_reason, ())
        except BaseException as error:
            self._fail(error)
            return
        if self._answer.set_running_or_notify_cancel():
            self._answer.set_result(answer)

    def _hand_on(self, answer: "Future[bytes]") -> None:
        answer.add_done_callback(self._copy)
        self._answer.add_done_callback(lambda ours: answer.cancel() if ours.cancelled() else None)

    def _copy(self, answer: "Future[bytes]") -> None:
        with suppress(InvalidStateError):
            error = None if answer.cancelled() else answer.exception()
            self._answer.set_exception(error) if error else self._answer.set_result(answer.result())

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, RequestCancelledError) and self.context.left_s <= 0:
            error = late(self.context)
        elif not isinstance(error, Sa2VAError):
            logger.error("request %s failed", self.context.request_id, exc_info=error)
            error = InferenceError("the request failed")
        with suppress(InvalidStateError):
            self._answer.set_exception(error)

    def parse(self) -> None:
        fields = parse_json_object(self._body)
        check_promises(fields)
        self.chat, warnings = parse_fields(ChatRequest, without_noise(fields))
        self.fields = self._body = b""  # megabytes that nobody reads any more
        self._conversation = check_chat(self.chat, self.settings)
        self.model_name = adapter_of(self.chat, self.settings) or self.settings.model_name
        self._warnings = (*warnings, *self._conversation.warnings)
        self.source = self._conversation.picture

    def read(self) -> PredictRequest:
        if self._conversation is None:
            self.parse()
        assert self._conversation
        wanted = to_predict_request(self.chat, self._conversation, self.source, self.settings, self.context)
        self._overlay_on = wanted.image if self.chat.include_overlay else None
        self.chat = self.chat.model_copy(update={"messages": [], "regions": []})
        self.source = self._conversation = None
        return wanted

    @property
    def is_streamed(self) -> bool:
        return self.chat.stream

    def event(self, event: StreamEvent) -> bytes | None:
        return self.delta({"content": event.text}) if isinstance(event, TextDelta) else None

    def render(self, prediction: Prediction) -> bytes:
        message, overlay = self._message(prediction), self._overlay(prediction)
        self.context.lap(Stage.RENDER)
        if overlay and not self.is_streamed:
            message = message.model_copy(update={"content": message.content + overlay})
        answer = self._answer_of(message, prediction.usage, prediction.finish_reason, prediction.warnings)
        return self.delta({"content": overlay}) + answer if overlay and self.is_streamed else answer

    def _overlay(self, prediction: Prediction) -> str:
        """What follows the content: the picture with its segments drawn in, as Markdown."""
        if self._overlay_on is None:
            return ""
        return f"\n\n![segments]({encode_overlay(draw_overlay(self._overlay_on, prediction.segments))})"

    def _answer_of(
        self, message: AnswerMessage, usage: Usage, finish_reason: FinishReason, warnings: tuple[str, ...]
    ) -> bytes:
        """The answer, or the end of its stream."""
        said = [*self._warnings, *warnings]
        if self.is_streamed:
            return self._end(message, usage, finish_reason, said)
        completion = ChatCompletion(
            id=self._id,
            created=self._created,
            model=self.model_name,
            choices=[Choice(message=message, finish_reason=finish_reason)],
            usage=_usage(usage),
            system_fingerprint=FINGERPRINT,
            warnings=said,
        )
        return completion.model_dump_json().encode()

    def _end(self, message: AnswerMessage, usage: Usage, finish_reason: FinishReason, warnings: Sequence[str]) -> bytes:
        """The last chunks."""
        extension = message.model_dump(mode="json", include={"text", "segments"})
        if warnings:
            extension["warnings"] = warnings
        last = self.delta(extension, finish_reason)
        if not self.chat.stream_options.include_usage:
            return last + DONE
        return last + self._chunk([], _usage(usage)) + DONE

    def _message(self, prediction: Prediction) -> AnswerMessage:
        segments = to_segments(prediction.segments, self.chat.mask_format)
        return AnswerMessage(content=prediction.result, text=prediction.text, segments=segments)

    def delta(self, delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        """A chunk."""
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}])

    def _chunk(self, choices: list[dict[str, object]], usage: ChatUsage | None = None) -> bytes:
        chunk: dict[str, object] = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.model_name,
            "choices": choices,
            "system_fingerprint": FINGERPRINT,
        }
        if self.chat.stream_options.include_usage:
            chunk["usage"] = usage and usage.model_dump()
        return sse_event(json.dumps(chunk))


def _usage(usage: Usage) -> ChatUsage:
    return ChatUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptDetails(image_tokens=usage.image_tokens),
    )
