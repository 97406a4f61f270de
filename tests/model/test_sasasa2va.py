"""SaSaSa2VA's sampling modes as its authors describe them, and how their parts become masks."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Sam2VideoModel

from sa2va_bento.engine.tracker import Tracker
from sa2va_bento.engine.tracking import ClipTracking, FramePixels
from sa2va_bento.errors import BadRequestError
from sa2va_bento.model.config import sam2_config
from sa2va_bento.model.grounding import ABSENT, decode_masks, decode_parts, encode_image
from sa2va_bento.model.sam2 import HIDES_ABSENT
from sa2va_bento.model.sasasa2va.image_processor import clip_pictures
from sa2va_bento.model.sasasa2va.sampling import MODES, plan
from tests.model.test_tracking import SHAPE


def chosen(frames: int) -> tuple[int, ...]:
    return tuple(place * frames // 100 for place in range(100))


def test_uniform_spreads_samples_and_parts() -> None:
    for frames in (1, 7, 12, 100, 1234):
        found = plan(frames, "uniform", ())
        assert found.samples == tuple(int(i * frames / 100) for i in range(100))
        assert [found.parts(t) for t in range(frames)] == [(t * 10 // frames,) for t in range(frames)]
        assert not found.follows


def test_uniform_plus_takes_all_samples_of_a_frame_of_a_short_clip() -> None:
    found = plan(6, "uniform_plus", ())
    assert Counter(found.parts(0)) == {0: 10, 1: 7}  # samples 0 to 16
    assert sum(len(found.parts(t)) for t in range(6)) == 100
    assert plan(300, "uniform_plus", ()).parts(299) == (9,)


def test_wrap_around_goes_through_the_clip_again() -> None:
    found = plan(9, "wrap_around", ())
    assert Counter(found.samples)[0] == 12
    assert list(found.samples) == sorted(i % 9 for i in range(100))
    assert [found.parts(t) for t in range(9)] == [(found.samples.index(t) // 10,) for t in range(9)]


def test_longer_clips_are_followed_in_the_modes_that_see_their_beginning() -> None:
    for mode in ("wrap_around", "q_frame"):
        found = plan(130, mode, chosen(130) if mode == "q_frame" else ())
        assert found.follows
        assert found.parts(99) == (9,)
        assert found.parts(100) == ()
    assert plan(130, "wrap_around", ()).samples == tuple(range(100))
    assert plan(130, "wrap_around_plus", ()).samples == chosen(130)
    assert plan(130, "wrap_around_plus", ()).parts(129) == (9,)


@pytest.mark.parametrize("mode", MODES)
def test_a_hundred_frames_are_ten_tens(mode: str) -> None:
    found = plan(100, mode, tuple(range(100)) if mode == "q_frame" else ())
    assert found.samples == tuple(range(100))
    assert [found.parts(t) for t in range(100)] == [(t // 10,) for t in range(100)]
    assert not found.follows


def test_a_frame_that_nobody_chose_is_masked_by_the_nearest_choice() -> None:
    found = plan(20, "q_frame", (3,) * 50 + (17,) * 50)
    assert set(found.parts(0)) == {0}
    assert set(found.parts(17)) == {5, 6, 7, 8, 9}
    assert found.parts(19) == (5,)


@pytest.mark.parametrize(
    ("mode", "selected"),
    [("q_frame", ()), ("q_frame", (0,) * 99), ("q_frame", (0,) * 99 + (8,)), ("uniform", (0,) * 100)],
)
def test_choices_that_make_no_sense_are_refused(mode: str, selected: tuple[int, ...]) -> None:
    with pytest.raises(BadRequestError, match="selected"):
        plan(8, mode, selected)


def test_ten_samples_are_a_picture_and_a_mosaic() -> None:
    frames = [Image.new("RGB", (448, 224), (place, 0, 0)) for place in range(20)]
    first, mosaic, second, _ = clip_pictures(frames)
    assert [picture.size for picture in (first, mosaic)] == [(448, 448)] * 2
    assert first.getextrema()[0] == (0, 0)
    assert second.getpixel((5, 5)) == (10, 0, 0)
    middles = [[mosaic.getpixel((75 + 149 * x, 75 + 149 * y)) for x in range(3)] for y in range(3)]
    assert middles == [[(1 + 3 * y + x, 0, 0) for x in range(3)] for y in range(3)]


@pytest.fixture(scope="module")
def sam() -> Sam2VideoModel:
    torch.manual_seed(0)
    config = sam2_config(SHAPE)
    setattr(config, HIDES_ABSENT, True)
    model = Sam2VideoModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def test_parts_are_averaged_as_often_as_they_are_named(sam: Sam2VideoModel) -> None:
    features = encode_image(sam, torch.randn(1, 3, 64, 64))
    prompts = torch.randn(1, 3, 128)
    a, b = (decode_masks(sam, features, prompts[:, part]) for part in (0, 2))
    found = decode_parts(sam, features, prompts, (0, 2, 2))
    torch.testing.assert_close(found.logits, (a.logits + 2 * b.logits) / 3)
    assert found.object_score == min(a.object_score, b.object_score)
    assert torch.equal(decode_parts(sam, features, prompts, (2, 2)).logits, b.logits)


def test_an_absent_object_has_no_mask(sam: Sam2VideoModel) -> None:
    features = encode_image(sam, torch.randn(1, 3, 64, 64)).rows(torch.zeros(40, dtype=torch.long))
    found = decode_masks(sam, features, torch.randn(40, 128) * 3)
    absent = found.object_score <= 0
    assert ((found.logits == ABSENT).flatten(1).all(dim=1) == absent).all()


class OnlySam(torch.nn.Module):
    def __init__(self, sam: Sam2VideoModel) -> None:
        super().__init__()
        self.grounding_encoder = sam


def test_a_long_clip_is_followed_from_its_parts_and_a_spread_one_leaves_nothing(sam: Sam2VideoModel) -> None:
    pixels = np.random.default_rng(0).normal(size=(104, 3, 64, 64)).astype(np.float32)
    prompts = torch.randn(1, 10, 128)
    for mode, kept in (("wrap_around", 100), ("uniform", 0)):
        tracker = Tracker(OnlySam(sam), lambda arrays: torch.from_numpy(np.concatenate(arrays)))  # type: ignore[arg-type]
        wanted = plan(104, mode, ())
        clip = ClipTracking(
            prompts, frozenset(), lambda index, masks: None, parts=wanted.parts, leaves_memory=wanted.follows
        )
        masks = [tracker.track(clip, [FramePixels(place, pixels[place])])[0] for place in range(104)]
        assert {len(found) for found in masks} == {1}
        bank = tracker._banks[clip]
        assert len(bank.conditioning) == kept
        assert set(bank.recent_maps) == (set(range(100, 104)) if kept else set())
        first = decode_masks(sam, encode_image(sam, torch.from_numpy(pixels[37:38])), prompts[:, 3])
        np.testing.assert_allclose(masks[37][0].logits, first.logits[0].numpy(), atol=1e-4)
