"""Computes: the only part of the engine that touches the model and its device."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sa2va_bento.engine.cuda_graphs import DecodeGraphs
from sa2va_bento.engine.feature_cache import FeatureCache
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.language import DeviceState, LanguageRunner, Reading
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.sampler import SamplingBatch, choose
from sa2va_bento.engine.sequence import MaskLogits, Sequence
from sa2va_bento.engine.tracker import Tracker
from sa2va_bento.engine.tracking import ClipTracking, FramePixels
from sa2va_bento.engine.transfer import batch_on_device, from_numpy, on_device, to_host, to_numbers
from sa2va_bento.engine.vision import VisionRunner
from sa2va_bento.model.adapters import NO_ADAPTERS, Adapters, Part
from sa2va_bento.model.base import Sa2VA, parameter_dtype
from sa2va_bento.model.grounding import ImageFeatures
from sa2va_bento.types import EngineStats, Picture


class Runner:
    """Encodes pictures, prefills prompts, decodes tokens and grounds `[SEG]`s, all in batches."""

    def __init__(
        self,
        model: Sa2VA,
        image_token_id: int,
        limits: Limits,
        feature_cache_bytes: int = 0,
        prefix_cache_bytes: int = 0,
        reading: Reading | None = None,
        adapters: Adapters = NO_ADAPTERS,
    ) -> None:
        """`reading` is how attention reads the cache; None leaves that to the device."""
        self.adapters = adapters
        self.model, self.image_token_id, self.limits = model, image_token_id, limits
        self.dtype, self.device = parameter_dtype(model), next(model.parameters()).device
        self._states: dict[Sequence, DeviceState] = {}
        self.language = LanguageRunner(
            model, image_token_id, limits, prefix_cache_bytes, self._states, reading, adapters
        )
        self.prefix_cache = self.language.prefixes
        self.vision = VisionRunner(model, self.language.can_capture)
        self._adapted_vision = VisionRunner(model, False)  # graphs read the model's own weights
        self.tile_features: FeatureCache[Tensor] = FeatureCache(feature_cache_bytes // 4)
        self.sam_features: FeatureCache[ImageFeatures] = FeatureCache(feature_cache_bytes - feature_cache_bytes // 4)
        self._tracker = Tracker(model, self._to_device)

    @property
    def devices(self) -> list[torch.device]:
        return self.language.devices

    @property
    def kv_cache(self) -> KVCache:
        return self.language.cache

    @property
    def graphs(self) -> DecodeGraphs | None:
        """The decode step's CUDA graphs, where there are any."""
        return self.language.graphs

    def pin(self, picture: Picture | None) -> dict[str, Any]:
        """What the caches have of a picture, for a sequence that begins; from any thread."""
        if picture is None:
            return {}
        found = {
            picture.tiles_key: self.tile_features.peek(picture.tiles_key),
            picture.key: self.sam_features.peek(picture.key),
        }
        return {key: features for key, features in found.items() if features is not None}

    @torch.inference_mode()
    def load_prefixes(self, sequences: list[Sequence]) -> list[int]:
        """Copies the keys and values of prefix cache hits; how many tokens of each prompt they stand for."""
        return [self.language.load_prefix(sequence) for sequence in sequences]

    @torch.inference_mode()
    def encode(self, sequences: list[Sequence]) -> None:
        """Makes the image tokens of the sequences' pictures, each distinct picture once."""
        for name, some in self._groups(Part.VISION, sequences):
            with self.adapters.applied(name):
                self._encode(some, self._vision_of(name))

    def _encode(self, sequences: list[Sequence], vision: VisionRunner) -> None:
        pictures = {s.picture.tiles_key: s.picture for s in sequences if s.picture}
        pinned = _pinned(sequences)
        found = {key: self.tile_features.get(key, pinned.get(key)) for key in pictures}
        fresh = [picture for key, picture in pictures.items() if found[key] is None]
        if fresh:
            pixels = self._to_device([picture.tiles() for picture in fresh])
            parts = vision.encode_pictures(pixels, [picture.grids for picture in fresh])
            for picture, part in zip(fresh, parts, strict=True):  # (N, cells, W)
                found[picture.tiles_key] = tiles = part if len(parts) == 1 else part.clone()  # memory of its own
                if not picture.is_clip:
                    self.tile_features.put(picture.tiles_key, tiles)
        for sequence in sequences:
            if sequence.picture:
                self._state(sequence).image_tokens = _with_regions(found[sequence.picture.tiles_key], sequence.picture)
                sequence.picture.tiles.let_go()

    @torch.inference_mode()
    def prefill(self, sequences: list[Sequence], most: int) -> list[int | None]:
        """Chunked prefill: reads the next (up to `most`) tokens of each prompt, wherever each of them is. Gives the
        reply's first token where the prompt is read to its end."""
        ends = [sequence.unread <= most for sequence in sequences]
        tokens = self._choose(self.language.prefill(sequences, most), sequences)
        return [token if is_end else None for token, is_end in zip(tokens, ends, strict=True)]

    @torch.inference_mode()
    def decode(self, sequences: list[Sequence]) -> list[int]:
        """The next token of each reply. A `[SEG]` that is read leaves its hidden state."""
        hidden = self.language.decode(sequences)
        tokens = self._choose(hidden, sequences)
        for sequence, read in zip(sequences, hidden, strict=True):  # last: a step that fails is taken again
            if sequence.output_ids[-1] == sequence.seg_id:
                self._state(sequence).seg_hidden.append(read)
        return tokens

    @torch.inference_mode()
    def ground(self, sequences: list[Sequence]) -> list[tuple[MaskLogits, ...]]:
        """Masks of the `[SEG]`s read since the last time: pictures encoded together, each once; all `[SEG]`s of all
        sequences in shared decoder batches."""
        found: dict[Sequence, tuple[MaskLogits, ...]] = {}
        for name, some in self._groups(Part.GROUNDING, sequences):
            with self.adapters.applied(name):
                found.update(zip(some, self._ground(some, self._vision_of(name)), strict=True))
        for sequence in sequences:
            self._states[sequence].seg_hidden.clear()
        return [found[sequence] for sequence in sequences]

    def _ground(self, sequences: list[Sequence], vision: VisionRunner) -> list[tuple[MaskLogits, ...]]:
        pictures = [sequence.picture for sequence in sequences if sequence.picture]
        features = self._sam_features(pictures, _pinned(sequences), vision)
        hidden = [self._states[sequence].seg_hidden for sequence in sequences]
        prompts = self.model.seg_prompts(torch.stack([state for states in hidden for state in states]))
        owners = [number for number, states in enumerate(hidden) for _ in states]
        found = iter(list(self._decode_masks(features, owners, prompts, vision)))
        return [tuple(next(found) for _ in states) for states in hidden]

    @torch.inference_mode()
    def take_prompts(self, sequence: Sequence) -> Tensor:
        """What the objects of a reply about a clip are followed by, (N, d) or (N, P, d); none of them is grounded."""
        hidden = self._state(sequence).seg_hidden
        width = self.model.config.sam2_shape.d_model
        none = torch.zeros(0, width, device=self.device)
        with self.adapters.applied(self.adapters.owner(Part.GROUNDING, sequence.adapter)):
            return self.model.clip_prompts(self.model.seg_prompts(torch.stack(hidden)) if hidden else none)

    def join_prompts(self, prompts: list[Tensor]) -> Tensor:
        """What `take_prompts` gave for several replies, as the prompts of one clip."""
        return torch.cat(prompts)

    @torch.inference_mode()
    def track(self, clip: ClipTracking, frames: list[FramePixels]) -> list[tuple[MaskLogits, ...]]:
        """The masks of a clip's objects on its next frames."""
        with self.adapters.applied(self.adapters.owner(Part.GROUNDING, clip.adapter)):
            return self._tracker.track(clip, frames)

    def release_clip(self, clip: ClipTracking) -> None:
        """Frees what is held of a clip. Never fails."""
        self._tracker.release(clip)

    def reserve(self, sequence: Sequence, tokens: int) -> bool:
        """Sees to it that so many tokens of a sequence have room in the KV cache; False where there is none."""
        self._state(sequence)
        return self.language.rows.reserve(sequence, tokens)

    def preempt(self, sequence: Sequence) -> bool:
        """Takes a sequence's row from it. Whether it can be read again without its picture being encoded again."""
        return self.language.take_row(sequence)

    def release(self, sequence: Sequence) -> None:
        """Frees what is held of a sequence."""
        self._states.pop(sequence, None)
        self.language.rows.free(sequence)

    def stats(self) -> EngineStats:
        """What is in use now; from any thread, within a step of the truth."""
        rows = self.language.rows
        caches = {"image_tokens": self.tile_features, "sam2_features": self.sam_features, "prefix": self.prefix_cache}
        return EngineStats(
            kv_tokens=sum(sequence.prefilled + len(sequence.output_ids) for sequence in rows.sequences),
            kv_capacity=self.kv_cache.tokens,
            kv_rows=len(rows),
            held=len(self._states) + len(self._tracker),
            has_cuda_graphs=self.graphs is not None,
            caches={name: cache.stats for name, cache in caches.items()},
        )

    def is_device_alive(self) -> bool:
        """Tries a computation on each device. Memory that a failed step left behind is given back first."""
        return all(_computes(device) for device in self.devices)

    def _state(self, sequence: Sequence) -> DeviceState:
        return self._states.setdefault(sequence, DeviceState())

    def _choose(self, hidden: Tensor, sequences: list[Sequence]) -> list[int]:
        logits = self._logits(hidden, sequences)
        return to_numbers(choose(logits, SamplingBatch.of(sequences, self.device)))  # the one wait for the device

    def _logits(self, hidden: Tensor, sequences: list[Sequence]) -> Tensor:
        """(B, V), of each sequence by the head of its adapter."""
        groups = self._groups(Part.WORDS, sequences)
        if len(groups) == 1 and groups[0][0] is None:
            return self.model.language_head(hidden)
        places = {sequence: place for place, sequence in enumerate(sequences)}
        logits: Tensor | None = None
        for name, some in groups:
            index = on_device([places[sequence] for sequence in some], hidden.device)
            with self.adapters.applied(name):
                own = self.model.language_head(hidden[index])
            logits = own.new_zeros(len(hidden), own.shape[-1]) if logits is None else logits
            logits[index] = own
        assert logits is not None
        return logits

    def _groups(self, part: Part, sequences: list[Sequence]) -> list[tuple[str | None, list[Sequence]]]:
        """Sequences that are computed with the same weights of a part."""
        return list(self.adapters.groups(part, sequences, lambda sequence: sequence.adapter).items())

    def _vision_of(self, name: str | None) -> VisionRunner:
        return self._adapted_vision if name else self.vision

    def _sam_features(self, pictures: list[Picture], pinned: Mapping[str, Any], vision: VisionRunner) -> ImageFeatures:
        """SAM2's features, one row a picture; what is not in the cache is encoded in one batch."""
        distinct = {picture.key: picture for picture in pictures}
        found = {key: self.sam_features.get(key, pinned.get(key)) for key in distinct}
        fresh = [picture for key, picture in distinct.items() if found[key] is None]
        if fresh:
            pixels = self._to_device([picture.sam_pixels()[None] for picture in fresh])
            encoded = vision.encode_image(pixels)
            for row, picture in enumerate(fresh):
                found[picture.key] = features = encoded.picture(row)
                self.sam_features.put(picture.key, features)
        return ImageFeatures.stack([features for p in pictures if (features := found[p.key])])

    def _decode_masks(
        self, features: ImageFeatures, owners: list[int], prompts: Tensor, vision: VisionRunner
    ) -> Iterable[MaskLogits]:
        for start in range(0, len(owners), self.limits.max_masks):
            part = slice(start, start + self.limits.max_masks)
            rows = features.rows(on_device(owners[part], self.device))
            best = vision.decode_masks(rows, prompts[part])
            scores, visible = to_numbers(best.iou.float()), to_numbers(best.object_score.float().sigmoid())
            yield from map(MaskLogits, to_host(best.logits.float()), scores, visible)

    def _to_device(self, arrays: list[NDArray[np.float32]]) -> Tensor:
        return batch_on_device(arrays, self.device, self.dtype)


def _pinned(sequences: list[Sequence]) -> dict[str, Any]:
    return {key: features for sequence in sequences for key, features in sequence.pinned.items()}


def _computes(device: torch.device) -> bool:
    try:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        return bool(torch.ones(1, device=device).sum().item())
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False


def _with_regions(tiles: Tensor | None, picture: Picture) -> Tensor:
    """Image tokens (K, W): those of all tiles (N, cells, W), then each region's cells of the last tile."""
    assert tiles is not None
    regions = [tiles[-1][from_numpy(cells).to(tiles.device)] for cells in picture.region_cells]
    return torch.cat([tiles.flatten(0, 1), *regions])
