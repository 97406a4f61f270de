"""From `[SEG]` embeddings to mask logits on an image, on the sub-modules of the in-tree `Sam2VideoModel`.

Its own `forward` can't be used: it takes no external prompt embedding and hides the masks of objects it scores
absent, which Sa2VA does not. One encoding serves every `[SEG]` on the image, and the decoder's batch dimension
carries the `[SEG]`s, whichever request they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoVisionEncoderOutput


@dataclass(frozen=True)
class ImageFeatures:
    """SAM2's features of N images: strides 4 and 8 for detail, (N, d/8, S/4, S/4) and (N, d/4, S/8, S/8),
    and the embedding at stride 16, (N, d, S/16, S/16), not yet told that there is no memory."""

    stride4: Tensor
    stride8: Tensor
    embedding: Tensor

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.stride4, self.stride8, self.embedding

    @classmethod
    def stack(cls, parts: Sequence["ImageFeatures"]) -> "ImageFeatures":
        """The images of several batches in one."""
        return cls(*(torch.cat(maps) for maps in zip(*(part.tensors for part in parts), strict=True)))

    def picture(self, row: int) -> "ImageFeatures":
        """One image's features, a batch of one, in memory of their own."""
        return ImageFeatures(*(maps[row : row + 1].clone() for maps in self.tensors))

    def rows(self, index: Tensor) -> "ImageFeatures":
        """The features of image `index[i]` at row i: what a decoder batch over several `[SEG]`s reads."""
        return ImageFeatures(self.stride4[index], self.stride8[index], self.embedding[index])


@dataclass(frozen=True)
class DecodedMasks:
    """SAM2's three proposals for B prompts: logits (B, 3, S/4, S/4), predicted IoU (B, 3), mask tokens (B, 3, d),
    and the object score logit (B, 1)."""

    logits: Tensor
    iou: Tensor
    tokens: Tensor
    object_score: Tensor


@dataclass(frozen=True)
class BestMasks:
    """The proposal with the highest predicted IoU: logits (B, S/4, S/4), iou (B,), object_score logit (B,), and the
    mask's token (B, d)."""

    logits: Tensor
    iou: Tensor
    object_score: Tensor
    token: Tensor


def encode_image(sam: Sam2VideoModel, pixels: Tensor) -> ImageFeatures:
    """Pixels (N, 3, S, S) to features. The costly part of grounding: once an image, whatever is asked about it."""
    output = cast(Sam2VideoVisionEncoderOutput, sam.get_image_features(pixels))
    levels = cast(Sequence[Tensor], output.fpn_hidden_states)  # each (h * w, N, C), finest first
    maps = [
        flat.permute(1, 2, 0).unflatten(-1, tuple(size))
        for flat, size in zip(levels, sam.backbone_feature_sizes, strict=True)
    ]
    return ImageFeatures(*maps)


def decode_proposals(sam: Sam2VideoModel, features: ImageFeatures, prompts: Tensor) -> DecodedMasks:
    """Three mask proposals for each prompt (B, d) on the features of its image (B rows)."""
    embedding = features.embedding + sam.no_memory_embedding.view(1, -1, 1, 1)
    return _decode(sam, features, embedding, prompts[:, None, None])


def decode_unprompted(sam: Sam2VideoModel, features: ImageFeatures, embedding: Tensor) -> DecodedMasks:
    """Three mask proposals on an embedding (B, d, S/16, S/16) that has attended to memories, without a prompt; the
    details are those of `features`."""
    return _decode(sam, features, embedding, embedding.new_zeros(len(embedding), 1, 0, embedding.shape[1]))


def _decode(sam: Sam2VideoModel, features: ImageFeatures, embedding: Tensor, prompts: Tensor) -> DecodedMasks:
    """The sparse prompt is [not a point, not a point, prompts (B, 1, 0 or 1, d)]: upstream adds the language
    embedding behind an empty point and the padding point that goes with it."""
    batch, dtype = len(embedding), embedding.dtype
    empty_points = torch.zeros(batch, 1, 1, 2, dtype=dtype, device=embedding.device)
    not_points = -torch.ones(batch, 1, 1, dtype=torch.int32, device=embedding.device)
    sparse, dense = sam.prompt_encoder(
        input_points=empty_points, input_labels=not_points, input_boxes=None, input_masks=None
    )
    positions = sam.get_image_wide_positional_embeddings().to(dtype)
    logits, iou, tokens, object_score = sam.mask_decoder(
        image_embeddings=embedding,
        image_positional_embeddings=positions.expand(batch, -1, -1, -1),
        sparse_prompt_embeddings=torch.cat([sparse.to(dtype), prompts.to(dtype)], dim=2),
        dense_prompt_embeddings=dense,
        multimask_output=True,
        high_resolution_features=[features.stride4, features.stride8],
    )
    return DecodedMasks(logits[:, 0], iou[:, 0], tokens[:, 0], object_score[:, 0])


def best_masks(decoded: DecodedMasks) -> BestMasks:
    """Picks each prompt's proposal. The object score does not gate the mask (upstream's is commented out too)."""
    rows = torch.arange(decoded.iou.shape[0], device=decoded.iou.device)
    best = decoded.iou.argmax(dim=-1)
    return BestMasks(
        decoded.logits[rows, best], decoded.iou[rows, best], decoded.object_score[:, 0], decoded.tokens[rows, best]
    )


def decode_masks(sam: Sam2VideoModel, features: ImageFeatures, prompts: Tensor) -> BestMasks:
    """`decode_proposals`, then `best_masks`."""
    return best_masks(decode_proposals(sam, features, prompts))
