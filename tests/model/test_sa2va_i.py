"""Sa2VA-i: checkpoints with two mask decoders, the tuned one for prompts and the original one for following."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2VideoModel

from sa2va_bento.cli.main import main
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.config import sam2_config
from sa2va_bento.model.grounding import decode_mask, decode_masks, encode_image
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.sam2 import Sam2
from sa2va_bento.model.tracking import ABSENT, frames_seen, track
from tests.model.test_tracking import SHAPE, prompts
from tests.parity.goldens import write_checkpoint

CPU = Placement(torch.device("cpu"), torch.float32)
DECODER = "grounding_encoder.sam2_model.sam_mask_decoder."
TUNED = "grounding_encoder.sam2_model.sam_mask_decoder_modified."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as Sa2VA-i's authors make them: a tuned decoder gets a second name, the original one its place."""
    folder = write_checkpoint("qwen2", tmp_path_factory.mktemp("sa2va-i"))
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.startswith(DECODER)]:
        tensors[name.replace(DECODER, TUNED)] = tensors[name]
        tensors[name] = tensors[name] * 0.9
    save_file(tensors, folder / "model.safetensors")
    return folder


@torch.no_grad()
def test_pictures_are_segmented_by_the_tuned_decoder(folder: Path, tmp_path: Path) -> None:
    sam = load_model(folder, CPU).grounding_encoder
    plain = load_model(write_checkpoint("qwen2", tmp_path / "plain"), CPU).grounding_encoder
    pixels, asked = (
        torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1)),
        prompts(2, 1).repeat(1, 2),
    )
    ours, tuned = (decode_masks(model, encode_image(model, pixels), asked) for model in (sam, plain))
    torch.testing.assert_close(ours.logits, tuned.logits, atol=1e-4, rtol=1e-4)
    assert not torch.equal(sam.mask_decoder.conv_s0.weight, sam.tuned_mask_decoder.conv_s0.weight)


def test_check_names_both_decoders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(folder)]) == 0
    assert "Sa2VA-i" in capsys.readouterr().out


def test_half_a_second_decoder_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[f"{TUNED}iou_token.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"missing tensors: .*\.sam_mask_decoder_modified\.iou_token"):
        load_model(tmp_path, CPU)


@pytest.fixture(scope="module")
def sam() -> Sam2:
    config = sam2_config(SHAPE)
    config.has_tuned_decoder = True
    torch.manual_seed(0)
    model = Sam2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 6, 8, 31, 97, 300])
def test_frames_are_spread_over_the_clip(sam: Sam2, frames: int) -> None:
    """As upstream's `np.linspace(0, frames - 1, 5, dtype=int)`, which short clips get duplicates from."""
    assert frames_seen(sam, frames) == np.unique(np.linspace(0, frames - 1, 5, dtype=int)).tolist()


def test_other_checkpoints_see_the_first_frames(sam: Sam2) -> None:
    plain = Sam2VideoModel(sam2_config(SHAPE))
    assert frames_seen(plain, 3) == [0, 1, 2]
    assert frames_seen(plain, 90) == [0, 1, 2, 3, 4]


@torch.no_grad()
def test_the_original_decoder_follows_what_the_tuned_one_found(sam: Sam2) -> None:
    clip = [encode_image(sam, pixels[None]) for pixels in torch.randn(9, 3, 64, 64)]
    other = copy.deepcopy(sam)
    for parameter in other.mask_decoder.parameters():
        parameter.mul_(1.1)
    ours, changed = (
        list(track(model, clip.__getitem__, 9, prompts(1, 1), torch.tensor([0]))) for model in (sam, other)
    )
    assert [frame.frame for frame in ours] == [0, 2, 4, 6, 8, 1, 3, 5, 7]
    for frame in range(5):
        assert torch.allclose(ours[frame].masks.logits, changed[frame].masks.logits, atol=1e-4)
    for frame in range(5, 9):
        assert not torch.allclose(ours[frame].masks.logits, changed[frame].masks.logits, atol=1e-4)


@torch.no_grad()
def test_followed_objects_that_are_absent_have_no_mask(sam: Sam2) -> None:
    clip = [encode_image(sam, pixels[None]) for pixels in torch.randn(9, 3, 64, 64)]
    blind = copy.deepcopy(sam)
    blind.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(-100)
    for tracked in list(track(blind, clip.__getitem__, 9, prompts(1, 1), torch.tensor([0])))[5:]:
        assert bool((tracked.masks.logits == ABSENT).all())
        assert torch.equal(tracked.memory.pointer, blind.no_object_pointer)


@torch.no_grad()
def test_the_pointer_to_a_drawn_mask_is_sam2s(sam: Sam2) -> None:
    plain = Sam2VideoModel(sam2_config(SHAPE)).eval()
    plain.load_state_dict({k: v for k, v in sam.state_dict().items() if not k.startswith("tuned")})
    pixels, mask = torch.randn(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    mask[..., 10:40, 20:50] = 1
    features = encode_image(sam, pixels)
    decoded = decode_mask(sam, features, mask)
    single: Any = plain._single_frame_forward  # its annotations are narrower than what it takes and gives
    theirs = single(
        input_masks=plain.mask_downsample(mask),
        image_embeddings=[*features.following_details, features.embedding],
        multimask_output=False,
    )
    assert bool((decoded.object_score == theirs.object_score_logits[:, 0]).all())
    pointer = (
        sam.object_pointer_proj(decoded.tokens[:, 0]) if float(decoded.object_score) > 0 else sam.no_object_pointer
    )
    torch.testing.assert_close(pointer, theirs.object_pointer[:, 0])
