"""SAM2's memory of the clips that are tracked, and the frames' way through it: the device's part of tracking."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sa2va_bento.engine.sequence import MaskLogits
from sa2va_bento.engine.tracking import ClipTracking, FramePixels
from sa2va_bento.engine.transfer import on_device, to_host, to_numbers
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.grounding import BestMasks, ImageFeatures, decode_parts, encode_image
from sa2va_bento.model.sam2 import cuts_prompted
from sa2va_bento.model.tracking import MemoryBank, condition_frame, follow_frame, remember


class Tracker:
    """Follows the objects of clips, frame by frame. Each frame is encoded once for all objects, which are a batch."""

    def __init__(self, model: Sa2VA, to_device: Callable[[list[NDArray[np.float32]]], Tensor]) -> None:
        self._sam, self._to_device = model.grounding_encoder, to_device
        self._banks: dict[ClipTracking, MemoryBank] = {}

    def __len__(self) -> int:
        return len(self._banks)

    def track(self, clip: ClipTracking, frames: list[FramePixels]) -> list[tuple[MaskLogits, ...]]:
        """The masks of all objects on each of the frames, in the order in which they were fed."""
        features = encode_image(self._sam, self._to_device([frame.pixels[None] for frame in frames]))
        return [self._frame(clip, frame.index, features, row) for row, frame in enumerate(frames)]

    def release(self, clip: ClipTracking) -> None:
        """Forgets a clip. Never fails."""
        self._banks.pop(clip, None)

    def _frame(self, clip: ClipTracking, index: int, features: ImageFeatures, row: int) -> tuple[MaskLogits, ...]:
        bank = self._banks.setdefault(clip, MemoryBank.of(self._sam, clip.length))
        objects = on_device([row] * len(clip.prompts), features.embedding.device)
        return _to_host(self._track(clip, index, features.rows(objects), bank))

    def _track(self, clip: ClipTracking, index: int, features: ImageFeatures, bank: MemoryBank) -> BestMasks:
        if clip.parts and (parts := clip.parts(index)):
            return self._decode(clip, index, features, bank, parts)
        if index in clip.conditioning:
            tracked = condition_frame(self._sam, index, features, clip.prompts)
            bank.conditioning[index] = tracked.memory
        else:
            tracked = follow_frame(self._sam, index, features, bank)
            bank.add(index, tracked.memory)
        return tracked.masks

    def _decode(
        self, clip: ClipTracking, index: int, features: ImageFeatures, bank: MemoryBank, parts: tuple[int, ...]
    ) -> BestMasks:
        """A frame that has prompts of its own. Nothing is kept of it that no other frame asks for."""
        masks = decode_parts(self._sam, features, clip.prompts, parts)
        if clip.leaves_memory:
            bank.conditioning[index] = remember(self._sam, features, masks, is_cut=cuts_prompted(self._sam))
        return masks


def _to_host(best: BestMasks) -> tuple[MaskLogits, ...]:
    """One an object."""
    logits = to_host(best.logits.float())
    scores, visible = to_numbers(best.iou.float()), to_numbers(best.object_score.float().sigmoid())
    return tuple(MaskLogits(low.copy(), score, seen) for low, score, seen in zip(logits, scores, visible, strict=True))
