"""OpenAI's own Python client against the service: chats and streams."""

import json
import time
from typing import Any

import openai
import pytest
from pycocotools import mask as coco

from sa2va_bento.types import Sampling, Turn
from tests.chats import HELLO, RESULT, SEGMENT, URL, client_for, image, user
from tests.checks import eventually
from tests.fakes import FakePredictor
from tests.picture_host import PictureHost
from tests.pictures import quarters
from tests.serving import server_of


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
        eventually(lambda: model.cancelled == before + 1)
    finally:
        model.rest.set()
    assert model.queue_depth == 0


def test_a_client_that_waits_no_longer_frees_the_model(url: str, model: FakePredictor) -> None:
    before = model.cancelled
    model.gate.clear()
    try:
        with client_for(url, timeout=0.3) as client, pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="sa2va", messages=HELLO)
        eventually(lambda: model.cancelled == before + 1)
    finally:
        model.gate.set()


def test_a_picture_by_url_from_a_listed_host() -> None:
    model = FakePredictor()
    with PictureHost(None) as port:
        allowed = {"SA2VA_IMAGE_URL_HOSTS": f"127.0.0.1:{port}", "SA2VA_IMAGE_URL_PRIVATE": "true"}
        with server_of(model, **allowed) as url, client_for(url) as client:
            messages: list[Any] = [user("Please segment it.", image(f"http://127.0.0.1:{port}/a"))]
            assert client.chat.completions.create(model="sa2va", messages=messages).choices[0].message.content == RESULT
    assert model.requests[0].image is not None


def test_a_stream_ends_as_openais(client: Any) -> None:
    body = {"messages": HELLO, "stream": True}
    response = client.post("/v1/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events)


def test_nothing_at_the_side_of_a_message_disturbs(client: Any, model: FakePredictor) -> None:
    first = client.post("/v1/chat/completions", json={"messages": SEGMENT}).json()["choices"][0]["message"]
    picture = {"type": "image_url", "image_url": {"url": URL, "detail": None}}
    messages = [{**user("Please segment it.", picture), "name": None}, first, *HELLO]
    response = client.post("/v1/chat/completions", json={"messages": messages, "stream_options": None})
    assert response.status_code == 200
    assert model.requests[-1].history == (Turn("user", "Please segment it."), Turn("assistant", RESULT))
