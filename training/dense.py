"""Dense supervision of an encoder: what is at each patch of a 16 x 16 grid, and where the objects' centres are.

A throw-away linear head on the encoder's patches. Object patches outweigh background, and the patch that holds an
object's centre counts most: it is the one from which a reader of the features can name and count objects.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.scenes import COLORS, SHAPES

GRID = 16
RAYS, RAY_STEP = 16, 2  # directions, and pixels of the label map between two looks along a ray
FIELDS = (len(COLORS) + 1, len(SHAPES) + 1, 1, 4, 64, RAYS)
BACKGROUND_WEIGHT, CENTER_WEIGHT = 0.15, 4.0
CENTER_POSITIVE_WEIGHT = 8.0


@dataclass(frozen=True)
class DenseTargets:
    """What each of the 256 patches of B pictures should say.

    `color` (B, 256), 6 for background; `shape` (B, 256), 4 for background; `center` (B, 256), 1 where an object's
    centre lies; `box` (B, 256, 4), its object's centre relative to the patch and its size, in shares of the picture;
    `fill` (B, 256, 64), 1 where an 8 x 8 point of the patch lies on an object: the outline, from which shape follows;
    `rays` (B, 256, 16), how far the object reaches from the patch's middle in 16 directions, in shares of the picture,
    and `on_object` (B, 256), 1 where that middle lies on an object.
    """

    color: Tensor
    shape: Tensor
    center: Tensor
    box: Tensor
    fill: Tensor
    rays: Tensor
    on_object: Tensor


class DenseHead(nn.Module):
    """Patches (B, 256, C) to colour, shape, centre, box, fill and ray predictions, 97 numbers a patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(FIELDS)))

    def forward(self, patches: Tensor) -> Tensor:
        return self.out(patches)


def dense_targets(labels: Tensor, things: Tensor) -> DenseTargets:
    """From labels (B, 128, 128) and things (B, N, 8)."""
    batch = labels.shape[0]
    shares = functional.one_hot(labels, things.shape[1] + 1).permute(0, 3, 1, 2).float()
    shares = functional.avg_pool2d(shares, labels.shape[-1] // GRID).flatten(2)  # (B, 1 + N, 256)
    most, index = shares[:, 1:].max(dim=1)
    index = torch.where(most > 0.3, index, -1)  # (B, 256): the object of the patch, -1 for background
    center = torch.zeros(batch, GRID * GRID)
    cells = (things[..., 2:4] * GRID).long().clamp(0, GRID - 1)
    for number in range(things.shape[1]):
        present = (things[:, number, 0] >= 0).nonzero().flatten()
        cell = cells[present, number, 1] * GRID + cells[present, number, 0]
        center[present, cell] = 1.0
        index[present, cell] = number
    rows = torch.arange(batch)[:, None].expand_as(index)
    chosen = things[rows, index.clamp(min=0)]  # (B, 256, 8)
    is_background = index < 0
    color = chosen[..., 0].long().masked_fill(is_background, len(COLORS))
    shape = chosen[..., 1].long().masked_fill(is_background, len(SHAPES))
    return DenseTargets(color, shape, center, _boxes(chosen), _fill(labels), *_rays(labels))


def _boxes(chosen: Tensor) -> Tensor:
    steps = (torch.arange(GRID) + 0.5) / GRID
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    offset = chosen[..., 2:4] - torch.stack([x, y], -1).flatten(0, 1)
    return torch.cat([offset, chosen[..., 6:8] - chosen[..., 4:6]], -1)


def _fill(labels: Tensor) -> Tensor:
    points = labels.shape[-1] // GRID
    blocks = (labels > 0).float().unflatten(-1, (GRID, points)).unflatten(1, (GRID, points))  # (B, 16, 8, 16, 8)
    return blocks.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


def _rays(labels: Tensor) -> tuple[Tensor, Tensor]:
    size = labels.shape[-1]
    middle = (torch.arange(GRID) + 0.5) * (size // GRID)
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    angles = torch.arange(RAYS) * (2 * math.pi / RAYS)
    reach = (
        torch.arange(0, size // 2, RAY_STEP)[None] * torch.stack([angles.cos(), angles.sin()])[..., None]
    )  # (2, 16, R)
    ray_x = (x.flatten()[:, None, None] + reach[0]).long()  # (256, 16, R)
    ray_y = (y.flatten()[:, None, None] + reach[1]).long()
    outside = (ray_x < 0) | (ray_y < 0) | (ray_x >= size) | (ray_y >= size)
    flat = (ray_y.clamp(0, size - 1) * size + ray_x.clamp(0, size - 1)).flatten()
    met = labels.flatten(1)[:, flat].view(-1, *ray_x.shape).masked_fill(outside, -1)  # (B, 256, 16, R)
    own = met[..., :1]
    length = (met == own).long().cumprod(-1).sum(-1) * (RAY_STEP / size)
    return length.float(), (own[:, :, 0, 0] > 0).float()


def dense_losses(out: Tensor, targets: DenseTargets) -> dict[str, Tensor]:
    """Losses of a head's output (B, 256, 97)."""
    color, shape, center, box, fill, rays = out.split(FIELDS, dim=-1)
    is_object = (targets.color < len(COLORS)).float()
    weight = BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * is_object + CENTER_WEIGHT * targets.center
    weight = weight / weight.sum()
    object_weight = is_object / is_object.sum().clamp(min=1)
    box_loss = functional.smooth_l1_loss(box, targets.box, reduction="none", beta=0.05).mean(-1)
    ray_loss = functional.smooth_l1_loss(rays, targets.rays, reduction="none", beta=0.02).mean(-1)
    on_object = targets.on_object / targets.on_object.sum().clamp(min=1)
    center_loss = functional.binary_cross_entropy_with_logits(
        center[..., 0], targets.center, pos_weight=torch.tensor(CENTER_POSITIVE_WEIGHT)
    )
    return {
        "color": (functional.cross_entropy(color.transpose(1, 2), targets.color, reduction="none") * weight).sum(),
        "shape": (functional.cross_entropy(shape.transpose(1, 2), targets.shape, reduction="none") * weight).sum(),
        "center": 3.0 * center_loss,
        "fill": functional.binary_cross_entropy_with_logits(fill, targets.fill),
        "rays": 4.0 * (ray_loss * on_object).sum(),
        "box": 2.0 * (box_loss * object_weight).sum(),
    }


def dense_scores(out: Tensor, targets: DenseTargets) -> dict[str, float]:
    """Shares of object centres whose colour and shape are named right, and precision and recall of the centre calls."""
    color, shape, center, *_ = out.split(FIELDS, dim=-1)
    at = targets.center > 0
    called = center[..., 0] > 0
    return {
        "color_acc": (color.argmax(-1) == targets.color)[at].float().mean().item(),
        "shape_acc": (shape.argmax(-1) == targets.shape)[at].float().mean().item(),
        "center_precision": (called & at).sum().item() / max(1, int(called.sum())),
        "center_recall": (called & at).sum().item() / int(at.sum()),
    }
