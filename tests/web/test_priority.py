"""Requests that may wait: by key or by header, and only where the operator says so."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from sa2va_bento.settings import Settings
from sa2va_bento.types import RequestContext
from sa2va_bento.web.middleware import middlewares
from sa2va_bento.web.priority import Priority


def may_wait(headers: dict[str, str], **settings: Any) -> bool:
    """Whether a request with these headers gives way, as the service's layers note it."""
    context = RequestContext()
    found = [options for layer, options in middlewares(Settings(**settings)) if layer is Priority]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async def nothing(*_: object) -> Any:
        raise AssertionError

    scope = {
        "type": "http",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "state": {"context": context},
    }
    for options in found:
        asyncio.run(Priority(app, **options)(scope, nothing, nothing))
    return context.may_wait


@pytest.mark.parametrize(
    ("headers", "settings", "expected"),
    [
        ({"X-Priority": "low"}, {}, False),
        ({"X-Priority": "low"}, {"priority_header": True}, True),
        ({"X-Priority": " LOW"}, {"priority_header": True}, True),
        ({"X-Priority": "high"}, {"priority_header": True}, False),
        ({}, {"priority_header": True}, False),
        ({"Authorization": "Bearer batch"}, {"low_priority_keys": "nightly, batch"}, True),
        ({"X-API-Key": "nightly"}, {"low_priority_keys": "nightly, batch"}, True),
        ({"X-API-Key": "other"}, {"low_priority_keys": "nightly, batch"}, False),
        ({"X-API-Key": "other", "X-Priority": "low"}, {"low_priority_keys": "nightly"}, False),
    ],
)
def test_who_may_wait(headers: dict[str, str], settings: dict[str, Any], expected: bool) -> None:
    assert may_wait(headers, **settings) is expected


def test_off_by_default() -> None:
    assert Priority not in [layer for layer, _ in middlewares(Settings())]


def test_keys_are_not_shown() -> None:
    assert "batch" not in repr(Settings(low_priority_keys="batch"))  # type: ignore[arg-type]
