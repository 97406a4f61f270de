"""BentoML's own client, which learns from the service what its endpoints take: pictures of any kind, and streams."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import pytest
from PIL import Image

from tests.fakes import FakePredictor
from tests.pictures import PICTURE, encode, quarters
from tests.serving import server_of

ASKED = {"prompt": "Please segment it."}


@pytest.fixture(scope="module")
def model() -> FakePredictor:
    return FakePredictor()


@pytest.fixture(scope="module")
def url(model: FakePredictor) -> Iterator[str]:
    with server_of(model, SA2VA_MAX_BODY_MB="2") as url:
        yield url


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "quarters.png"
    path.write_bytes(encode(quarters()))
    return path


PICTURES: dict[str, Any] = {
    "text": lambda file: {"base64Image": PICTURE},
    "data URL": lambda file: {"base64Image": f"data:image/png;base64,{PICTURE}"},
    "path": lambda file: {"image": file},
    "path as text": lambda file: {"image": str(file)},
    "opened by Pillow": lambda file: {"image": Image.open(io.BytesIO(file.read_bytes()))},
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_may_be_given_as(url: str, file: Path, name: str) -> None:
    with bentoml.SyncHTTPClient(url) as client:
        answer = client.process(**ASKED, **PICTURES[name](file))  # type: ignore[attr-defined]
    assert answer["image"] == {"width": 48, "height": 32}
    assert len(answer["segments"]) == 1
    assert answer["warnings"] == []


def test_a_file_that_pillow_has_opened(url: str, file: Path) -> None:
    with bentoml.SyncHTTPClient(url) as client, Image.open(file) as picture:
        assert client.process(**ASKED, image=picture)["segments"][0]["area"] == 768  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PICTURES)
def test_the_asynchronous_client_takes_the_same(url: str, file: Path, name: str) -> None:
    async def ask() -> Any:
        async with bentoml.AsyncHTTPClient(url) as client:
            return await client.process(**ASKED, **PICTURES[name](file))  # type: ignore[attr-defined]

    assert len(asyncio.run(ask())["segments"]) == 1


@pytest.mark.parametrize("name", ["text", "path"])
def test_other_fields_arrive_as_they_were(url: str, file: Path, model: FakePredictor, name: str) -> None:
    fields: dict[str, Any] = {
        "prompt": '"50%"&+ = 1234 ä\n',
        "history": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "true"}],
        "regions": [{"box": [1, 1, 4, 4]}],
        "mask_format": "none",
        "mask_threshold": 0.25,
        "include_overlay": True,
        "max_tiles": 2,
        "max_new_tokens": None,
    }
    with bentoml.SyncHTTPClient(url) as client:
        answer = client.process(**fields, **PICTURES[name](file))  # type: ignore[attr-defined]
    asked = model.requests[-1]
    assert asked.prompt == fields["prompt"]
    assert [turn.content for turn in asked.history] == ["Hi.", "true"]
    assert (asked.mask_threshold, asked.max_tiles, asked.max_new_tokens) == (0.25, 2, None)
    assert asked.regions[0].sum() == 16
    assert answer["overlay"].startswith("data:image/png")


@pytest.mark.parametrize("prompt", ["1234", "true", "null", "[1]", '"quoted"'])
def test_texts_stay_texts(url: str, file: Path, model: FakePredictor, prompt: str) -> None:
    with bentoml.SyncHTTPClient(url) as client:
        client.process(prompt=prompt, image=file)  # type: ignore[attr-defined]
    assert model.requests[-1].prompt == prompt


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"prompt": " ", "base64Image": PICTURE}, "prompt: empty"),
        ({"prompt": 7, "base64Image": PICTURE}, "prompt: input should be a valid string"),
        ({"prompt": "hi"}, "base64Image: field required"),
        ({"prompt": "hi", "base64Image": PICTURE, "max_tiles": "2"}, "max_tiles"),
        ({"prompt": "hi", "base64Image": "a" * (3 * 2**20)}, "over the limit of 2 MiB"),
    ],
)
def test_mistakes_are_named(url: str, fields: dict[str, Any], fragment: str) -> None:
    with bentoml.SyncHTTPClient(url) as client, pytest.raises(bentoml.exceptions.BentoMLException, match=fragment):
        client.process(**fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PICTURES)
def test_the_stream_is_an_iterator(url: str, file: Path, name: str) -> None:
    with bentoml.SyncHTTPClient(url) as client:
        pieces = list(client.process_stream(**ASKED, **PICTURES[name](file)))  # type: ignore[attr-defined]
    assert len(pieces) > 1
    check_events("".join(pieces))


def test_the_asynchronous_stream_is_an_iterator(url: str, file: Path) -> None:
    async def ask() -> list[str]:
        async with bentoml.AsyncHTTPClient(url) as client:
            return [piece async for piece in client.process_stream(**ASKED, image=file)]  # type: ignore[attr-defined]

    check_events("".join(asyncio.run(ask())))


def check_events(text: str) -> None:
    events = [dict(line.split(": ", 1) for line in event.splitlines()) for event in text.strip().split("\n\n")]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "done"]
    assert json.loads(events[-1]["data"])["segments"][0]["area"] == 768


def test_a_stream_that_is_refused(url: str) -> None:
    with (
        bentoml.SyncHTTPClient(url) as client,
        pytest.raises(bentoml.exceptions.BentoMLException, match="prompt: empty"),
    ):
        next(client.process_stream(base64Image=PICTURE, prompt=" "))  # type: ignore[attr-defined]


def test_what_it_is_told_of_the_endpoints(url: str) -> None:
    with bentoml.SyncHTTPClient(url) as client:
        endpoints = client.endpoints
    assert endpoints.keys() == {
        *("health", "process", "process_stream"),
        *("process_video", "job", "job_result", "cancel_job"),
    }
    assert endpoints["process"].input["required"] == ["prompt"]
    assert endpoints["process_stream"].stream_output
