"""Auxiliary loss of the projector: a throw-away head on its image tokens, for the language model to hear what
InternViT sees.

A token is the sum of what stands along its directions, and a small language model learns late, or never, what is only
whispered there: after 4,000 steps one had learned colours and shapes, and not one place. This head reads each token
along directions of length one, so what it is to find must be said loud: of each of the token's four patches the colour,
the class, the rank from the left and the counts, of the token's object place and size, and whether the middle of one
lies here: one voice for each object, for who has to count them. And what a
token is of it says in the language model's own words: it is to lie near the embeddings of " red" and " circle", or of
"A", so that a question's words find it and an answer can repeat it.
"""

import math

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from sa2va_bento.model.internvl.model import pixel_shuffle
from training.data.picture_shards import CLASSES
from training.data.shapes import COLORS
from training.model_config import CELLS, LLM_WIDTH
from training.objectives.dense import MOST, ORDERS, DenseTargets, order_loss, patch_weight

PATCH_FIELDS = (len(COLORS) + 1, len(CLASSES) + 1, *(MOST,) * ORDERS)
PLACE_FIELDS = 8
PLACE_WEIGHT, CENTER_WEIGHT, CENTER_POSITIVE_WEIGHT = 10.0, 1.0, 4.0
SHARPNESS = 3.0  # of the logits: a token of length sqrt(H) has some forty things to say


class TokenHead(nn.Module):
    """Image tokens (B, 64, H) to losses."""

    def __init__(self, tokenizer: Tokenizer, width: int = LLM_WIDTH) -> None:
        super().__init__()
        self._colors = [_id_of(f" {color}", tokenizer) for color in COLORS]
        self._classes = [_id_of(name if len(name) == 1 else f" {name}", tokenizer) for name in CLASSES]
        self.directions = nn.Parameter(torch.randn(width, 4 * sum(PATCH_FIELDS) + PLACE_FIELDS + 1))

    def losses(self, tokens: Tensor, targets: DenseTargets, embeddings: Tensor) -> dict[str, Tensor]:
        """`tokens_named`: cross-entropies of what each patch is of; `tokens_placed`: squared error of where it is;
        `tokens_centered`: cross-entropy of whether an object's middle lies there;
        `tokens_worded`: cross-entropies of the words (`embeddings` (V, H)) for it."""
        loud = functional.rms_norm(tokens, tokens.shape[-1:])
        heard = loud @ functional.normalize(self.directions, dim=0)
        patches, places, center = heard.split((4 * sum(PATCH_FIELDS), PLACE_FIELDS, 1), dim=-1)
        return {
            "tokens_named": _naming(SHARPNESS * _unshuffled(patches), targets),
            "tokens_placed": PLACE_WEIGHT * _placing(places, targets),
            "tokens_centered": CENTER_WEIGHT * _centering(SHARPNESS * center[..., 0], targets),
            "tokens_worded": _wording(loud, targets.color, embeddings[self._colors])
            + _wording(loud, targets.shape, embeddings[self._classes]),
        }


def _id_of(word: str, tokenizer: Tokenizer) -> int:
    """The one token of a word."""
    (found,) = tokenizer.encode(word, add_special_tokens=False).ids
    return found


def _wording(loud: Tensor, said: Tensor, words: Tensor) -> Tensor:
    """Cross-entropy of W words (W, H) at tokens (B, 64, H) any of whose patches has one; `said` (B, 256), W where a
    patch has none. Tokens whose patches differ share."""
    shares = (
        functional.one_hot(_shuffled(said[..., None])[..., 0], len(words) + 1)[..., :-1].float().mean(2)
    )  # (B, 64, W)
    known = shares.sum(-1) > 0
    if not known.any():
        return loud.new_zeros(())
    logits = SHARPNESS * loud[known] @ functional.normalize(words.detach(), dim=-1).T
    return functional.cross_entropy(logits, shares[known] / shares[known].sum(-1, keepdim=True))


def _unshuffled(patches: Tensor) -> Tensor:
    """Tokens (B, 64, 4 F) to patches (B, 256, F): the pixel shuffle undone."""
    grid = patches.unflatten(-1, (2, 2, -1)).unflatten(1, (CELLS, CELLS))  # (B, 8, 8, 2, 2, F)
    return grid.transpose(2, 3).flatten(1, 4)


def _shuffled(patches: Tensor) -> Tensor:
    """Patches (B, 256, F) to the four of each token (B, 64, 4, F)."""
    return pixel_shuffle(patches, CELLS).unflatten(-1, (4, -1))


def _naming(patches: Tensor, targets: DenseTargets) -> Tensor:
    color, shape, *orders = patches.split(PATCH_FIELDS, dim=-1)
    weight = patch_weight(targets.is_object.float())
    weight = weight / weight.sum()
    return (
        (functional.cross_entropy(color.transpose(1, 2), targets.color, reduction="none") * weight).sum()
        + (functional.cross_entropy(shape.transpose(1, 2), targets.shape, reduction="none") * weight).sum()
        + order_loss(orders, targets, weight)
    )


def _placing(places: Tensor, targets: DenseTargets) -> Tensor:
    """Over tokens (B, 64, P) any of whose patches lies on an object; such a patch's object counts."""
    boxes, is_object = _shuffled(targets.box), _shuffled(targets.is_object[..., None])[..., 0]
    found = is_object.any(-1)
    first = is_object.int().argmax(-1)[..., None, None].expand(-1, -1, 1, boxes.shape[-1])
    box = boxes.gather(2, first)[:, :, 0][found]
    return functional.mse_loss(places[found], place_and_size(box[:, :2], box[:, 2:]))


def _centering(logits: Tensor, targets: DenseTargets) -> Tensor:
    has_center = _shuffled(targets.center[..., None])[..., 0].amax(-1)  # (B, 64)
    weight = torch.tensor(CENTER_POSITIVE_WEIGHT)
    return functional.binary_cross_entropy_with_logits(logits, has_center, pos_weight=weight)


def place_and_size(center: Tensor, size: Tensor) -> Tensor:
    """Centres and sizes (P, 2), in shares of the picture, as numbers around one (P, `PLACE_FIELDS`)."""
    around = 2 * math.pi * (center - 0.5)
    return torch.cat([4 * (center - 0.5), around.sin(), around.cos(), 8 * size - 2], -1)
