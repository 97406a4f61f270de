"""Earlier turns through HTTP: which reach the model, and which are refused."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from sa2va_bento.types import Turn
from tests.fakes import FakePredictor
from tests.pictures import PICTURE, encode, quarters

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "And the left one?"}
HI, HELLO = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Sure, [SEG]."}


@pytest.mark.parametrize("path", ["/process", "/process_stream"])
def test_earlier_turns_reach_the_model(client: TestClient, model: FakePredictor, path: str) -> None:
    assert client.post(path, json={**GOOD, "history": [HI, HELLO, HI, HELLO]}).status_code == 200
    asked = model.requests[-1]
    assert asked.history == (Turn("user", "Hi."), Turn("assistant", "Sure, [SEG].")) * 2
    assert asked.prompt == "And the left one?"


def test_a_form_carries_them_as_json(client: TestClient, model: FakePredictor) -> None:
    form = {"prompt": "And?", "history": json.dumps([HI, HELLO])}
    assert client.post("/process", data=form, files={"image": encode(quarters())}).status_code == 200
    assert model.requests[-1].history == (Turn("user", "Hi."), Turn("assistant", "Sure, [SEG]."))


@pytest.mark.parametrize("path", ["/process", "/process_stream"])
@pytest.mark.parametrize(
    ("history", "status", "fragment"),
    [
        ([HI], 400, "history: the last turn must be the assistant's"),
        ([HI, HELLO, HI], 400, "history: the last turn must be the assistant's"),
        ([HELLO, HI], 400, "history[0].role: the turns must alternate, the user's first"),
        ([HI, HI, HELLO], 400, "history[1].role: the turns must alternate"),
        ([HI, HELLO, HELLO], 400, "history[2].role: the turns must alternate"),
        ([HI, HELLO] * 33, 400, "history"),
        ([{"role": "user", "content": "word " * 50_000}, HELLO], 413, "limit of 8192 tokens"),
    ],
    ids=["no reply", "no last reply", "assistant first", "user twice", "assistant twice", "66 turns", "long"],
)
def test_what_is_refused(client: TestClient, path: str, history: list[Any], status: int, fragment: str) -> None:
    response = client.post(path, json={**GOOD, "history": history})
    assert response.status_code == status
    assert fragment in response.json()["error"]
