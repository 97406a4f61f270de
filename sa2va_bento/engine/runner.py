"""Computes: the only part of the engine that touches the model and its device."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sa2va_bento.engine.cuda_graphs import DecodeGraphs
from sa2va_bento.engine.feature_cache import FeatureCache
from sa2va_bento.engine.kv_cache import KVCache, causal_mask
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.sampler import SamplingBatch, choose
from sa2va_bento.engine.sequence import MaskLogits, Sequence
from sa2va_bento.engine.tracker import Tracker
from sa2va_bento.engine.tracking import ClipTracking, FramePixels
from sa2va_bento.engine.transfer import from_numpy, on_device, to_numbers
from sa2va_bento.model.base import PromptInputs, Sa2VA, parameter_dtype
from sa2va_bento.model.grounding import ImageFeatures, decode_masks, encode_image
from sa2va_bento.model.loading.device_map import layer_devices
from sa2va_bento.types import EngineStats, Picture

logger = logging.getLogger(__name__)

WINDOW_STEP = 64
"""Attention reads the cache up to the longest running row, rounded up to a multiple of this."""
MASKS_TOGETHER = 32
"""`[SEG]`s in one batch of the mask decoder."""


@dataclass
class _DeviceState:
    """What the device holds of a running sequence."""

    image_tokens: Tensor | None = None
    """(K, W): of its picture and regions, in the order of their places in the prompt."""
    prompt: PromptInputs | None = None
    """While it is read."""
    shift: int = 0
    """From a reply token's place to its position."""
    row: int | None = None
    seg_hidden: list[Tensor] = field(default_factory=list[Tensor])
    """(H,) for each `[SEG]` that was read."""


