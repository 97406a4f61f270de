"""Runs `service.py` in the test's own process: through an ASGI test client, or on a socket."""

import atexit
import contextlib
import importlib.util
import itertools
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import httpx
import uvicorn
from _bentoml_impl.server.app import ServiceAppFactory
from starlette.applications import Starlette
from starlette.testclient import TestClient

from sa2va_bento.web.gate import Gate
from sa2va_bento.web.middleware import outer_middlewares
from sa2va_bento.web.protocol import protocol_of
from sa2va_bento.web.runtime import Model

ROOT = Path(__file__).parent.parent
_numbers = itertools.count()


def load_service(model: Model | None, **environment: str) -> ModuleType:
    """A fresh copy of `service.py`, its settings read from `environment`, serving `model` (None: loads for ever)."""
    spec = importlib.util.spec_from_file_location(f"service_{next(_numbers)}", ROOT / "service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    given = {"SA2VA_JOBS_DIR": tempfile.mkdtemp(prefix="sa2va-jobs-"), **environment}
    atexit.register(shutil.rmtree, given["SA2VA_JOBS_DIR"], ignore_errors=True)
    with mock.patch.dict(os.environ, given):
        spec.loader.exec_module(module)
    module.runtime.load = lambda _: _loading(module) if model is None else model
    return module


def _loading(module: ModuleType) -> Model:
    module.runtime._closed.wait()
    raise AssertionError("the service was closed while its model loaded")


def asgi_of(module: ModuleType) -> Starlette:
    """The service's app as `Sa2VA.to_asgi()` builds it, but for the metrics: they can be registered once a process."""
    module.Sa2VA.inject_config()
    return ServiceAppFactory(module.Sa2VA, is_main=True, enable_metrics=False)()


@contextlib.contextmanager
def client_of(model: Model | None, **environment: str) -> Iterator[TestClient]:
    """A client of a service with that model; the service stops with the block."""
    with TestClient(asgi_of(load_service(model, **environment))) as client:
        if model is not None:
            wait_until_ready(client)
        yield client


@contextlib.contextmanager
def server_of(model: Model | None, **environment: str) -> Iterator[str]:
    """The URL of a service with that model on a free port; it stops with the block."""
    module = load_service(model, **environment)
    config = uvicorn.Config(
        asgi_of(module), log_config=None, http=protocol_of(module.settings, Gate(module.runtime, outer_middlewares))
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url) as client:
                wait_until_ready(client)
            yield url
        finally:
            server.should_exit = True
            thread.join()


def wait_until_ready(client: httpx.Client | TestClient, timeout_s: float = 20) -> None:
    """Returns once `/readyz` answers 200."""
    deadline = time.monotonic() + timeout_s
    while not _is_ready(client):
        assert time.monotonic() < deadline, "the service did not become ready"
        time.sleep(0.01)


def _is_ready(client: httpx.Client | TestClient) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:  # not there yet, or too busy with its start to answer
        return False
