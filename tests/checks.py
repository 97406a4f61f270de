"""What many tests ask: the shape of an error, whether the service still works, something that comes true soon."""

import time
from collections.abc import Callable
from typing import Any

from starlette.testclient import TestClient

from tests.pictures import PICTURE

GOOD: dict[str, Any] = {"base64Image": PICTURE, "prompt": "Please segment it."}


def check_error(response: Any, status: int, fragment: str) -> None:
    """One JSON object with a message that says what is wrong and nothing of our insides."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert isinstance(answer, dict)
    assert isinstance(answer["error"], str)
    assert fragment.lower() in answer["error"].lower()
    assert answer["request_id"] == response.headers["x-request-id"]
    assert not any(leak in response.text for leak in ("Traceback", ".py", "site-packages", "/srv", "object at 0x"))


def check_still_works(client: TestClient) -> None:
    response = client.post("/process", json=GOOD)
    assert response.status_code == 200
    assert response.json()["segments"][0]["area"] == 24 * 32


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
