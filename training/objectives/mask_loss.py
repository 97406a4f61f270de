"""Losses of SAM2's three mask proposals and of its own estimates."""

import torch
from torch import Tensor
from torch.nn import functional

from sa2va_bento.model.grounding import DecodedMasks, best_masks

BCE_WEIGHT, DICE_WEIGHT, IOU_WEIGHT, SCORE_WEIGHT = 4.0, 1.0, 1.0, 0.1
OTHERS_SHARE = 0.15  # weight of the two proposals that fit worse


def mask_losses(decoded: DecodedMasks, targets: Tensor, present: Tensor, empty: bool = False) -> dict[str, Tensor]:
    """`targets` (P, T, T) of 0 and 1; `present` (P,) bool: prompts of absent objects train the object score alone,
    unless `empty` masks are to be learned too."""
    score = functional.binary_cross_entropy_with_logits(decoded.object_score[:, 0], present.float())
    drawn = torch.ones_like(present) if empty else present
    logits, predicted = decoded.logits[drawn], decoded.iou[drawn]
    logits = functional.interpolate(logits, size=targets.shape[-2:], mode="bilinear", align_corners=False)
    target = targets[drawn][:, None].expand_as(logits)
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((-2, -1))
    dice = _dice(logits.sigmoid(), target)
    fit = BCE_WEIGHT * bce + DICE_WEIGHT * dice  # (P, 3)
    actual = mask_iou(logits.detach() > 0, target > 0.5)
    return {
        "mask": (1 - OTHERS_SHARE) * fit.min(-1).values.mean() + OTHERS_SHARE * fit.mean(),
        "iou_head": IOU_WEIGHT * functional.mse_loss(predicted, actual),
        "score": SCORE_WEIGHT * score,
    }


def _dice(shares: Tensor, target: Tensor) -> Tensor:
    overlap = (shares * target).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (shares.sum((-2, -1)) + target.sum((-2, -1)) + 1)


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of bool masks over the last two dimensions; 1 where both are empty."""
    union = (a | b).sum((-2, -1))
    return torch.where(union > 0, (a & b).sum((-2, -1)) / union.clamp(min=1), 1.0)


def chosen_iou(decoded: DecodedMasks, targets: Tensor) -> Tensor:
    """IoU (P,) of the proposal that serving would choose."""
    logits = best_masks(decoded).logits[:, None]
    logits = functional.interpolate(logits, size=targets.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return mask_iou(logits > 0, targets > 0.5)
