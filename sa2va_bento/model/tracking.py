"""From `[SEG]` embeddings to mask logits on every frame of a clip, on the sub-modules of the in-tree `Sam2VideoModel`.

The frames that the language model saw are conditioning frames: each is decoded with the `[SEG]` prompt, as a picture
is. Every other frame is decoded without a prompt, on features that have attended to memories: those of all
conditioning frames, of up to six frames before, and the object pointers of both. A memory is a frame's features fused
with its own mask as probabilities, never cut.

The batch dimension carries objects: B rows, of one clip or of several of one length. Nothing here disables gradients
or picks a device, so that training runs the same functions.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Sam2VideoModel

from sa2va_bento.model.grounding import BestMasks, ImageFeatures, best_masks, decode_proposals, decode_unprompted

FRAMES_SEEN = 5
"""Frames of a clip that upstream shows to the language model: the first ones."""


@dataclass(frozen=True)
class Memory:
    """What a frame leaves to later ones: its map (h * w, B, m) in bfloat16, as upstream keeps it, and the pointer
    (B, d) to each object, which is the mask's own token or, where the object is absent, a learnt one."""

    map: Tensor
    pointer: Tensor


@dataclass
class MemoryBank:
    """The memories that a frame may look back to. Its size is bounded: of unprompted frames, the maps of the last
    `maps - 1` and the pointers of the last `pointers - 1`."""

    maps: int
    pointers: int
    conditioning: dict[int, Memory] = field(default_factory=dict)
    recent_maps: dict[int, Tensor] = field(default_factory=dict)
    recent_pointers: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, sam: Sam2VideoModel, frames: int) -> "MemoryBank":
        """For a clip of so many frames."""
        return cls(sam.config.num_maskmem, min(frames, sam.config.max_object_pointers_in_encoder))

    def add(self, frame: int, memory: Memory) -> None:
        """Keeps an unprompted frame's memory and forgets what no later frame reads."""
        self.recent_maps[frame], self.recent_pointers[frame] = memory.map, memory.pointer
        self.recent_maps.pop(frame - self.maps + 1, None)
        self.recent_pointers.pop(frame - self.pointers + 1, None)

    def maps_for(self, frame: int) -> list[tuple[int, Tensor]]:
        """Maps and their rows in the table of temporal positions: the last row for every conditioning frame, whether
        before or after; row `r - 1` for the frame `r` before."""
        before = [(ago - 1, self.recent_maps.get(frame - ago)) for ago in range(self.maps - 1, 0, -1)]
        conditioning = [(self.maps - 1, memory.map) for memory in self.conditioning.values()]
        return [*conditioning, *((row, found) for row, found in before if found is not None)]

    def pointers_for(self, frame: int) -> list[Tensor]:
        """Pointers (B, d): those of conditioning frames up to this one, then of the frames before, latest first."""
        conditioning = [memory.pointer for seen, memory in self.conditioning.items() if seen <= frame]
        before = [self.recent_pointers.get(frame - ago) for ago in range(1, self.pointers)]
        return [*conditioning, *(found for found in before if found is not None)]


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
        conditioning: The frames that the prompts are decoded on; the first `FRAMES_SEEN` unless given.
    """
    prompted = list(range(min(FRAMES_SEEN, frames))) if conditioning is None else list(conditioning)
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
    best = best_masks(decode_proposals(sam, features, prompts))
    return TrackedFrame(frame, best, remember(sam, features, best))


def follow_frame(sam: Sam2VideoModel, frame: int, features: ImageFeatures, bank: MemoryBank) -> TrackedFrame:
    """A later frame's features (B rows) decoded on what the bank remembers, without a prompt."""
    recalled = attend_to_memory(sam, frame, features.embedding, bank)
    best = best_masks(decode_unprompted(sam, features, recalled))
    return TrackedFrame(frame, best, remember(sam, features, best))


def remember(sam: Sam2VideoModel, features: ImageFeatures, best: BestMasks) -> Memory:
    """The memory of a frame's masks. Its map is made from the features before they attended to anything."""
    size = [4 * side for side in best.logits.shape[-2:]]  # the picture's, as SAM2 sees it
    masks = interpolate(best.logits[:, None], size, mode="bilinear", align_corners=False)
    flat = features.embedding.flatten(2).permute(2, 0, 1)  # (h * w, B, d)
    encoded, _ = sam._encode_new_memory(flat, masks, best.object_score[:, None], is_mask_from_pts=False)
    return Memory(encoded, _pointers(sam, best))


def _pointers(sam: Sam2VideoModel, best: BestMasks) -> Tensor:
    """(B, d). The object score gates the pointer, though not the mask."""
    visible = (best.object_score > 0)[:, None]
    return torch.where(visible, sam.object_pointer_proj(best.token), sam.no_object_pointer)


def attend_to_memory(sam: Sam2VideoModel, frame: int, embedding: Tensor, bank: MemoryBank) -> Tensor:
    """A frame's embedding (B, d, h, w) after attention over the bank's memories, the same shape."""
    batch, _, height, width = embedding.shape
    maps, pointers = bank.maps_for(frame), _pointer_tokens(sam, bank.pointers_for(frame), batch)
    map_places = _map_positions(sam, embedding)  # (h * w, 1, m)
    times = sam.memory_temporal_positional_encoding
    memory = torch.cat([*(kept.to(embedding.dtype) for _, kept in maps), pointers.to(embedding.dtype)])
    places = torch.cat(
        [*((map_places + times[row]).expand(-1, batch, -1) for row, _ in maps), torch.zeros_like(pointers)]
    )
    attended = sam.memory_attention(
        current_vision_features=embedding.flatten(2).permute(2, 0, 1),
        current_vision_position_embeddings=_frame_positions(sam, embedding),
        memory=memory,
        memory_posision_embeddings=places,  # the argument's own spelling
        num_object_pointer_tokens=len(pointers),
    )  # (1, B, h * w, d)
    return attended[0].transpose(1, 2).unflatten(-1, (height, width))


def _pointer_tokens(sam: Sam2VideoModel, pointers: Sequence[Tensor], batch: int) -> Tensor:
    """Pointers (B, d) cut to memory's width m: (P * d/m, B, m). They have no temporal position in SAM 2.0."""
    if not pointers:
        return sam.no_object_pointer.new_zeros(0, batch, sam.mem_dim)
    return torch.stack(list(pointers)).unflatten(-1, (-1, sam.mem_dim)).transpose(1, 2).flatten(0, 1)


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
