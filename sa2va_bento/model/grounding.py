"""From `[SEG]` embeddings to mask logits on an image, on the sub-modules of the in-tree `Sam2VideoModel`.

Its own `forward` can't be used: it takes no external prompt embedding and hides the masks of objects it scores
absent, which most of Sa2VA's checkpoints do not. SAM3's tracker has the same sub-modules. One encoding serves every
`[SEG]` on the image, and the decoder's batch dimension carries the `[SEG]`s, whichever request they come from.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMaskDecoder

from sa2va_bento.model.sam2 import has_tuned_decoder, hides_absent, prompt_decoder

ABSENT = -1024.0
"""Logit of a mask that is hidden since its object is scored absent."""


@dataclass(frozen=True)
class ImageFeatures:
    """SAM2's features of N images: strides 4 and 8 for detail, (N, d/8, S/4, S/4) and (N, d/4, S/8, S/8),
    and the embedding at stride 16, (N, d, S/16, S/16), not yet told that there is no memory.

    Each mask decoder makes the details of its own. Where there is a second decoder, which follows objects, its details
    are `following4` and `following8`.
    """

    stride4: Tensor
    stride8: Tensor
    embedding: Tensor
    following4: Tensor | None = None
    following8: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        maps = (self.stride4, self.stride8, self.embedding, self.following4, self.following8)
        return tuple(tensor for tensor in maps if tensor is not None)

    @classmethod
    def stack(cls, parts: Sequence["ImageFeatures"]) -> "ImageFeatures":
        """The images of several batches in one."""
        return cls(*(torch.cat(maps) for maps in zip(*(part.tensors for part in parts), strict=True)))

    def picture(self, row: int) -> "ImageFeatures":
        """One image's features, a batch of one, in memory of their own."""
        return ImageFeatures(*(maps[row : row + 1].clone() for maps in self.tensors))

    def rows(self, index: Tensor) -> "ImageFeatures":
        """The features of image `index[i]` at row i: what a decoder batch over several `[SEG]`s reads."""
        return ImageFeatures(*(maps[index] for maps in self.tensors))

    @property
    def details(self) -> list[Tensor]:
        """What the decoder that reads prompts reads beside the embedding."""
        return [self.stride4, self.stride8]

    @property
    def following_details(self) -> list[Tensor]:
        """What the decoder that follows objects reads: the same one in most checkpoints."""
        if self.following4 is None or self.following8 is None:
            return self.details
        return [self.following4, self.following8]


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

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return (self.logits, self.iou, self.object_score, self.token)


def encode_image(sam: Sam2VideoModel, pixels: Tensor) -> ImageFeatures:
    """Pixels (N, 3, S, S) to features. The costly part of grounding: once an image, whatever is asked about it."""
    stride4, stride8, embedding = _levels(sam, pixels)
    decoders = [prompt_decoder(sam), sam.mask_decoder] if has_tuned_decoder(sam) else [sam.mask_decoder]
    first, *second = [(decoder.conv_s0(stride4), decoder.conv_s1(stride8)) for decoder in decoders]
    return ImageFeatures(*first, embedding, *(maps for details in second for maps in details))


def _levels(sam: Sam2VideoModel, pixels: Tensor) -> list[Tensor]:
    """By the model's own `pyramid`, where it has one (`model/sam3.py`), or by Hiera and SAM2's neck."""
    own: Callable[[Tensor], list[Tensor]] | None = getattr(sam, "pyramid", None)
    if own:
        return own(pixels)
    encoder = sam.vision_encoder
    return pyramid(encoder.neck, encoder.backbone(pixels).intermediate_hidden_states)


