"""What clients of OpenAI's API ask for that this model does otherwise, or not at all."""

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.chats import HELLO, RESULT, SEGMENT

PATH = "/v1/chat/completions"


def ask(client: TestClient, messages: Any = HELLO, **fields: Any) -> Any:
    return client.post(PATH, json={"messages": messages, **fields})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_a_client_relies_on_is_refused(client: TestClient, fields: dict[str, Any], param: str) -> None:
    refused = ask(client, **fields)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_what_can_be_ignored_is_warned_of_once(client: TestClient) -> None:
    fields = {"tools": [{"type": "function"}], "logprobs": True, "presence_penalty": 0.5}
    warnings = ask(client, **fields).json()["warnings"]
    assert warnings == [f"unknown field ignored: '{name}'" for name in fields]


def test_what_changes_nothing_is_not_warned_of(client: TestClient) -> None:
    fields = {
        "tools": [],
        "logprobs": False,
        "presence_penalty": 0,
        "user": "me",
        "store": False,
        "metadata": {"a": "b"},
    }
    more = {"tool_choice": "auto", "response_format": {"type": "text"}, "parallel_tool_calls": None}
    assert ask(client, **fields, **more).json()["warnings"] == []


def test_nulls_are_absent_on_every_level(client: TestClient) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "Hello?", "x": None}], "name": None}
    fields = {"stop": None, "temperature": None, "stream_options": {"include_usage": None}, "regions": None}
    assert ask(client, [message], **fields).status_code == 200


def test_a_prompt_that_is_too_long_has_openais_status_and_code(client: TestClient) -> None:
    refused = ask(client, [{"role": "user", "content": "word " * 100_000}])
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_half_a_character_is_refused(client: TestClient) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "a\ud800b"}]})
    refused = client.post(PATH, content=body, headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages[0].content")


def test_an_overlay_is_a_picture_in_the_content(client: TestClient) -> None:
    content = ask(client, SEGMENT, include_overlay=True).json()["choices"][0]["message"]["content"]
    text, _, markdown = content.partition("\n\n")
    assert text == RESULT
    picture = markdown.removeprefix("![segments](data:image/png;base64,").removesuffix(")")
    assert Image.open(io.BytesIO(base64.b64decode(picture))).format == "PNG"


def test_a_stream_has_the_overlay_and_the_warnings_too(client: TestClient) -> None:
    answer = ask(client, SEGMENT, include_overlay=True, stream=True, logit_bias={"1": 2}).text
    chunks = [json.loads(line.removeprefix("data: ")) for line in answer.splitlines() if line.startswith("data: {")]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    content = "".join(delta.get("content") or "" for delta in deltas)
    assert content.startswith(f"{RESULT}\n\n![segments](data:image/png;base64,")
    assert deltas[-1]["warnings"] == ["unknown field ignored: 'logit_bias'"]
