"""The embedded model follows shapes through clips, over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco
from starlette.testclient import TestClient

from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from tests import films
from tests.events import read_events
from tests.serving import client_of

SIZE = (320, 240)
COUNT = 14


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(Predictor.load(Settings())) as client:
        yield client


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    images = films.frames(COUNT, SIZE, objects=2)
    return films.film(tmp_path_factory.mktemp("films") / "a.mp4", images).read_bytes()


def asked(client: TestClient, film: bytes, **fields: Any) -> dict[str, Any]:
    data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    answer = client.post("/process_video", files={"video": film}, data={**data, "wait": "60"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def truth(color: tuple[int, int, int]) -> list[np.ndarray]:
    return [np.asarray(image.convert("RGB")) == color for image in films.frames(COUNT, SIZE, objects=2)]


def j_mean(track: dict[str, Any], color: tuple[int, int, int]) -> float:
    found = []
    for frame, pixels in zip(track["frames"], truth(color), strict=True):
        mask, wanted = coco.decode(frame["mask"]).astype(bool), pixels.all(axis=2)
        found.append(np.logical_and(mask, wanted).sum() / np.logical_or(mask, wanted).sum())
    return float(np.mean(found))


def test_what_is_named_is_followed(client: TestClient, film: bytes) -> None:
    answer = asked(client, film, prompt="Please segment the red circle.")
    assert answer["result"].count("[SEG]") == 1
    (track,) = answer["segments"]
    assert j_mean(track, films.RED) > 0.85
    assert track["frames_present"] == COUNT


def test_several_prompts_follow_several_things_as_they_do_alone(client: TestClient, film: bytes) -> None:
    prompts = ["Please segment the red circle.", "Please segment the blue square."]
    both = asked(client, film, prompts=prompts)
    alone = [asked(client, film, prompt=prompt) for prompt in prompts]
    for track, color, single in zip(both["segments"], (films.RED, films.BLUE), alone, strict=True):
        assert j_mean(track, color) > 0.85
        for frame, other in zip(track["frames"], single["segments"][0]["frames"], strict=True):
            assert abs(frame["area"] - other["area"]) <= 2  # of rounding


def test_questions_are_answered_about_the_frames_that_are_seen(client: TestClient, film: bytes) -> None:
    answer = asked(client, film, prompt="What color is the circle?", frames_seen="uniform", frames_seen_count=3)
    assert "red" in answer["result"].lower()
    assert (answer["segments"], answer["frames"]) == ([], 0)


def test_masks_come_while_the_clip_is_followed(client: TestClient, film: bytes) -> None:
    job = client.post("/process_video", files={"video": film}, data={"prompt": "Please segment the red circle."}).json()
    told = list(read_events(client.get(f"/jobs/{job['id']}/events").text.splitlines()))
    names = [event.name for event in told if event.name not in ("", "state")]
    assert names[-COUNT - 2 :] == ["reply", *["frame"] * COUNT, "done"]
    assert set(names[: -COUNT - 2]) == {"text"}


def test_pictures_are_answered_beside_a_clip(client: TestClient, film: bytes, tmp_path: Path) -> None:
    """And nothing of a clip's frames is kept for pictures."""
    job = client.post("/process_video", files={"video": film}, data={"prompt": "Please segment the red circle."}).json()
    picture = films.png(films.frames(2, SIZE)[0])
    answers = [
        client.post("/process", files={"image": picture}, data={"prompt": "Please segment the red circle."}).json()
        for _ in range(3)
    ]
    assert len({answer["segments"][0]["mask"]["counts"] for answer in answers}) == 1
    list(read_events(client.get(f"/jobs/{job['id']}/events").text.splitlines()))
    assert client.get(f"/jobs/{job['id']}").json()["state"] == "done"