def pyramid(neck: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    """The feature pyramid, (N, d, h, w) at strides 4, 8 and 16, of the backbone's maps (N, h, w, c) at strides 4 to 32:
    the in-tree neck's arithmetic without the position encodings that it makes of each level, at a seventh of the
    encoder's time in a small model, and that nobody reads."""
    found: list[Tensor] = []
    coarser: Tensor | None = None
    for place, conv in zip(reversed(range(len(maps))), cast(Iterable[nn.Conv2d], neck.convs), strict=True):
        level = conv(maps[place].permute(0, 3, 1, 2).to(conv.weight.dtype))
        if coarser is not None and place in cast(Collection[int], neck.fpn_top_down_levels):
            level = level + interpolate(coarser.float(), scale_factor=2.0, mode="nearest").to(level.dtype)
        coarser = level
        found.insert(0, level)
    return found[:3]


def decode_proposals(sam: Sam2VideoModel, features: ImageFeatures, prompts: Tensor) -> DecodedMasks:
    """Three mask proposals for each prompt (B, d) on the features of its image (B rows)."""
    embedding = features.embedding + sam.no_memory_embedding.view(1, -1, 1, 1)
    return _decode(sam, prompt_decoder(sam), features.details, embedding, prompts[:, None, None])


def decode_unprompted(sam: Sam2VideoModel, features: ImageFeatures, embedding: Tensor) -> DecodedMasks:
    """Three mask proposals on an embedding (B, d, S/16, S/16) that has attended to memories, without a prompt; the
    details are those of `features`."""
    no_prompts = embedding.new_zeros(len(embedding), 1, 0, embedding.shape[1])
    return _decode(sam, sam.mask_decoder, features.following_details, embedding, no_prompts)


def decode_mask(sam: Sam2VideoModel, features: ImageFeatures, masks: Tensor) -> DecodedMasks:
    """SAM2's one answer (B, 1, ...) to masks (B, 1, S, S) of zeros and ones, by the decoder that follows objects: its
    token is how that decoder would have said the mask."""
    no_prompts = features.embedding.new_zeros(len(masks), 1, 0, features.embedding.shape[1])
    prompt_masks = sam.mask_downsample(masks.to(features.embedding.dtype))
    return _decode(
        sam, sam.mask_decoder, features.following_details, features.embedding, no_prompts, prompt_masks, proposals=False
    )


def _decode(
    sam: Sam2VideoModel,
    decoder: Sam2VideoMaskDecoder,
    details: list[Tensor],
    embedding: Tensor,
    prompts: Tensor,
    masks: Tensor | None = None,
    proposals: bool = True,
) -> DecodedMasks:
    """The sparse prompt is [not a point, not a point, prompts (B, 1, 0 or 1, d)]: upstream adds the language
    embedding behind an empty point and the padding point that goes with it."""
    batch, dtype = len(embedding), embedding.dtype
    empty_points = torch.zeros(batch, 1, 1, 2, dtype=dtype, device=embedding.device)
    not_points = -torch.ones(batch, 1, 1, dtype=torch.int32, device=embedding.device)
    sparse, dense = sam.prompt_encoder(
        input_points=empty_points, input_labels=not_points, input_boxes=None, input_masks=masks
    )
    positions = sam.get_image_wide_positional_embeddings().to(dtype)
    logits, iou, tokens, object_score = decoder(
        image_embeddings=embedding,
        image_positional_embeddings=positions.expand(batch, -1, -1, -1),
        sparse_prompt_embeddings=torch.cat([sparse.to(dtype), prompts.to(dtype)], dim=2),
        dense_prompt_embeddings=dense,
        multimask_output=proposals,
        high_resolution_features=details,
    )
    return DecodedMasks(logits[:, 0], iou[:, 0], tokens[:, 0], object_score[:, 0])


def best_masks(decoded: DecodedMasks, hides_absent: bool = False) -> BestMasks:
    """Picks each prompt's proposal. Where absent objects are hidden, the object score gates the mask; in most of
    upstream's code it does not."""
    rows = torch.arange(decoded.iou.shape[0], device=decoded.iou.device)
    best = decoded.iou.argmax(dim=-1)
    logits, score = decoded.logits[rows, best], decoded.object_score[:, 0]
    if hides_absent:
        logits = logits.where(score[:, None, None] > 0, ABSENT)
    return BestMasks(logits, decoded.iou[rows, best], score, decoded.tokens[rows, best])


def decode_parts(sam: Sam2VideoModel, features: ImageFeatures, prompts: Tensor, parts: Sequence[int]) -> BestMasks:
    """Some of each object's prompts (B, P, d) on the features of its image (B rows): those of `parts`, each as often as
    it is named, and the mean of their masks. An object counts as visible where it is in all of them."""
    found = {part: decode_masks(sam, features, prompts[:, part]) for part in sorted(set(parts))}
    if len(found) == 1:
        return found[parts[0]]
    weights = {part: parts.count(part) / len(parts) for part in found}
    logits = torch.stack([best.logits * weights[part] for part, best in found.items()]).sum(dim=0)
    iou = torch.stack([best.iou * weights[part] for part, best in found.items()]).sum(dim=0)
    score = torch.stack([best.object_score for best in found.values()]).amin(dim=0)
    return BestMasks(logits, iou, score, found[parts[0]].token)


def decode_masks(sam: Sam2VideoModel, features: ImageFeatures, prompts: Tensor) -> BestMasks:
    """`decode_proposals`, then `best_masks`."""
    return best_masks(decode_proposals(sam, features, prompts), hides_absent(sam))
