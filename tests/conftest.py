"""Fixtures that several test modules share."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.chats import client_for
from tests.fakes import FakePredictor
from tests.serving import client_of, server_of


@pytest.fixture(scope="module")
def model() -> FakePredictor:
    """The fake model of the module's `client`."""
    return FakePredictor()


@pytest.fixture(scope="module")
def client(model: FakePredictor) -> Iterator[TestClient]:
    """A client of a service with a fake model and small limits."""
    with client_of(model, SA2VA_MAX_BODY_MB="2", SA2VA_MAX_IMAGE_MPIXELS="4") as client:
        yield client


@pytest.fixture(scope="module")
def url(model: FakePredictor) -> Iterator[str]:
    """The URL of a service with the module's fake model, on a socket."""
    with server_of(model, SA2VA_HEARTBEAT_S="0.05", SA2VA_MAX_IMAGE_MPIXELS="4") as url:
        yield url


@pytest.fixture(scope="module")
def chat(url: str) -> Iterator[Any]:
    """`chat(messages, ...)` is `chat.completions.create` of OpenAI's client at `url`."""
    with client_for(url) as client:
        yield lambda messages, **options: client.chat.completions.create(
            **{"model": "sa2va-nano", "messages": messages, **options}
        )
