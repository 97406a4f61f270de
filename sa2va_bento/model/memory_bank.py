"""SAM2's memory bank: what the frames of a clip leave behind, and which of it a later frame looks back to."""

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import Tensor
from transformers import Sam2VideoModel

from sa2va_bento.model.memory_attention import MemoryAttention


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
    attended: int = -1
    """Most conditioning frames that a frame attends to; below zero is all."""
    conditioning: dict[int, Memory] = field(default_factory=dict)
    recent_maps: dict[int, Tensor] = field(default_factory=dict)
    recent_pointers: dict[int, Tensor] = field(default_factory=dict)
    attention: MemoryAttention | None = None
    """Of this clip, with what it has made of the maps."""

    @classmethod
    def of(cls, sam: Sam2VideoModel, frames: int) -> "MemoryBank":
        """For a clip of so many frames."""
        config = sam.config
        return cls(config.num_maskmem, min(frames, config.max_object_pointers_in_encoder), config.max_cond_frame_num)

    def add(self, frame: int, memory: Memory) -> None:
        """Keeps an unprompted frame's memory and forgets what no later frame reads."""
        self.recent_maps[frame], self.recent_pointers[frame] = memory.map, memory.pointer
        self.recent_maps.pop(frame - self.maps + 1, None)
        if self.attention:
            self.attention.forget(frame - self.maps + 1)
        self.recent_pointers.pop(frame - self.pointers + 1, None)

    def maps_for(self, frame: int) -> list[tuple[int, int, Tensor]]:
        """Maps, each with its frame before and its row in the table of temporal positions: the last row for every
        conditioning frame, whether before or after; row `r - 1` for the frame `r` before."""
        nearest = self._nearest(frame)
        others = {seen: memory.map for seen, memory in self.conditioning.items() if seen not in nearest}
        recent = {**self.recent_maps, **others}
        before = [(frame - ago, ago - 1, recent.get(frame - ago)) for ago in range(self.maps - 1, 0, -1)]
        conditioning = [(seen, self.maps - 1, self.conditioning[seen].map) for seen in nearest]
        return [*conditioning, *((seen, row, found) for seen, row, found in before if found is not None)]

    def pointers_for(self, frame: int) -> list[tuple[int, Tensor]]:
        """How many frames ago, and the pointer (B, d): those of conditioning frames up to this one, then of the frames
        before, latest first."""
        nearest = self._nearest(frame)
        others = {seen: memory.pointer for seen, memory in self.conditioning.items() if seen not in nearest}
        recent = {**self.recent_pointers, **others}
        conditioning = [(frame - seen, self.conditioning[seen].pointer) for seen in nearest if seen <= frame]
        before = [(ago, recent.get(frame - ago)) for ago in range(1, self.pointers)]
        return [*conditioning, *((ago, found) for ago, found in before if found is not None)]

    def _nearest(self, frame: int) -> Collection[int]:
        """The conditioning frames that a frame attends to as such: the last before it, the first after it, and of the
        others the nearest. One that is left out counts as any other frame."""
        if not 0 <= self.attended < len(self.conditioning):
            return self.conditioning.keys()
        by_distance = sorted(self.conditioning, key=lambda seen: abs(seen - frame))
        before = [seen for seen in by_distance if seen < frame][:1]
        after = [seen for seen in by_distance if seen >= frame][:1]
        first = [*before, *after]
        return [*first, *(seen for seen in by_distance if seen not in first)][: self.attended]
