"""OpenAI's own Python client against the service: chats, streams, and the exceptions that it raises."""

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pycocotools import mask as coco

from sa2va_bento.errors import NotReadyError, PayloadTooLargeError
from sa2va_bento.result import Sampling, Turn
from tests.fakes import FakePredictor
from tests.picture_host import PictureHost
from tests.pictures import PICTURE, b64, bomb, encode, quarters
from tests.serving import server_of

URL = f"data:image/png;base64,{PICTURE}"
RESULT = "Sure, <p> the left half </p> [SEG]."


def image(url: str = URL, **options: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **options}}


def user(*content: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"role": "user", "content": parts}


SEGMENT: list[Any] = [user("Please segment it.", image())]
HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]


def client_for(url: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", **{"api_key": "none", "max_retries": 0, "timeout": 20, **options})


@pytest.fixture(scope="module")
def url(model: FakePredictor) -> Iterator[str]:
    with server_of(model, SA2VA_HEARTBEAT_S="0.05", SA2VA_MAX_IMAGE_MPIXELS="4") as url:
        yield url


@pytest.fixture(scope="module")
def chat(url: str) -> Iterator[Any]:
    """`chat(messages, ...)` is the client's `chat.completions.create`."""
    with client_for(url) as client:
        yield lambda messages, **options: client.chat.completions.create(
            **{"model": "sa2va-nano", "messages": messages, **options}
        )


def test_a_question_about_a_picture(chat: Any, model: FakePredictor) -> None:
    answer = chat(SEGMENT)
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "stop", "assistant")
    assert choice.message.content == RESULT
    assert choice.message.text == "Sure, the left half."
    (segment,) = choice.message.segments
    assert (segment["phrase"], segment["bbox"], segment["score"]) == ("the left half", [0, 0, 24, 32], 0.93)
    assert coco.decode(segment["mask"])[:, :24].all()
    assert (answer.object, answer.model) == ("chat.completion", "sa2va-nano")
    assert answer.id == f"chatcmpl-{answer._request_id}"
    assert abs(answer.created - time.time()) < 60
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (300, 5, 305)
    assert answer.usage.prompt_tokens_details.image_tokens == 256
    asked = model.requests[-1]
    assert asked.image is not None
    assert asked.image.tobytes() == quarters().tobytes()
    assert (asked.prompt, asked.history) == ("Please segment it.", ())
    assert (asked.sampling, asked.stop, asked.max_new_tokens, asked.max_tiles) == (Sampling(), (), None, None)


def test_text_alone(chat: Any, model: FakePredictor) -> None:
    answer = chat(HELLO)
    assert answer.choices[0].message.content == "You asked: Hello?"
    assert answer.choices[0].message.segments == []
    assert answer.usage.prompt_tokens_details.image_tokens == 0
    assert model.requests[-1].image is None


def test_several_turns_with_the_picture_in_the_last(chat: Any, model: FakePredictor) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO, {"role": "assistant", "content": "Sure, [SEG]."}]
    chat([*messages, *SEGMENT])
    asked = model.requests[-1]
    assert asked.history == (Turn("user", "Be brief.\n\nHello?"), Turn("assistant", "Sure, [SEG]."))
    assert (asked.prompt, asked.image is not None) == ("Please segment it.", True)


def test_options_reach_the_model(chat: Any, model: FakePredictor) -> None:
    options = {"temperature": 0.7, "top_p": 0.9, "seed": -7, "stop": "\n", "max_tokens": 5}
    chat(HELLO, **options)
    asked = model.requests[-1]
    assert (asked.sampling, asked.stop, asked.max_new_tokens) == (Sampling(0.7, 0.9, -7), ("\n",), 5)
    chat(HELLO, stop=["a", "b", "c", "d"], max_tokens=5, max_completion_tokens=6)
    assert (model.requests[-1].stop, model.requests[-1].max_new_tokens) == (("a", "b", "c", "d"), 6)
    chat(
        [user("Find it.", image(detail="low"))], extra_body={"mask_threshold": 0.2, "regions": [{"box": [1, 1, 4, 4]}]}
    )
    asked = model.requests[-1]
    assert (asked.max_tiles, asked.mask_threshold, asked.regions[0].sum()) == (1, 0.2, 16)


