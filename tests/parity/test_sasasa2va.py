"""What SaSaSa2VA's service does beyond upstream's code, which answers about clips alone."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from pycocotools import mask as coco
from starlette.testclient import TestClient

from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from tests.events import read_events
from tests.parity.goldens import iou, module, scripted, write_scripted_checkpoint
from tests.parity.test_http import payload, spoken
from tests.serving import client_of

NAME = "sasasa2va_three"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = write_scripted_checkpoint(NAME, tmp_path_factory.mktemp(NAME))
    with client_of(Predictor.load(Settings(model_path=str(folder))), SA2VA_TIMEOUT_S="300") as client:
        yield client


def picture() -> dict[str, Any]:
    return next(case for case in scripted(NAME)["cases"] if case["id"] == "img_4x3")


def film(case: str) -> dict[str, Any]:
    found = next(found for found in scripted(NAME)["cases"] if found["id"] == case)
    return {"frames": module("scripted/inputs").make(found)["video"], "prompt": found["text"]}


def asked(client: TestClient, frames: list[Any], prompt: str | None, **fields: Any) -> dict[str, Any]:
    encoded = [base64.b64encode(module("scripted/inputs").png(image)).decode() for image in frames]
    body = {"frames": encoded, "prompt": prompt, "wait": 300, **fields}
    return client.post("/process_video", json=body).json()


def test_a_picture_is_a_clip_of_one_frame(client: TestClient) -> None:
    answer = client.post("/process", json=payload(picture())).json()
    assert answer["result"].count("[SEG]") == 3
    assert len(answer["segments"]) == 1
    frame = module("scripted/inputs").make(picture())["image"]
    clip = asked(client, [frame], picture()["text"])
    [track] = clip["segments"]
    assert answer["result"] == clip["result"]
    assert answer["usage"]["prompt_tokens"] == clip["usage"]["prompt_tokens"] > 5120
    masks = [coco.decode(found["mask"]).astype(bool) for found in (answer["segments"][0], track["frames"][0])]
    assert masks[0].any()
    assert iou(*masks) >= 0.9999


def test_another_question_about_the_picture_reads_its_prefix_from_the_cache(client: TestClient) -> None:
    first = client.post("/process", json=payload(picture())).json()
    again = client.post("/process", json={**payload(picture()), "prompt": "Please segment the disc."}).json()
    assert again["result"] == first["result"]
    cold = client.post("/process", json=payload(picture())).json()
    assert cold["segments"] == first["segments"]


def test_a_stream_tells_one_segment(client: TestClient) -> None:
    events = read_events(client.post("/process_stream", json=payload(picture())).text.splitlines())
    assert [event.name for event in events].count("segment") == 1


def test_what_the_checkpoint_can_not_do_is_refused(client: TestClient) -> None:
    case = film("video_11")
    for fields, name in (
        ({"mode": "q_frame"}, "selected"),
        ({"selected": [0] * 100}, "selected"),
        ({"mode": "q_frame", "selected": [11] * 100}, "selected"),
        ({"frames_seen": "uniform"}, "frames_seen"),
    ):
        answer = asked(client, case["frames"][:2], case["prompt"], **fields)
        assert answer["error"].startswith(f"{name}: ")
    assert "mode" in str(client.post("/process_video", json={"frames": ["eA=="], "prompt": "x", "mode": "best"}).json())


def test_several_questions_have_a_track_each(client: TestClient) -> None:
    case = film("video_11")
    answer = asked(client, case["frames"][:3], None, prompts=["Please segment the disc.", "What is it?"])
    reply = spoken(scripted(NAME)["cases"][0]["answer"])
    assert [found["result"] for found in answer["replies"]] == [reply, reply]
    assert len(answer["segments"]) == 2
    assert {len(track["frames"]) for track in answer["segments"]} == {3}
