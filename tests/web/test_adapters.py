"""Adapters by name over HTTP: every way to ask names one, and what answers says which."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sa2va_bento.cli.main import main
from tests import films
from tests.chats import SEGMENT
from tests.events import read_events
from tests.fakes import FakePredictor
from tests.pictures import PICTURE
from tests.serving import client_of, server_of
from tests.web.jobs.test_jobs import ended

GOOD = {"base64Image": PICTURE, "prompt": "Please segment it."}


@pytest.fixture(scope="module")
def model() -> FakePredictor:
    return FakePredictor()


@pytest.fixture(scope="module")
def client(model: FakePredictor) -> Iterator[TestClient]:
    with client_of(model, SA2VA_ADAPTERS="Cells=/srv/cells,cracks=me/cracks") as client:
        yield client


def test_process_names_one(client: TestClient, model: FakePredictor) -> None:
    answer = client.post("/process", json={**GOOD, "adapter": "cells"}).json()
    assert (answer["model"], model.requests[-1].adapter) == ("Cells", "Cells")
    answer = client.post("/process", json=GOOD).json()
    assert (answer["model"], model.requests[-1].adapter) == ("sa2va-nano", None)


def test_a_form_and_a_stream_name_one(client: TestClient, model: FakePredictor) -> None:
    form = {"prompt": "Please segment it.", "adapter": "cracks"}
    answer = client.post("/process", data=form, files={"image": base64.b64decode(PICTURE)}).json()
    assert (answer["model"], model.requests[-1].adapter) == ("cracks", "cracks")
    response = client.post("/process_stream", json={**GOOD, "adapter": "cracks"})
    events = {event.name: event.data for event in read_events(response.iter_lines())}
    assert (events["start"]["model"], events["done"]["model"]) == ("cracks", "cracks")


@pytest.mark.parametrize("path", ["/process", "/process_stream"])
def test_an_unknown_one_is_refused_with_those_that_there_are(client: TestClient, path: str) -> None:
    response = client.post(path, json={**GOOD, "adapter": "dogs"})
    assert response.status_code == 400
    assert response.json()["error"] == "adapter: not served here (served: Cells, cracks)"


def test_chats_name_one_by_the_model(client: TestClient, model: FakePredictor) -> None:
    for named, answers, adapter in (("cracks", "cracks", "cracks"), ("sa2va", "sa2va-nano", None)):
        answer = client.post("/v1/chat/completions", json={"model": named, "messages": SEGMENT})
        assert (answer.json()["model"], model.requests[-1].adapter) == (answers, adapter)
    streamed = client.post("/v1/chat/completions", json={"model": "CELLS", "messages": SEGMENT, "stream": True})
    assert '"model": "Cells"' in streamed.text
    unknown = client.post("/v1/chat/completions", json={"model": "dogs", "messages": SEGMENT})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_the_list_of_models_has_them(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert [(card["id"], card["parent"]) for card in listed] == [
        ("sa2va-nano", None),
        ("Cells", "sa2va-nano"),
        ("cracks", "sa2va-nano"),
    ]
    assert client.get("/v1/models/cells").json()["id"] == "Cells"
    assert client.get("/v1/models/dogs").status_code == 404


def test_a_video_names_one(client: TestClient, model: FakePredictor, tmp_path: Path) -> None:
    film = films.film(tmp_path / "a.mp4", films.frames(3)).read_bytes()
    form: dict[str, Any] = {"prompt": "Please segment the red circle.", "adapter": "cells"}
    job = client.post("/process_video", files={"video": ("a.mp4", film)}, data=form).json()
    assert ended(client, job["id"])["state"] == "done"
    assert model.clips[-1].adapter == "Cells"
    assert client.get(f"/jobs/{job['id']}/result").json()["model"] == "Cells"
    refused = client.post("/process_video", files={"video": ("a.mp4", film)}, data={**form, "adapter": "dogs"})
    assert refused.status_code == 400
    assert "served: Cells, cracks" in refused.json()["error"]


def test_the_command_line_names_one(model: FakePredictor, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(base64.b64decode(PICTURE))
    with server_of(model, SA2VA_ADAPTERS="cells=/srv/cells") as url:
        assert main(["ask", str(picture), "Segment it.", "--url", url, "--adapter", "cells"]) == 0
        assert model.requests[-1].adapter == "cells"
        assert main(["ask", str(picture), "Segment it.", "--url", url, "--adapter", "dogs"]) == 1
