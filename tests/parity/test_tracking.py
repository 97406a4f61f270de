"""SAM2's tracking of an 8-frame clip against upstream's numbers (`tests/golden/qwen2/video8.npz`), float32 on the CPU:
five conditioning frames, three that are followed by memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa2va_bento.model.grounding import ImageFeatures, encode_image
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.pixels import sam_pixels
from sa2va_bento.model.tracking import TrackedFrame, track
from sa2va_bento.processing.masks import low_res_to_mask
from tests.parity.goldens import GOLDEN, iou, largest_error, module, unpack, write_checkpoint

FEATURES, MASK_LOGITS, MASK_IOU = 1e-5, 1e-4, 0.9999
MEMORY = 2**-7
"""Relative: memories are kept in bfloat16, whose last place may fall either way."""

FRAMES, SIZE = range(8), (480, 270)
FOLLOWED = range(5, 8)


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN / "qwen2" / "video8.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def tracked(golden: dict[str, NDArray[Any]], tmp_path_factory: pytest.TempPathFactory) -> list[TrackedFrame]:
    folder: Path = write_checkpoint("qwen2", tmp_path_factory.mktemp("qwen2"))
    sam = load_model(folder, Placement(torch.device("cpu"), torch.float32)).grounding_encoder
    clip = module("inputs").video(*module("inputs").CASES["video8"]["video"])
    asked: list[int] = []

    def features_of(frame: int) -> ImageFeatures:
        asked.append(frame)
        return encode_image(sam, sam_pixels(clip[frame], 1024)[None])

    with torch.no_grad():
        prompts = torch.from_numpy(golden["prompt_embed"])
        found = list(track(sam, features_of, len(clip), prompts, torch.tensor([0])))
    assert asked == list(FRAMES)  # upstream encodes 13 times
    return found


@pytest.mark.parametrize("frame", FRAMES)
def test_predicted_iou_and_object_score(
    tracked: list[TrackedFrame], golden: dict[str, NDArray[Any]], frame: int
) -> None:
    masks = tracked[frame].masks
    assert largest_error(masks.iou[0], golden[f"dec{frame}_iou"].max()) < FEATURES
    assert largest_error(masks.object_score[:, None], golden[f"dec{frame}_obj"]) < FEATURES


@pytest.mark.parametrize("frame", FRAMES)
def test_low_resolution_mask_logits(tracked: list[TrackedFrame], golden: dict[str, NDArray[Any]], frame: int) -> None:
    logits = tracked[frame].masks.logits[:, None, ::2, ::2]
    assert largest_error(logits, golden[f"fr{frame}_lowres"]) < MASK_LOGITS


@pytest.mark.parametrize("frame", FRAMES)
def test_object_pointers(tracked: list[TrackedFrame], golden: dict[str, NDArray[Any]], frame: int) -> None:
    assert largest_error(tracked[frame].memory.pointer, golden[f"fr{frame}_objptr"]) < FEATURES


@pytest.mark.parametrize(("frame", "name"), [(0, "st0_mem0_s"), *((frame, f"fr{frame}_mem_s") for frame in FOLLOWED)])
def test_memories(tracked: list[TrackedFrame], golden: dict[str, NDArray[Any]], frame: int, name: str) -> None:
    kept = tracked[frame].memory.map
    assert kept.dtype == torch.bfloat16
    sample = _as_map(kept)[:, ::4, ::4, ::4].numpy()
    expected = golden[name]
    assert np.all(np.abs(sample - expected) <= MEMORY * np.abs(expected) + FEATURES)
    assert np.mean(sample == expected) > 0.99


def _as_map(kept: Tensor) -> Tensor:
    return kept.float().permute(1, 2, 0).unflatten(-1, (64, 64))


def test_masks_at_the_clips_size(tracked: list[TrackedFrame], golden: dict[str, NDArray[Any]]) -> None:
    expected = unpack(golden["mask0_bits"], golden["mask0_shape"])
    for frame in FRAMES:
        mask = low_res_to_mask(tracked[frame].masks.logits[0], 1024, SIZE)
        assert iou(mask, expected[frame]) >= MASK_IOU
