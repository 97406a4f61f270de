"""Streams of a real model, the scripted-reply checkpoint, over a socket: what is told is what is answered."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from tests.events import read_events
from tests.parity.goldens import module, write_scripted_checkpoint
from tests.serving import server_of

REPLY = "<p> red disc </p> [SEG] and <p> blue bar </p> [SEG]."
recipe = module("scripted/inputs")
PICTURE = base64.b64encode(recipe.png(recipe.image(96, 80, 1))).decode()
BODY: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Segment both.", "max_tiles": 1}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = write_scripted_checkpoint("qwen2_two", tmp_path_factory.mktemp("scripted"))
    with server_of(Predictor.load(Settings(model_path=str(folder)))) as url:
        yield url


@pytest.fixture(scope="module")
def whole(url: str) -> Any:
    return httpx.post(f"{url}/process", json=BODY, timeout=60).json()


def chat(url: str, **options: Any) -> Any:
    parts = [
        {"type": "text", "text": BODY["prompt"]},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}", "detail": "low"}},
    ]
    messages: list[Any] = [{"role": "user", "content": parts}]
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer: Any = client.chat.completions.create(model="sa2va", messages=messages, **options)
        return list(answer) if options.get("stream") else answer


def test_a_stream_tells_what_process_answers(url: str, whole: Any) -> None:
    with httpx.stream("POST", f"{url}/process_stream", json=BODY, timeout=60) as response:
        events = list(read_events(response.iter_lines()))
    named = {name: [event.data for event in events if event.name == name] for name in ("token", "segment", "done")}
    assert "".join(token["text"] for token in named["token"]) == whole["result"] == REPLY
    assert named["segment"] == named["done"][0]["segments"] == whole["segments"]
    assert len(whole["segments"]) == 2
    names = [event.name for event in events]
    assert names.index("segment") < len(names) - 1 - names[::-1].index("token")  # a mask before the last word


def test_openais_answer_is_the_same(url: str, whole: Any) -> None:
    choice = chat(url).choices[0]
    assert (choice.message.content, choice.message.text) == (REPLY, whole["text"])
    assert choice.message.segments == whole["segments"]


def test_openais_stream_stops_where_it_is_told(url: str, whole: Any) -> None:
    chunks = chat(url, stream=True, stop=[" and", "never"], stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "<p> red disc </p> [SEG]"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].choices[0].delta.segments == whole["segments"][:1]
    assert chunks[-1].usage.prompt_tokens == whole["usage"]["prompt_tokens"]


def test_openais_answer_is_cut_where_it_is_told(url: str) -> None:
    answer = chat(url, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3
    assert REPLY.startswith(answer.choices[0].message.content)
    assert answer.choices[0].message.segments == []


def test_a_chat_without_a_picture(url: str) -> None:
    messages = [{"role": "user", "content": "Segment both."}]
    answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": messages}, timeout=60).json()
    assert answer["choices"][0]["message"]["content"] == REPLY
    assert answer["choices"][0]["message"]["segments"] == []
    assert answer["usage"]["prompt_tokens_details"] == {"image_tokens": 0}


def test_openais_conversation_is_processs(url: str) -> None:
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "<p> A disc </p> [SEG]."}]
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    messages = [*turns, {"role": "user", "content": [picture, {"type": "text", "text": BODY["prompt"]}]}]
    chatted = httpx.post(f"{url}/v1/chat/completions", json={"messages": messages, "max_tiles": 1}, timeout=60).json()
    processed = httpx.post(f"{url}/process", json={**BODY, "history": turns}, timeout=60).json()
    assert chatted["usage"]["prompt_tokens"] == processed["usage"]["prompt_tokens"]
    assert chatted["choices"][0]["message"]["segments"] == processed["segments"]
    assert processed["segments"]
