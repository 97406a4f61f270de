"""Requests of every kind with every kind of damage: `python -m tests.hostile.fuzz --seconds 600` (seed printed, and
repeatable). Hypothesis writes them: JSON, forms, regions, conversations, and pictures that `tests.media.fuzz` damages.

Whatever comes, the answer comes within `LONGEST`, is no 5xx, and says what is wrong where something is.
"""

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from tests.fakes import FakePredictor
from tests.media import fuzz as pictures
from tests.pictures import b64, encode, quarters
from tests.serving import client_of

LONGEST = 2.0
"""Seconds that an answer may take."""
BATCH = 100
"""Requests that are written from one seed."""

Request = tuple[str, bytes, dict[str, str]]
"""Path, body and headers."""

_UNHEALTHY = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
_FILES = [data for some in pictures.corpus().values() for data in some]
_SOUND = [encode(quarters()), encode(quarters(), "JPEG"), encode(Image.new("1", (48, 32), 1))]

numbers = st.one_of(
    st.integers(-2, 100), st.integers(), st.floats(), st.sampled_from([0, 1e308, -1e-9, 2**63, 10**30, float("nan")])
)
texts = st.one_of(
    st.text(max_size=30),
    st.text(st.characters(codec=None), max_size=5),  # halves of characters too
    st.sampled_from(["", " ", "Please segment it.", "<image>", "<|im_end|>", "[SEG]", "region1", "rle", "png", "user"]),
    st.sampled_from(["data:image/png;base64,", "http://[", "https://a/", "data:,", "true", "null", "[1]", "{", "\0"]),
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A picture, mostly damaged."""
    if draw(st.integers(0, 2)):
        return draw(st.sampled_from(_SOUND))
    rng = random.Random(draw(st.integers(0, 2**32)))
    return pictures.mutate(rng.choice(_FILES), rng.choice(_FILES), rng)


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any], share: int) -> Any:
    """One in `share` is another."""
    return draw(other if draw(st.integers(1, share)) == share else usual)


def maybe(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What is meant, or now and then anything."""
    return mostly(sound, junk, 16)


encoded = mostly(
    st.just(b64(_SOUND[0])),
    st.one_of(files().map(b64), files().map(lambda data: f"data:image/png;base64,{b64(data)}"), texts),
    3,
)


points = st.lists(maybe(st.tuples(maybe(numbers), maybe(numbers))), max_size=12)
runs = st.one_of(texts, st.lists(maybe(st.integers(-1, 2000)), max_size=20), st.just([1536]), st.just("0Ph0Ph0"))
masks = st.one_of(
    st.fixed_dictionaries({"size": maybe(st.just([32, 48])), "counts": runs}, optional={"format": texts}),
    st.fixed_dictionaries({"data": encoded}, optional={"format": texts}),
)
_REGIONS = [
    {"box": [1, 1, 4, 4]},
    {"polygon": [[1, 1], [20, 1], [9, 20]]},
    {"mask": {"size": [32, 48], "counts": [9, 1527]}},
]
odd_regions = st.one_of(
    st.fixed_dictionaries({"box": maybe(st.lists(numbers, min_size=3, max_size=5))}),
    st.fixed_dictionaries({"polygon": maybe(points)}),
    st.fixed_dictionaries({"mask": maybe(masks)}),
    st.fixed_dictionaries({}, optional={"box": junk, "polygon": junk, "mask": junk}),
)
regions = mostly(st.sampled_from(_REGIONS), odd_regions, 4)
prompts = mostly(st.sampled_from(["Please segment it.", "What is region1?"]), texts, 8)
turns = st.fixed_dictionaries({"role": maybe(st.sampled_from(["user", "assistant"])), "content": maybe(texts)})
optional: dict[str, st.SearchStrategy[Any]] = {
    "mask_format": maybe(st.sampled_from(["rle", "png", "polygon", "none"])),
    "mask_threshold": maybe(st.floats(0, 1)),
    "regions": maybe(st.lists(maybe(regions), max_size=4)),
    "history": mostly(st.just([]), st.lists(maybe(turns), max_size=4), 6),
    "include_overlay": maybe(st.booleans()),
    "max_new_tokens": maybe(st.integers(1, 100)),
    "max_tiles": maybe(st.integers(1, 12)),
    "unknown": junk,
}
questions = st.fixed_dictionaries({"base64Image": maybe(encoded), "prompt": maybe(prompts)}, optional=optional)
parts = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": maybe(prompts)}),
    st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": maybe(st.fixed_dictionaries({"url": maybe(encoded)}))}
    ),
    junk,
)
messages = st.fixed_dictionaries(
    {
        "role": maybe(st.sampled_from(["user", "assistant", "system"])),
        "content": st.one_of(maybe(prompts), maybe(st.lists(maybe(parts), max_size=3))),
    },
    optional={"tool_calls": junk, "name": junk},
)
chats = st.fixed_dictionaries(
    {"model": maybe(st.just("sa2va")), "messages": maybe(st.lists(maybe(messages), max_size=4))},
    optional={
        **{name: optional[name] for name in ("mask_format", "mask_threshold", "regions", "max_tiles")},
        **dict.fromkeys(("temperature", "top_p", "seed", "stop", "tools", "response_format", "n", "user"), junk),
        "stream": maybe(st.booleans()),
        "stream_options": maybe(st.fixed_dictionaries({"include_usage": maybe(st.booleans())})),
    },
)
bodies = {
    "/process": maybe(questions).map(lambda value: _dumped(value)),
    "/process_stream": maybe(questions).map(lambda value: _dumped(value)),
    "/v1/chat/completions": maybe(chats).map(lambda value: _dumped(value)),
}