def test_draws_differ_unless_a_seed_is_given(chat: Any, model: FakePredictor) -> None:
    for options in ({}, {}, {"seed": 3}, {"seed": 3}):
        chat(HELLO, temperature=1, **options)
    first, second, third, fourth = (request.sampling.seed for request in model.requests[-4:])
    assert first != second
    assert third == fourth == 3


@pytest.mark.parametrize("mask_format", ["png", "polygon", "none"])
def test_masks_in_other_formats(chat: Any, mask_format: str) -> None:
    (segment,) = chat(SEGMENT, extra_body={"mask_format": mask_format}).choices[0].message.segments
    assert (segment["mask"] or {"format": "none"})["format"] == mask_format


def test_what_is_unknown_is_ignored_and_null_is_absent(chat: Any) -> None:
    answer = chat(HELLO, stop=None, temperature=None, frequency_penalty=1, extra_body={"top_k": 4})
    assert answer.warnings == ["unknown field ignored: 'frequency_penalty'", "unknown field ignored: 'top_k'"]


@pytest.mark.parametrize("name", ["sa2va-nano", "SA2VA-Nano", "sa2va"])
def test_names_of_the_model(chat: Any, name: str) -> None:
    assert chat(HELLO, model=name).model == "sa2va-nano"


def test_models() -> None:
    with server_of(FakePredictor(), MODEL_PATH="ByteDance/Sa2VA-1B") as url, client_for(url) as client:
        (served,) = client.models.list().data
        assert (served.id, served.object, served.owned_by) == ("ByteDance/Sa2VA-1B", "model", "sa2va")
        assert client.models.retrieve("ByteDance/Sa2VA-1B") == client.models.retrieve("Sa2VA-1B") == served
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("ByteDance/Sa2VA-4B")
        answer = client.chat.completions.create(model="Sa2VA-1B", messages=HELLO)
        assert answer.model == "ByteDance/Sa2VA-1B"


