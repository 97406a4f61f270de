"""The scripted-reply checkpoints through the whole service: upload a PNG over HTTP, compare text and masks with
upstream's (`tests/golden/scripted`)."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from pycocotools import mask as coco
from starlette.testclient import TestClient

from sa2va_bento.media.mask_formats import encode_rle
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from tests.parity.goldens import iou, module, scripted, scripted_mask, write_scripted_checkpoint
from tests.serving import client_of

GOLDENS = (
    *("qwen2_one", "qwen2_two", "qwen2_text", "internlm2_one", "qwen3_two", "vit6b_one"),
    *("qwen2_5_vl_one", "qwen3_vl_one", "llava_one", "llava_two"),
    *("qwen3_vl_sam3_one", "qwen3_vl_sam3_two", "sasasa2va_three"),
)
STOPS = ("<|im_end|>", "</s>")


@pytest.fixture(scope="module", params=GOLDENS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, TestClient]]:
    name: str = request.param
    folder = write_scripted_checkpoint(name, tmp_path_factory.mktemp(name))
    with client_of(Predictor.load(Settings(model_path=str(folder)))) as client:
        yield name, client


def payload(case: dict[str, Any]) -> dict[str, Any]:
    recipe = module("scripted/inputs")
    made = recipe.make(case)
    masks = [mask.astype(bool) for mask in made.get("regions", [])]
    regions = [{"mask": {"size": list(mask.shape), "counts": encode_rle(mask)}} for mask in masks]
    return {
        "base64Image": base64.b64encode(recipe.png(made["image"])).decode(),
        "prompt": case["text"],
        "regions": regions,
        "max_new_tokens": case.get("max_new_tokens", 64),
    }


def words(name: str, reply: str) -> str:
    """A reply without its blanks for InternLM2: upstream's slow tokenizer puts some around every added token."""
    return reply.replace(" ", "") if name.startswith("internlm2") else reply


def spoken(reply: str) -> str:
    """Upstream's reply without its stop token."""
    for stop in STOPS:
        reply = reply.removesuffix(stop)
    return reply


def test_text_without_a_picture_is_upstreams(served: tuple[str, TestClient]) -> None:
    name, client = served
    for case in scripted(name)["cases"]:
        if case["id"] == "text_only":
            messages = [{"role": "user", "content": case["text"]}]
            answer = client.post("/v1/chat/completions", json={"model": "sa2va", "messages": messages}).json()
            reply = answer["choices"][0]["message"]
            assert words(name, reply["content"]) == words(name, spoken(case["answer"]))
            assert reply["segments"] == []
            assert answer["usage"]["prompt_tokens"] == case["n_prompt_tokens"]
            assert answer["usage"]["completion_tokens"] == len(case["token_ids"])


def test_answers_are_upstreams(served: tuple[str, TestClient]) -> None:
    check_answers(*served, 0.9999)


def check_answers(name: str, client: TestClient, least: float) -> None:
    """`least` is the masks' IoU with upstream's."""
    for case in scripted(name)["cases"]:
        if "image" not in case or "upstream_error" in case:
            continue
        answer = client.post("/process", json=payload(case)).json()
        assert words(name, answer["result"]) == words(name, spoken(case["answer"])), case["id"]
        assert answer["usage"]["prompt_tokens"] == case["n_prompt_tokens"], case["id"]
        assert answer["usage"]["completion_tokens"] == len(case["token_ids"]), case["id"]
        assert answer["finish_reason"] == ("stop" if case["answer"].endswith(STOPS) else "length"), case["id"]
        cut_off = case["answer"].endswith("[SEG]")  # upstream has no mask for a marker that it never read; we read it
        assert len(answer["segments"]) == answer["result"].count("[SEG]") == len(case["masks"]) + cut_off, case["id"]
        for segment, entry in zip(answer["segments"], case["masks"], strict=not cut_off):
            mask = coco.decode(segment["mask"]).astype(bool)
            assert iou(mask, scripted_mask(name, entry)[0]) >= least, case["id"]
            assert segment["area"] == int(mask.sum())
