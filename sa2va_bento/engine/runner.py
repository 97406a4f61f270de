"""Computes: the only part of the engine that touches the model and its device."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from sa2va_bento.engine.sequence import MaskLogits, PictureInput, Sequence
from sa2va_bento.model.grounding import decode_masks, encode_image
from sa2va_bento.model.internvl import InternVLSa2VA, parameter_dtype


@dataclass(frozen=True)
class TokenIds:
    """Ids that the runner must know, looked up by name in the checkpoint's tokenizer."""

    image_context: int
    seg: int


@dataclass
class _RowState:
    """What the device holds of a running sequence: its cache and the hidden states of its `[SEG]`s, each (1, H)."""

    cache: DynamicCache
    seg_hidden: list[Tensor] = field(default_factory=list)


class Runner:
    """Encodes pictures, prefills prompts, decodes tokens greedily and grounds `[SEG]`s."""

    def __init__(self, model: InternVLSa2VA, tokens: TokenIds) -> None:
        self.model = model
        self.tokens = tokens
        self.dtype = parameter_dtype(model)
        self.device = next(model.parameters()).device
        self._rows: dict[int, _RowState] = {}

    @torch.inference_mode()
    def prefill(self, sequence: Sequence) -> int:
        """Reads the whole prompt and returns the reply's first token."""
        features = self._image_features(sequence.picture) if sequence.picture else None
        ids = torch.tensor([sequence.prompt_ids], device=self.device)
        embeddings = self.model.embed(ids, features, self.tokens.image_context)
        row = self._rows[id(sequence)] = _RowState(DynamicCache(config=self.model.config.llm))
        return int(self.model.language_forward(embeddings, row.cache).logits.argmax(dim=-1))

    @torch.inference_mode()
    def decode(self, sequence: Sequence) -> int:
        """Reads the reply's last token and returns the next. A `[SEG]` that is read leaves its hidden state."""
        row, last = self._rows[id(sequence)], sequence.output_ids[-1]
        embeddings = self.model.embed(torch.tensor([[last]], device=self.device), None, self.tokens.image_context)
        output = self.model.language_forward(embeddings, row.cache)
        if last == self.tokens.seg:
            row.seg_hidden.append(output.hidden[:, -1])
        return int(output.logits.argmax(dim=-1))

    @torch.inference_mode()
    def ground(self, sequence: Sequence) -> tuple[MaskLogits, ...]:
        """One mask for each `[SEG]` that was read, all in one decoder batch on one encoding of the picture. A `[SEG]`
        that ends the reply was never read and has no mask, as upstream."""
        row = self._rows[id(sequence)]
        if not row.seg_hidden or sequence.picture is None:
            return ()
        prompts = self.model.seg_prompts(torch.cat(row.seg_hidden))
        features = encode_image(self.model.grounding_encoder, self._to_device(sequence.picture.sam_pixels[None]))
        first = torch.zeros(len(prompts), dtype=torch.long, device=self.device)
        best = decode_masks(self.model.grounding_encoder, features.rows(first), prompts)
        scores, visible = best.iou.float().tolist(), best.object_score.float().sigmoid().tolist()
        logits = best.logits.float().cpu().numpy()
        return tuple(map(MaskLogits, logits, scores, visible))

    def release(self, sequence: Sequence) -> None:
        """Frees what the device holds of a sequence."""
        self._rows.pop(id(sequence), None)

    def _image_features(self, picture: PictureInput) -> Tensor:
        tiles = self.model.encode_tiles(self._to_device(picture.tiles))  # (N, cells, H)
        last = tiles[-1]
        regions = [last[torch.from_numpy(cells).to(self.device)] for cells in picture.region_cells]
        return torch.cat([tiles.flatten(0, 1), *regions])

    def _to_device(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(device=self.device, dtype=self.dtype)