def test_a_stream(chat: Any) -> None:
    chunks = list(chat(SEGMENT, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    first, *middle, last = [chunk.choices[0] for chunk in chunks]
    assert (first.delta.role, first.delta.content) == ("assistant", "")
    assert "".join(choice.delta.content for choice in middle) == RESULT
    assert len(middle) > 3
    assert {choice.finish_reason for choice in (first, *middle)} == {None}
    assert (last.finish_reason, last.delta.content, last.delta.text) == ("stop", None, "Sure, the left half.")
    assert last.delta.segments == chat(SEGMENT).choices[0].message.segments
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage(chat: Any) -> None:
    chunks = list(chat(SEGMENT, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.total_tokens) == (300, 305)


def test_a_stream_through_the_clients_helper(url: str) -> None:
    with client_for(url) as client, client.chat.completions.stream(model="sa2va", messages=SEGMENT) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        message: Any = stream.get_final_completion().choices[0].message
    assert "".join(deltas) == message.content == RESULT
    assert message.segments[0]["area"] == 768


def test_a_stream_comes_as_it_is_made_and_leaving_it_frees_the_model(chat: Any, model: FakePredictor) -> None:
    before = model.cancelled
    model.rest.clear()
    try:
        with chat(SEGMENT, stream=True) as stream:
            assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Sure,"]
            time.sleep(0.2)  # heartbeats are skipped by the client
            assert model.queue_depth == 1
        deadline = time.monotonic() + 5
        while model.cancelled == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        model.rest.set()
    assert model.queue_depth == 0


def test_a_stream_that_fails_raises(url: str, chat: Any, model: FakePredictor) -> None:
    model.failure = NotReadyError("the engine has stopped")
    try:
        stream = chat(SEGMENT, stream=True)
        assert next(stream).choices[0].delta.role == "assistant"
        with pytest.raises(openai.APIError, match="the engine has stopped"):
            list(stream)
    finally:
        model.failure = None


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no messages", {"messages": []}, "messages"),
    ("several pictures", {"messages": [user("a", image(), image(f"data:;base64,{b64(encode(quarters(), 'GIF'))}"))]},
     "messages[0].content[2].image_url"),
    ("not a data URL", {"messages": [user("a", image(PICTURE))]}, "messages[0].content[1].image_url"),
    ("a file", {"messages": [user("a", image("file:///etc/passwd"))]}, "messages[0].content[1].image_url"),
    ("a URL", {"messages": [user("a", image("http://localhost/a.png"))]}, "messages[0].content[1].image_url"),
    ("not a picture", {"messages": [user("a", image("data:image/png;base64,aGFsbG8="))]},
     "messages[0].content[1].image_url"),
    ("regions without a picture", {"extra_body": {"regions": [{"box": [1, 1, 4, 4]}]}}, "regions"),
    ("a region outside", {"messages": SEGMENT, "extra_body": {"regions": [{"box": [1, 1, 99, 4]}]}}, "regions[0].box"),
    ("two answers", {"n": 2}, "n"),
    ("five stops", {"stop": ["a"] * 5}, "stop"),
    ("an empty stop", {"stop": ""}, "stop[0]"),
    ("too hot", {"temperature": 2.1}, "temperature"),
    ("top_p", {"top_p": -0.1}, "top_p"),
    ("half a seed", {"seed": 0.5}, "seed"),
    ("no tokens", {"max_tokens": 0}, "max_tokens"),
    ("mask format", {"extra_body": {"mask_format": "tar"}}, "mask_format"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "param"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests(chat: Any, options: dict[str, Any], param: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(**{"messages": HELLO, "stream": stream, **options})
    assert (caught.value.type, caught.value.param, caught.value.code) == ("invalid_request_error", param, None)


def test_an_unknown_model(chat: Any) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(HELLO, model="gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_picture_over_the_limit(chat: Any) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        chat([user("a", image(f"data:image/png;base64,{b64(bomb())}"))])
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("failure", "status"),
    [(PayloadTooLargeError("too long"), 413), (NotReadyError("gone"), 503), (RuntimeError("/work/x.py"), 500)],
)
def test_failures_of_the_model(chat: Any, model: FakePredictor, failure: Exception, status: int) -> None:
    model.failure = failure
    try:
        with pytest.raises(openai.APIStatusError) as caught:
            chat(HELLO)
    finally:
        model.failure = None
    assert caught.value.status_code == status
    assert isinstance(caught.value, openai.InternalServerError) == (status >= 500)
    assert "/work" not in str(caught.value)


def test_a_picture_by_url_from_a_listed_host() -> None:
    model = FakePredictor()
    with PictureHost(None) as port:
        allowed = {"SA2VA_IMAGE_URL_HOSTS": f"127.0.0.1:{port}", "SA2VA_IMAGE_URL_PRIVATE": "true"}
        with server_of(model, **allowed) as url, client_for(url) as client:
            messages: list[Any] = [user("Please segment it.", image(f"http://127.0.0.1:{port}/a"))]
            assert client.chat.completions.create(model="sa2va", messages=messages).choices[0].message.content == RESULT
    assert model.requests[0].image is not None


def test_keys_and_rates() -> None:
    with server_of(FakePredictor(), SA2VA_API_KEYS="right", SA2VA_RATE_LIMIT="1") as url:
        with client_for(url, api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
        with client_for(url, api_key="right") as client:
            assert client.models.list().data
            with pytest.raises(openai.RateLimitError) as often:
                client.chat.completions.create(model="sa2va", messages=HELLO)
        assert int(often.value.response.headers["retry-after"]) >= 1


def test_late_and_full() -> None:
    model = FakePredictor(capacity=1)
    with server_of(model, SA2VA_TIMEOUT_S="0.3") as url, client_for(url) as client:
        model.gate.clear()
        with pytest.raises(openai.InternalServerError, match="no answer within") as late:
            client.chat.completions.create(model="sa2va", messages=HELLO)
        assert (late.value.status_code, late.value.code) == (504, "timeout")
        model.capacity = 0
        with pytest.raises(openai.InternalServerError, match="the queue is full") as full:
            client.chat.completions.create(model="sa2va", messages=HELLO)
        assert (full.value.status_code, full.value.code) == (503, "service_unavailable")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages": "hi"}', b'{"messages": [{"role": "user"}]}'])
def test_bodies_that_no_client_sends(client: Any, body: bytes) -> None:
    response = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_form_is_no_chat(client: Any) -> None:
    response = client.post("/v1/chat/completions", data={"messages": "x"}, files={"image": b"x"})
    assert response.status_code == 415


def test_a_stream_ends_as_openais(client: Any) -> None:
    body = {"messages": HELLO, "stream": True}
    response = client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events)
