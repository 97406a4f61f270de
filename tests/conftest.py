"""Fixtures that several test modules share."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.fakes import FakePredictor
from tests.serving import client_of


@pytest.fixture(scope="module")
def model() -> FakePredictor:
    """The fake model of the module's `client`."""
    return FakePredictor()


@pytest.fixture(scope="module")
def client(model: FakePredictor) -> Iterator[TestClient]:
    """A client of a service with a fake model and small limits."""
    with client_of(model, SA2VA_MAX_BODY_MB="2", SA2VA_MAX_IMAGE_MPIXELS="4") as client:
        yield client