@st.composite
def forms(draw: st.DrawFn) -> tuple[bytes, str]:
    """A multipart form, and its content type."""
    boundary = draw(st.sampled_from(["x", "----WebKitFormBoundary7MA4YWxk", "x", "y", "a b", ""]))
    disposition = st.sampled_from(
        [
            *['name="{}"'] * 6,
            "name={}",
            'name="{}"; filename="a.png"',
            "name=\"{}\"; filename*=UTF-8''a",
            "{}",
            'NAME="{}"; x',
        ]
    )
    names = st.one_of(st.sampled_from(["image", "prompt", "base64Image", *optional]), st.text(max_size=8))
    pieces = [draw(st.sampled_from([b"", b"", b"preamble\r\n", b"\r\n", b"--"]))]
    for _ in range(draw(st.integers(0, 5))):
        name = draw(names)
        value = draw(st.one_of(files(), encoded.map(_utf8), junk.map(_dumped), texts.map(_utf8)))
        headers = [f"Content-Disposition: form-data; {draw(disposition).format(name)}"]
        headers += draw(st.lists(st.sampled_from(["Content-Type: image/png", "X", ":", "Content-Disposition: a"])))
        head = b"\r\n".join(map(_utf8, headers))
        pieces.append(b"--" + boundary.encode() + b"\r\n" + head + b"\r\n\r\n" + value + b"\r\n")
    pieces.append(draw(st.sampled_from([*[f"--{boundary}--\r\n".encode()] * 6, b"", b"--"])))
    charset = draw(
        st.sampled_from([*[""] * 9, "; charset=utf-8", "; charset=punycode", "; charset=no", "; charset=utf-16"])
    )
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}{charset}"


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _dumped(value: object) -> bytes:
    return json.dumps(value).encode()


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Something for an endpoint, in most cases in the shape that it takes, and in some damaged after all."""
    path = draw(st.sampled_from(list(bodies)))
    if draw(st.integers(0, 3)) == 0:
        body, content_type = draw(forms())
    else:
        body = draw(bodies[path])
        content_type = draw(st.sampled_from(["application/json"] * 15 + ["text/plain", "a/b+json"]))
    headers = {"Content-Type": content_type}
    if draw(st.integers(0, 9)) == 0:
        rng = random.Random(draw(st.integers(0, 2**32)))
        body = pictures.mutate(body, rng.choice(_FILES), rng)
    if draw(st.integers(0, 9)) == 0:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body, 1)[: draw(st.sampled_from([None, None, -1, 20]))]
    return path, body, headers


@dataclass
class Findings:
    """What came of the requests: counts by path and status, the slowest, and what should not have been."""

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    wrong: list[tuple[str, Request]] = field(default_factory=list)

    def note(self, request: Request, status: int, text: str, seconds: float) -> None:
        self.counts[request[0], status] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if status >= 500 or seconds > LONGEST or (status >= 400 and not _says_why(text)):
            self.wrong.append((f"{request[0]} answered {status} in {seconds:.1f} s: {text[:200]}", request))


def _says_why(text: str) -> bool:
    try:
        error = json.loads(text)["error"]
    except (ValueError, LookupError, TypeError):
        return False
    return bool(error if isinstance(error, str) else error["message"])


def run(seconds: float, first: int, most: int = sys.maxsize) -> Findings:
    """Asks a service with a fake model until the time is up, or so many have been asked."""
    findings = Findings()
    limits = {"SA2VA_MAX_IMAGE_MPIXELS": "4", "SA2VA_MAX_BODY_MB": "4", "SA2VA_TIMEOUT_S": "20"}
    end = time.monotonic() + seconds
    with client_of(FakePredictor(), SA2VA_LOG_LEVEL="ERROR", **limits) as client:
        for number in range(first, first + -(-most // BATCH)):
            if time.monotonic() > end or len(findings.wrong) >= 20:
                break
            _ask(client, number, findings)
    return findings


def _ask(client: TestClient, number: int, findings: Findings) -> None:
    """The requests of one seed."""

    @seed(number)
    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=_UNHEALTHY,
    )
    @given(requests())
    def ask(request: Request) -> None:
        status, text, seconds = _answer(client, request)
        if seconds > LONGEST:  # of itself, or because the machine was busy
            seconds = min(seconds, *(_answer(client, request)[2] for _ in range(2)))
        findings.note(request, status, text, seconds)

    ask()


def _answer(client: TestClient, request: Request) -> tuple[int, str, float]:
    """Status, text and seconds of an answer; 500 where there was none."""
    path, body, headers = request
    begun = time.monotonic()
    try:
        answer = client.post(path, content=body, headers=headers)
    except Exception as error:
        return 500, repr(error), time.monotonic() - begun
    return answer.status_code, answer.text, time.monotonic() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    findings = run(options.seconds, options.seed)
    total = sum(findings.counts.values())
    print(f"seed {options.seed}, {total} requests, slowest {findings.slowest_s:.2f} s")  # noqa: T201
    for (path, status), count in sorted(findings.counts.items()):
        print(f"{path:22s} {status} {count:8d}")  # noqa: T201
    for what, request in findings.wrong:
        print("WRONG", what, repr(request)[:2000])  # noqa: T201
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