class Runner:
    """Encodes pictures, prefills prompts, decodes tokens and grounds `[SEG]`s, all in batches."""

    def __init__(
        self,
        model: Sa2VA,
        image_token_id: int,
        limits: Limits,
        feature_cache_bytes: int = 0,
        prefix_cache_bytes: int = 0,
    ) -> None:
        self.model, self.image_token_id, self.limits = model, image_token_id, limits
        self.dtype, self.device = parameter_dtype(model), next(model.parameters()).device
        devices = layer_devices(model)
        self.devices = list(dict.fromkeys((self.device, *devices)))
        self.kv_cache = KVCache(model.config.llm, limits.slots, limits.context, self.dtype, devices)
        self.tile_features: FeatureCache[Tensor] = FeatureCache(feature_cache_bytes // 4)
        self.sam_features: FeatureCache[ImageFeatures] = FeatureCache(feature_cache_bytes - feature_cache_bytes // 4)
        self.prefix_cache: FeatureCache[Tensor] = FeatureCache(prefix_cache_bytes)
        self.graphs = self._make_graphs() if {d.type for d in devices} == {"cuda"} and len(self.devices) == 1 else None
        self._tracker = Tracker(model, self._to_device)
        self._states: dict[Sequence, _DeviceState] = {}
        self._rows: list[Sequence] = []  # the sequence of each row in use; rows in use come first

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
        return [self._copy_prefix(sequence) for sequence in sequences]

    @torch.inference_mode()
    def encode(self, sequences: list[Sequence]) -> None:
        """Makes the image tokens of the sequences' pictures, each distinct picture once."""
        pictures = {s.picture.tiles_key: s.picture for s in sequences if s.picture}
        pinned = _pinned(sequences)
        found = {key: self.tile_features.get(key, pinned.get(key)) for key in pictures}
        fresh = [picture for key, picture in pictures.items() if found[key] is None]
        if fresh:
            pixels = self._to_device(np.concatenate([picture.tiles() for picture in fresh]))
            parts = self.model.encode_pictures(pixels, [picture.grids for picture in fresh])
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
        prompts = [self._prompt(sequence) for sequence in sequences]
        pieces = [slice(s.prefilled, min(s.prefilled + most, len(s.prompt_ids))) for s in sequences]
        hidden = self._read([self._row(sequence) for sequence in sequences], prompts, pieces)
        ends = on_device([piece.stop - piece.start - 1 for piece in pieces], self.device)
        last = hidden[torch.arange(len(pieces), device=self.device), ends]  # (B, H)
        tokens = self._choose(last, sequences)
        for sequence, piece in zip(sequences, pieces, strict=True):
            self._keep_prefix(sequence, piece)
            if sequence.unread <= most:
                self._states[sequence].prompt = None
        return [token if s.unread <= most else None for s, token in zip(sequences, tokens, strict=True)]

    @torch.inference_mode()
    def decode(self, sequences: list[Sequence]) -> list[int]:
        """The next token of each reply. A `[SEG]` that is read leaves its hidden state.

        All rows between the first and the last of the batch are computed; one that is not in the batch writes what
        its own next step will overwrite.
        """
        numbers = [self._row(sequence) for sequence in sequences]
        first = 0 if self.graphs else min(numbers)
        rows = self._rows[first : max(numbers) + 1]
        places = [row.prefilled + max(len(row.output_ids) - 1, 0) for row in rows]
        positions = [place + self._states[row].shift for row, place in zip(rows, places, strict=True)]
        inputs = [row.output_ids[-1] if row.output_ids else 0 for row in rows]
        hidden = self._decode_rows(first, inputs, places, positions)
        if len(numbers) < len(rows) or numbers != sorted(numbers):
            hidden = hidden[on_device([number - first for number in numbers], self.device)]  # (B, H)
        tokens = self._choose(hidden, sequences)
        for sequence, read in zip(sequences, hidden, strict=True):  # last: a step that fails is taken again
            if sequence.output_ids[-1] == sequence.seg_id:
                self._state(sequence).seg_hidden.append(read)
        return tokens

    @torch.inference_mode()
    def ground(self, sequences: list[Sequence]) -> list[tuple[MaskLogits, ...]]:
        """Masks of the `[SEG]`s read since the last time: pictures encoded together, each once; all `[SEG]`s of all
        sequences in shared decoder batches."""
        features = self._sam_features(
            [sequence.picture for sequence in sequences if sequence.picture], _pinned(sequences)
        )
        hidden = [self._states[sequence].seg_hidden for sequence in sequences]
        prompts = self.model.seg_prompts(torch.stack([state for states in hidden for state in states]))
        owners = [number for number, states in enumerate(hidden) for _ in states]
        found = iter(list(self._decode_masks(features, owners, prompts)))
        masks = [tuple(next(found) for _ in states) for states in hidden]
        for states in hidden:
            states.clear()
        return masks

    @torch.inference_mode()
    def take_prompts(self, sequence: Sequence) -> Tensor:
        """The prompt embeddings (N, d) of the `[SEG]`s of a reply about a clip, of whose objects none is grounded."""
        hidden = self._state(sequence).seg_hidden
        width = self.model.config.sam2_shape.d_model
        return self.model.seg_prompts(torch.stack(hidden)) if hidden else torch.zeros(0, width, device=self.device)

    def join_prompts(self, prompts: list[Tensor]) -> Tensor:
        """What `take_prompts` gave for several replies, as the prompts of one clip."""
        return torch.cat(prompts)

    @torch.inference_mode()
    def track(self, clip: ClipTracking, frames: list[FramePixels]) -> list[tuple[MaskLogits, ...]]:
        """The masks of a clip's objects on its next frames."""
        return self._tracker.track(clip, frames)

    def release_clip(self, clip: ClipTracking) -> None:
        """Frees what is held of a clip. Never fails."""
        self._tracker.release(clip)

    def release(self, sequence: Sequence) -> None:
        """Frees a sequence's row; the last row in use moves into its place."""
        state = self._states.pop(sequence, None)
        if state is None or state.row is None:
            return
        last = self._rows.pop()
        if last is not sequence:
            self.kv_cache.move(len(self._rows), state.row, last.prefilled + len(last.output_ids))
            self._rows[state.row] = last
            self._states[last].row = state.row

    def stats(self) -> EngineStats:
        """What is in use now; from any thread, within a step of the truth."""
        rows = list(self._rows)
        caches = {"image_tokens": self.tile_features, "sam2_features": self.sam_features, "prefix": self.prefix_cache}
        return EngineStats(
            kv_tokens=sum(row.prefilled + len(row.output_ids) for row in rows),
            kv_capacity=self.kv_cache.rows * self.kv_cache.context,
            kv_rows=len(rows),
            held=len(self._states) + len(self._tracker),
            has_cuda_graphs=self.graphs is not None,
            caches={name: cache.stats for name, cache in caches.items()},
        )

    def is_device_alive(self) -> bool:
        """Tries a computation on each device. Memory that a failed step left behind is given back first."""
        return all(_computes(device) for device in self.devices)

    def _state(self, sequence: Sequence) -> _DeviceState:
        return self._states.setdefault(sequence, _DeviceState())

    def _row(self, sequence: Sequence) -> int:
        state = self._state(sequence)
        if state.row is None:
            state.row = len(self._rows)
            self._rows.append(sequence)
        return state.row

    def _copy_prefix(self, sequence: Sequence) -> int:
        prefix = sequence.prefix
        if prefix is None or prefix.key not in self.prefix_cache:
            return 0
        kept = self.prefix_cache.get(prefix.key)
        assert kept is not None
        self.kv_cache.copy_in(self._row(sequence), kept)
        return prefix.length

    def _keep_prefix(self, sequence: Sequence, piece: slice) -> None:
        """Keeps the beginning of a prompt for others once its row holds all of it."""
        prefix = sequence.prefix
        if prefix and piece.start < prefix.length <= piece.stop and self.prefix_cache.max_bytes:
            self.prefix_cache.misses += 1
            self.prefix_cache.put(prefix.key, self.kv_cache.copy_out(self._row(sequence), prefix.length))

    def _prompt(self, sequence: Sequence) -> PromptInputs:
        state = self._state(sequence)
        if state.prompt is None:
            ids = torch.tensor(sequence.prompt_ids, device=self.device)
            grids = sequence.picture.grids if sequence.picture else ()
            state.prompt = self.model.read_prompt(ids, state.image_tokens, grids, self.image_token_id)
            state.shift = state.prompt.shift
        return state.prompt

    def _read(self, rows: list[int], prompts: list[PromptInputs], pieces: list[slice]) -> Tensor:
        """Reads a piece of each prompt into its row; hidden states (B, T, H). Shorter pieces are padded at their end:
        nothing before it can see the padding, and what follows overwrites it."""
        parts = [prompt.embeddings[piece] for prompt, piece in zip(prompts, pieces, strict=True)]
        positions = [p.positions[piece] for p, piece in zip(prompts, pieces, strict=True) if p.positions is not None]
        embeddings = pad_sequence(parts, batch_first=True)  # (B, T, W)
        index, starts = on_device([rows, [piece.start for piece in pieces]], self.device)
        places = starts[:, None] + torch.arange(embeddings.shape[1], device=self.device)  # (B, T)
        places = places.clamp(max=self.kv_cache.context - 1)  # of padding alone: no prompt reaches that far
        window = min(max(piece.start for piece in pieces) + embeddings.shape[1], self.kv_cache.context)
        are_new = not any(piece.start for piece in pieces)
        return self.model.language_body(
            embeddings,
            self.kv_cache.prefill_view(index, places, window),
            attention_mask=None if are_new else causal_mask(places, window, self.dtype),  # None: the faster kernel
            position_ids=pad_sequence(positions, batch_first=True) if positions else places,  # (B, T, P) or (B, T)
        )

    def _decode_rows(self, first: int, inputs: list[int], places: list[int], positions: list[int]) -> Tensor:
        """Reads one token in each row from row `first`; hidden states (B, H)."""
        if self.graphs:
            return self.graphs(inputs, places, positions)
        ids, at, positions_at = on_device([inputs, places, positions], self.device)
        window = min(-(-(max(places) + 1) // WINDOW_STEP) * WINDOW_STEP, self.kv_cache.context)
        return self._step(ids, at, positions_at, window, first)

    def _step(self, ids: Tensor, places: Tensor, positions: Tensor, window: int, first: int = 0) -> Tensor:
        """Reads token `ids[i]` (B,) at `places[i]` of row `first + i`; hidden states (B, H)."""
        return self.model.language_body(
            self.model.embed_tokens(ids[:, None]),
            self.kv_cache.decode_view(first, places, window),
            attention_mask=causal_mask(places[:, None], window, self.dtype),
            position_ids=positions[:, None],
        )[:, 0]

    def _choose(self, hidden: Tensor, sequences: list[Sequence]) -> list[int]:
        logits = self.model.language_head(hidden)
        return to_numbers(choose(logits, SamplingBatch.of(sequences, self.device)))  # the one wait for the device

    def _sam_features(self, pictures: list[Picture], pinned: Mapping[str, Any]) -> ImageFeatures:
        """SAM2's features, one row a picture; what is not in the cache is encoded in one batch."""
        distinct = {picture.key: picture for picture in pictures}
        found = {key: self.sam_features.get(key, pinned.get(key)) for key in distinct}
        fresh = [picture for key, picture in distinct.items() if found[key] is None]
        if fresh:
            pixels = self._to_device(np.stack([picture.sam_pixels() for picture in fresh]))
            encoded = encode_image(self.model.grounding_encoder, pixels)
            for row, picture in enumerate(fresh):
                found[picture.key] = features = encoded.picture(row)
                self.sam_features.put(picture.key, features)
        return ImageFeatures.stack([features for p in pictures if (features := found[p.key])])

    def _decode_masks(self, features: ImageFeatures, owners: list[int], prompts: Tensor) -> Iterable[MaskLogits]:
        for start in range(0, len(owners), MASKS_TOGETHER):
            part = slice(start, start + MASKS_TOGETHER)
            rows = features.rows(on_device(owners[part], self.device))
            best = decode_masks(self.model.grounding_encoder, rows, prompts[part])
            scores, visible = to_numbers(best.iou.float()), to_numbers(best.object_score.float().sigmoid())
            yield from map(MaskLogits, best.logits.float().cpu().numpy(), scores, visible)

    def _make_graphs(self) -> DecodeGraphs | None:
        """Captures the decode step for every size, unless it turns out that it can't be captured."""
        graphs = DecodeGraphs(self._step, self.limits.slots, self.limits.context, self.device)
        try:
            with torch.inference_mode():
                graphs.capture_all()
        except RuntimeError as error:
            logger.warning("decoding without CUDA graphs: %s", error)
            return None
        return graphs

    def _to_device(self, array: NDArray[np.float32]) -> Tensor:
        tensor = from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(device=self.device, dtype=self.dtype, non_blocking=True)


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
