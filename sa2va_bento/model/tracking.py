"""From `[SEG]` embeddings to mask logits on every frame of a clip, on the sub-modules of the in-tree `Sam2VideoModel`.

The frames that the language model saw, the first ones, are conditioning frames: each is decoded with the `[SEG]`
prompt, as a picture is. Every other frame is decoded without a prompt, on features that have attended to memories:
those of all conditioning frames, of up to six frames before, and the object pointers of both. A memory is a frame's
features fused with its own mask as probabilities, never cut.

Sa2VA-i's checkpoints (`model/sam2.py`) have two mask decoders, and other rules: the language model sees frames spread
over the whole clip; their masks, by the tuned decoder, are cut and remembered as if they had been drawn; the original
decoder follows them, and where it scores an object absent there is no mask.

SAM3's tracker (`model/sam3.py`) looks back to the nearest conditioning frames alone, and its pointers know how long ago
they were made; its configuration says so.

The batch dimension carries objects: B rows, of one clip or of several of one length. Nothing here disables gradients
or picks a device, so that training runs the same functions.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Sam2VideoModel
from transformers.models.sam3_tracker_video.modeling_sam3_tracker_video import get_1d_sine_pe

from sa2va_bento.model.grounding import (
    ABSENT,
    BestMasks,
    ImageFeatures,
    best_masks,
    decode_mask,
    decode_masks,
    decode_unprompted,
)
from sa2va_bento.model.memory_attention import MemoryAttention
from sa2va_bento.model.memory_bank import Memory, MemoryBank
from sa2va_bento.model.sam2 import cuts_prompted, has_tuned_decoder, hides_absent

FRAMES_SEEN = 5
"""Most frames of a clip that upstream shows to the language model."""
DRAWN_SCALE, DRAWN_BIAS = 20.0, -10.0
"""A drawn mask's zeros and ones as logits, in SAM2."""


