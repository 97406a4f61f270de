"""Tracking on the embedded model's shape with random weights: what batching, looking back and training rely on.
`tests/parity/test_tracking.py` compares with upstream's numbers."""

import inspect
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from sa2va_bento.model import memory_attention
from sa2va_bento.model.config import Sam2Shape, sam2_config
from sa2va_bento.model.grounding import ImageFeatures, pyramid
from sa2va_bento.model.tracking import (
    Memory,
    MemoryBank,
    TrackedFrame,
    attend_to_memory,
    condition_frame,
    follow_frame,
    recall,
    track,
)

SHAPE = Sam2Shape(
    image_size=64, d_model=128, embed_dim=16, num_heads=1, stages=(1, 1, 2, 1), global_att_blocks=(3,),
    memory_attention_layers=2, memory_attention_dim_feedforward=64, mask_decoder_mlp_dim=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def sam() -> Sam2VideoModel:
    torch.manual_seed(0)
    model = Sam2VideoModel(sam2_config(SHAPE)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # the embeddings start at zero
    return model


def clip(seed: int, frames: int) -> list[ImageFeatures]:
    """Features of a clip, as SAM2's encoder shapes them for 64-pixel pictures."""
    noise = torch.Generator().manual_seed(seed)
    shapes = ((1, 16, 16, 16), (1, 32, 8, 8), (1, 128, 4, 4))
    return [ImageFeatures(*(torch.randn(*shape, generator=noise) for shape in shapes)) for _ in range(frames)]


def prompts(seed: int, count: int) -> Tensor:
    return torch.randn(count, 128, generator=torch.Generator().manual_seed(seed))


def tracked(
    sam: Sam2VideoModel,
    clips: Sequence[list[ImageFeatures]],
    asked: Tensor,
    owners: Sequence[int],
    conditioning: Sequence[int] | None = None,
) -> list[TrackedFrame]:
    return list(
        track(
            sam,
            lambda frame: ImageFeatures.stack([features[frame] for features in clips]),
            len(clips[0]),
            asked,
            torch.tensor(owners),
            conditioning,
        )
    )


@torch.no_grad()
def test_clips_and_objects_in_one_batch_are_as_alone(sam: Sam2VideoModel) -> None:
    clips, asked, owners = [clip(1, 9), clip(2, 9)], prompts(3, 3), [1, 0, 1]
    together = tracked(sam, clips, asked, owners)
    for row, owner in enumerate(owners):
        alone = tracked(sam, [clips[owner]], asked[row : row + 1], [0])
        for ours, single in zip(together, alone, strict=True):
            torch.testing.assert_close(ours.masks.logits[row], single.masks.logits[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_masks_of_later_frames_depend_on_the_prompt_through_memory_alone(sam: Sam2VideoModel) -> None:
    clips = [clip(1, 7)]
    first, second = (tracked(sam, clips, prompts(seed, 1), [0]) for seed in (3, 4))
    assert not torch.allclose(first[6].masks.logits, second[6].masks.logits)


@torch.no_grad()
def test_a_clip_that_the_language_model_saw_whole_has_no_followed_frames(sam: Sam2VideoModel) -> None:
    frames = tracked(sam, [clip(1, 3)], prompts(3, 1), [0])
    picture = tracked(sam, [clip(1, 3)[2:]], prompts(3, 1), [0])
    assert [frame.frame for frame in frames] == [0, 1, 2]
    assert torch.allclose(frames[2].masks.logits, picture[0].masks.logits, atol=1e-5)


@torch.no_grad()
def test_conditioning_frames_may_lie_anywhere(sam: Sam2VideoModel) -> None:
    frames = tracked(sam, [clip(1, 6)], prompts(3, 1), [0], conditioning=(0, 3, 5))
    assert [frame.frame for frame in frames] == [0, 3, 5, 1, 2, 4]


def test_gradients_reach_every_memory_module(sam: Sam2VideoModel) -> None:
    frames = tracked(sam, [clip(1, 8)], prompts(3, 2).requires_grad_(), [0, 0])
    torch.stack([frame.masks.logits for frame in frames]).square().mean().backward()
    trained = (sam.memory_attention, sam.memory_encoder, sam.object_pointer_proj, sam.mask_decoder)
    for module in trained:
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        assert any(float(grad.abs().sum()) > 0 for grad in grads), type(module).__name__
    assert sam.memory_temporal_positional_encoding.grad is not None
    sam.zero_grad()


@torch.no_grad()
@pytest.mark.parametrize("most_kept", [0, 4096])
def test_recalling_is_the_in_tree_modules_attention(
    sam: Sam2VideoModel, monkeypatch: pytest.MonkeyPatch, most_kept: int
) -> None:
    """Whether or not keys and values are kept from frame to frame."""
    monkeypatch.setattr(memory_attention, "MOST_KEPT", most_kept)
    features, bank = clip(1, 30), MemoryBank.of(sam, 30)
    rows = [frame.rows(torch.tensor([0, 0])) for frame in features]
    for frame in (0, 1):
        bank.conditioning[frame] = condition_frame(sam, frame, rows[frame], prompts(3, 2)).memory
    for frame in range(2, 30):
        expected = attend_to_memory(sam, frame, rows[frame].embedding, bank)
        found = recall(sam, frame, rows[frame].embedding, bank)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
        bank.add(frame, follow_frame(sam, frame, rows[frame], bank).memory)
    assert bank.attention
    assert len(bank.attention._kept) == (
        7 if most_kept else 0
    )  # of the last one, which nobody has read yet, nothing is kept


def memory(value: float) -> Memory:
    return Memory(torch.full((1, 1, 1), value), torch.full((1, 1), value))


def test_the_bank_looks_back_six_maps_and_fifteen_pointers_and_keeps_no_more() -> None:
    bank = MemoryBank(maps=7, pointers=16, conditioning={0: memory(0)})
    for frame in range(1, 40):
        bank.add(frame, memory(frame))
    assert [(row, int(kept)) for _, row, kept in bank.maps_for(40)] == [
        (6, 0), (5, 34), (4, 35), (3, 36), (2, 37), (1, 38), (0, 39)
    ]  # fmt: skip
    assert [int(pointer) for _, pointer in bank.pointers_for(40)] == [0, *range(39, 24, -1)]
    assert len(bank.recent_maps) == 6
    assert len(bank.recent_pointers) == 15


def test_pointers_of_later_conditioning_frames_are_not_read_but_their_maps_are() -> None:
    bank = MemoryBank(maps=7, pointers=16, conditioning={0: memory(0), 5: memory(5)})
    assert [(seen, int(kept)) for seen, _, kept in bank.maps_for(3)] == [(0, 0), (5, 5)]
    assert [int(pointer) for _, pointer in bank.pointers_for(3)] == [0]


@torch.no_grad()
def test_what_is_used_of_transformers_is_there_and_has_its_shapes(sam: Sam2VideoModel) -> None:
    """Private names and odd shapes of transformers that `model/tracking.py` relies on."""
    assert list(inspect.signature(sam._encode_new_memory).parameters) == [
        "current_vision_feats", "pred_masks_high_res", "object_score_logits", "is_mask_from_pts"
    ]  # fmt: skip
    kept, places = sam._encode_new_memory(torch.zeros(16, 2, 128), torch.zeros(2, 1, 64, 64), torch.ones(2, 1), False)
    assert (kept.shape, kept.dtype, len(places)) == ((16, 2, 64), torch.bfloat16, 16)
    attended = sam.memory_attention(
        current_vision_features=torch.zeros(16, 2, 128),
        current_vision_position_embeddings=torch.zeros(16, 1, 128),
        memory=torch.zeros(36, 2, 64),
        memory_posision_embeddings=torch.zeros(36, 2, 64),
        num_object_pointer_tokens=4,
    )
    assert attended.shape == (1, 2, 16, 128)
    assert sam.occlusion_spatial_embedding_parameter is None
    assert (sam.num_maskmem, sam.mem_dim, sam.config.max_object_pointers_in_encoder) == (7, 64, 16)
    assert sam.memory_temporal_positional_encoding.shape == (7, 1, 1, 64)
    for encoding in (sam.memory_encoder.position_encoding, sam.vision_encoder.neck.position_encoding):
        assert encoding(torch.Size((1, 8, 4, 4)), torch.device("cpu"), torch.float32).shape[2:] == (4, 4)


@torch.inference_mode()
def test_the_pyramid_is_the_in_tree_necks(sam: Sam2VideoModel) -> None:
    pixels = torch.randn(2, 3, SHAPE.image_size, SHAPE.image_size)
    expected = sam.vision_encoder(pixels).fpn_hidden_states
    found = pyramid(sam.vision_encoder.neck, sam.vision_encoder.backbone(pixels).intermediate_hidden_states)
    for level, other in zip(found, expected, strict=True):
        assert torch.equal(level, other)
