"""Services in states that a real one is in for moments only: `python -m tests.browser.stage`. Writes their URLs as a
line of JSON; then each line of its input is a command: `load` ends the loading, `go` lets the slow one answer."""

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import uvicorn

from sa2va_bento.web.gate import Gate
from sa2va_bento.web.middleware import outer_middlewares
from sa2va_bento.web.protocol import protocol_of
from sa2va_bento.web.runtime import Model
from tests.fakes import FakePredictor
from tests.serving import asgi_of, load_service

SMALL = {"SA2VA_MAX_BODY_MB": "0.004", "SA2VA_MAX_VIDEO_MB": "0.004"}


@contextlib.contextmanager
def served(model: Model, loaded: threading.Event | None = None, **environment: str) -> Iterator[str]:
    """The URL of a service on a free port, whose model is there once `loaded` is set."""
    module = load_service(model, **environment)
    if loaded:
        module.runtime.load = lambda _: (loaded.wait(), model)[1]
    protocol = protocol_of(module.settings, Gate(module.runtime, outer_middlewares))
    server = uvicorn.Server(uvicorn.Config(asgi_of(module), log_config=None, http=protocol))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            wait_until(url, "/readyz" if loaded is None else "/livez")
            yield url
        finally:
            server.should_exit = True
            thread.join()


def wait_until(url: str, path: str) -> None:
    """Returns once a path answers 200."""
    for _ in range(2000):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url + path).status_code == 200:
                return
        time.sleep(0.01)
    raise TimeoutError(url)


def main() -> None:
    """Serves until its input ends."""
    loaded, slow = threading.Event(), FakePredictor()
    slow.rest.clear()
    with contextlib.ExitStack() as stack:
        urls = {
            "keyed": stack.enter_context(served(FakePredictor(), SA2VA_API_KEYS="sesame,schlüssel-%20")),
            "limited": stack.enter_context(served(FakePredictor(), SA2VA_RATE_LIMIT="1")),
            "small": stack.enter_context(
                served(FakePredictor(), SA2VA_MAX_BODY_MB="0.004", SA2VA_MAX_VIDEO_MB="0.004")
            ),
            "loading": stack.enter_context(served(FakePredictor(), loaded)),
            "full": stack.enter_context(served(FakePredictor(capacity=0))),
            "slow": stack.enter_context(served(slow)),
            "off": stack.enter_context(served(FakePredictor(), SA2VA_UI="off")),
        }
        print(json.dumps(urls), flush=True)  # noqa: T201
        for line in sys.stdin:
            {"load": loaded.set, "go": slow.rest.set, "wait": slow.rest.clear}[line.strip()]()
        loaded.set()
        slow.rest.set()


if __name__ == "__main__":
    main()