def frames_seen(sam: Sam2VideoModel, frames: int) -> list[int]:
    """The frames of a clip that the language model sees, which are also its conditioning frames: the first ones, or
    for Sa2VA-i frames at equal distances from the first to the last."""
    if not has_tuned_decoder(sam):
        return list(range(min(FRAMES_SEEN, frames)))
    return sorted({place * (frames - 1) // (FRAMES_SEEN - 1) for place in range(FRAMES_SEEN)})


@dataclass(frozen=True)
class TrackedFrame:
    """The masks of all B rows on one frame, and the memory that it left."""

    frame: int
    masks: BestMasks
    memory: Memory


FeaturesOf = Callable[[int], ImageFeatures]
"""A frame's number to its features, one row a clip. Asked once for each frame."""


def track(
    sam: Sam2VideoModel,
    features_of: FeaturesOf,
    frames: int,
    prompts: Tensor,
    clips: Tensor,
    conditioning: Sequence[int] | None = None,
) -> Iterator[TrackedFrame]:
    """Masks on all frames, frame by frame: the conditioning frames first, then the others in their order.

    Args:
        sam: SAM2.
        features_of: Gives the features of frame t of all clips; those of one frame are alive at a time.
        frames: Length of each clip.
        prompts: (B, d), the `[SEG]` embeddings of all clips.
        clips: (B,), the row of `features_of(t)` that each prompt is about.
        conditioning: The frames that the prompts are decoded on; those of `frames_seen` unless given.
    """
    prompted = frames_seen(sam, frames) if conditioning is None else conditioning
    bank = MemoryBank.of(sam, frames)
    for frame in prompted:
        tracked = condition_frame(sam, frame, features_of(frame).rows(clips), prompts)
        bank.conditioning[frame] = tracked.memory
        yield tracked
    for frame in _others(frames, prompted):
        tracked = follow_frame(sam, frame, features_of(frame).rows(clips), bank)
        bank.add(frame, tracked.memory)
        yield tracked


def _others(frames: int, prompted: Collection[int]) -> Iterator[int]:
    return (frame for frame in range(frames) if frame not in prompted)


def condition_frame(sam: Sam2VideoModel, frame: int, features: ImageFeatures, prompts: Tensor) -> TrackedFrame:
    """A conditioning frame's features (B rows) decoded with the prompts (B, d), as a picture is."""
    best = decode_masks(sam, features, prompts)
    remembered = _redrawn(sam, features, best) if has_tuned_decoder(sam) else best
    return TrackedFrame(frame, best, remember(sam, features, remembered, is_cut=cuts_prompted(sam)))


def follow_frame(sam: Sam2VideoModel, frame: int, features: ImageFeatures, bank: MemoryBank) -> TrackedFrame:
    """A later frame's features (B rows) decoded on what the bank remembers, without a prompt."""
    attend = attend_to_memory if torch.is_grad_enabled() else recall
    recalled = attend(sam, frame, features.embedding, bank)
    best = best_masks(decode_unprompted(sam, features, recalled), hides_absent(sam) or has_tuned_decoder(sam))
    return TrackedFrame(frame, best, remember(sam, features, best))


def _redrawn(sam: Sam2VideoModel, features: ImageFeatures, draft: BestMasks) -> BestMasks:
    """The tuned decoder's masks as the original decoder would remember them had they been drawn: cut, and with a
    token of its own. (Sa2VA-i cuts at the clip's size; cutting at SAM2's differs on boundaries alone.)"""
    drawn = (_at_full_size(sam, draft.logits) > 0).float()  # (B, 1, S, S)
    low = interpolate(
        drawn * DRAWN_SCALE + DRAWN_BIAS, draft.logits.shape[-2:], mode="bilinear", align_corners=False, antialias=True
    )
    decoded = decode_mask(sam, features, drawn)
    score = torch.where(drawn.flatten(1).any(dim=1), decoded.object_score[:, 0], ABSENT)
    return BestMasks(low[:, 0].to(draft.logits.dtype), draft.iou, score, decoded.tokens[:, 0])


def remember(sam: Sam2VideoModel, features: ImageFeatures, best: BestMasks, is_cut: bool = False) -> Memory:
    """The memory of a frame's masks, as zeros and ones where they are to be cut. Its map is made from the features
    before they attended to anything."""
    masks = _at_full_size(sam, best.logits)
    flat = features.embedding.flatten(2).permute(2, 0, 1)  # (h * w, B, d)
    encoded, _ = sam._encode_new_memory(flat, masks, best.object_score[:, None], is_mask_from_pts=is_cut)
    return Memory(encoded, _pointers(sam, best))


def _at_full_size(sam: Sam2VideoModel, logits: Tensor) -> Tensor:
    """Mask logits (B, h, w) at the size of the picture that SAM2 sees: (B, 1, S, S)."""
    side = cast(int, sam.image_size)
    return interpolate(logits[:, None], (side, side), mode="bilinear", align_corners=False)


def _pointers(sam: Sam2VideoModel, best: BestMasks) -> Tensor:
    """(B, d). The object score gates the pointer, whether or not the mask."""
    visible = (best.object_score > 0)[:, None]
    return torch.where(visible, sam.object_pointer_proj(best.token), sam.no_object_pointer)


def recall(sam: Sam2VideoModel, frame: int, embedding: Tensor, bank: MemoryBank) -> Tensor:
    """`attend_to_memory` without gradients, where nothing is computed twice."""
    if bank.attention is None:
        bank.attention = MemoryAttention(sam, _frame_positions(sam, embedding), _map_positions(sam, embedding))
    pointers, times = _pointer_tokens(sam, bank, frame, len(embedding))
    return bank.attention(embedding, bank.maps_for(frame), pointers, times)


def attend_to_memory(sam: Sam2VideoModel, frame: int, embedding: Tensor, bank: MemoryBank) -> Tensor:
    """A frame's embedding (B, d, h, w) after attention over the bank's memories, the same shape, by the in-tree
    module."""
    batch, _, height, width = embedding.shape
    maps, (pointers, pointer_times) = bank.maps_for(frame), _pointer_tokens(sam, bank, frame, batch)
    map_places = _map_positions(sam, embedding)  # (h * w, 1, m)
    times = sam.memory_temporal_positional_encoding
    memory = torch.cat([*(kept.to(embedding.dtype) for _, _, kept in maps), pointers.to(embedding.dtype)])
    places = torch.cat(
        [*((map_places + times[row]).expand(-1, batch, -1) for _, row, _ in maps), pointer_times.expand_as(pointers)]
    )
    attended = sam.memory_attention(
        current_vision_features=embedding.flatten(2).permute(2, 0, 1),
        current_vision_position_embeddings=_frame_positions(sam, embedding),
        memory=memory,
        memory_posision_embeddings=places,  # the argument's own spelling
        num_object_pointer_tokens=len(pointers),
    )  # (1, B, h * w, d)
    return attended[0].transpose(1, 2).unflatten(-1, (height, width))


def _pointer_tokens(sam: Sam2VideoModel, bank: MemoryBank, frame: int, batch: int) -> tuple[Tensor, Tensor]:
    """Pointers (B, d) cut to memory's width m: (P * d/m, B, m), and their temporal positions (P * d/m, 1, m), which
    are zero in SAM 2.0."""
    found, parts = bank.pointers_for(frame), sam.no_object_pointer.shape[-1] // sam.mem_dim
    times = sam.no_object_pointer.new_zeros(parts * len(found), 1, sam.mem_dim)
    if not found:
        return times.expand(-1, batch, -1), times
    pointers = torch.stack([pointer for _, pointer in found])
    if sam.config.enable_temporal_pos_encoding_for_object_pointers:
        encoded = _temporal_positions(sam, [ago for ago, _ in found], bank.pointers)  # (P, m)
        times = encoded[:, None].repeat_interleave(parts, dim=0)
    return pointers.unflatten(-1, (-1, sam.mem_dim)).transpose(1, 2).flatten(0, 1), times


def _temporal_positions(sam: Sam2VideoModel, ago: Sequence[int], most: int) -> Tensor:
    """(P, m): sines of how long ago pointers were made, of `most` that there are at most."""
    weight = sam.no_object_pointer
    times = torch.tensor(ago, dtype=torch.float32, device=weight.device) / (most - 1)
    sines = get_1d_sine_pe(times, weight.shape[-1]).to(weight.dtype)
    return sam.temporal_positional_encoding_projection_layer(sines)


def _map_positions(sam: Sam2VideoModel, embedding: Tensor) -> Tensor:
    """(h * w, 1, m): where each place of a memory's map is."""
    return _positions(sam.memory_encoder.position_encoding, sam.mem_dim, embedding)


def _frame_positions(sam: Sam2VideoModel, embedding: Tensor) -> Tensor:
    """(h * w, 1, d): where each place of a frame's embedding is."""
    return _positions(sam.vision_encoder.neck.position_encoding, embedding.shape[1], embedding)


def _positions(encoding: nn.Module, width: int, embedding: Tensor) -> Tensor:
    """Sines of the places of an embedding (B, d, h, w): (h * w, 1, width), computed in float32 as upstream does."""
    shape = torch.Size((1, width, *embedding.shape[-2:]))
    return encoding(shape, embedding.device, torch.float32).to(embedding.dtype).flatten(2).permute(2, 0, 1)
