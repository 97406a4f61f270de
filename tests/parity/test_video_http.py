"""The clips of the scripted checkpoints over HTTP: text, and the masks of every frame, are upstream's."""

import base64
from collections.abc import Iterator

import pytest
from pycocotools import mask as coco
from starlette.testclient import TestClient

from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from tests.events import read_events
from tests.parity.goldens import iou, module, scripted, scripted_mask, write_scripted_checkpoint
from tests.parity.test_http import spoken as upstreams
from tests.parity.test_http import words
from tests.serving import client_of

GOLDENS = (
    *("qwen2_two", "qwen2_text", "internlm2_one", "vit6b_one", "qwen2_5_vl_one", "qwen3_vl_one"),
    *("llava_two", "qwen3_vl_sam3_one", "sasasa2va_three", "sasasa2va_absent"),
)
LONG = ("qwen2_one", "llava_one", "qwen3_vl_sam3_two", "sasasa2va_ten")
"""Of many frames; their families have shorter ones as well."""


@pytest.fixture(scope="module", params=[*GOLDENS, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, TestClient]]:
    name: str = request.param
    folder = write_scripted_checkpoint(name, tmp_path_factory.mktemp(name))
    with client_of(Predictor.load(Settings(model_path=str(folder), threads=2)), SA2VA_TIMEOUT_S="300") as client:
        yield name, client


def test_clips_are_answered_as_upstream_does(served: tuple[str, TestClient]) -> None:
    check_clips(*served, 0.9999)


def check_clips(name: str, client: TestClient, least: float) -> None:
    """`least` is the masks' IoU with upstream's."""
    cases = [case for case in scripted(name)["cases"] if "video" in case]
    assert cases
    recipe = module("scripted/inputs")
    for case in cases:
        frames = [base64.b64encode(recipe.png(image)).decode() for image in recipe.make(case)["video"]]
        body = {"frames": frames, "prompt": case["text"], "max_new_tokens": case.get("max_new_tokens", 64), "wait": 300}
        body |= {name: case[name] for name in ("mode", "selected") if name in case}
        answer = client.post("/process_video", json=body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert words(name, found["result"]) == words(name, upstreams(case["answer"])), case["id"]
        assert found["usage"]["prompt_tokens"] == case["n_prompt_tokens"], case["id"]
        assert spoken(client, found["id"]) == found["result"], case["id"]
        assert len(found["segments"]) == len(case["masks"]), case["id"]
        for track, entry in zip(found["segments"], case["masks"], strict=True):
            expected = scripted_mask(name, entry)
            assert [frame["frame_index"] for frame in track["frames"]] == list(range(len(expected)))
            for frame, mask in zip(track["frames"], expected, strict=True):
                assert iou(coco.decode(frame["mask"]).astype(bool), mask) >= least, case["id"]


def spoken(client: TestClient, job: str) -> str:
    """The reply as the events tell it."""
    events = read_events(client.get(f"/jobs/{job}/events").text.splitlines())
    return "".join(event.data["text"] for event in events if event.name == "text").strip()
