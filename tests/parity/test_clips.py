"""Clips through the whole predictor on the scripted checkpoints: text and the masks of every frame are upstream's."""

from collections.abc import Iterator

import pytest

from sa2va_bento.clips import ClipQuestion, ClipRequest
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from tests.clips import ListedClip, Notes
from tests.parity.goldens import iou, module, scripted, scripted_mask, write_scripted_checkpoint
from tests.parity.test_http import STOP, words

GOLDENS = ("qwen2_one", "qwen2_two", "qwen2_text", "internlm2_one", "vit6b_one", "qwen2_5_vl_one", "qwen3_vl_one")


@pytest.fixture(scope="module", params=GOLDENS)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Predictor]]:
    name: str = request.param
    predictor = Predictor.load(
        Settings(model_path=str(write_scripted_checkpoint(name, tmp_path_factory.mktemp(name))))
    )
    yield name, predictor
    predictor.close()


def test_clips_are_answered_as_upstream_does(loaded: tuple[str, Predictor]) -> None:
    name, predictor = loaded
    cases = [case for case in scripted(name)["cases"] if "video" in case]
    assert cases
    for case in cases:
        images, notes = module("scripted/inputs").make(case)["video"], Notes()
        question = ClipQuestion(case["text"])
        request = ClipRequest(ListedClip(images), (question,), max_new_tokens=case.get("max_new_tokens", 64))
        predictor.answer_clip(request, notes)
        (reply,) = notes.replies
        assert words(name, reply.result) == words(name, case["answer"].removesuffix(STOP)), case["id"]
        assert words(name, notes.texts[0].strip()) == words(name, reply.result)
        assert reply.usage.prompt_tokens == case["n_prompt_tokens"], case["id"]
        assert len(reply.tracks) == len(case["masks"]), case["id"]
        expected = [scripted_mask(name, entry) for entry in case["masks"]]
        assert [frame.index for frame in notes.frames] == (list(range(len(images))) if expected else [])
        for frame in notes.frames:
            for segment, masks in zip(frame.segments, expected, strict=True):
                assert iou(segment.mask, masks[frame.index]) >= 0.9999, (case["id"], frame.index)
