"""Auxiliary loss of an encoder, dense supervision: what is at each patch of a 16 x 16 grid, and where the objects'
centres are.

A throw-away linear head on the encoder's patches. Object patches outweigh background, and the patch that holds an
object's centre counts most: it is the one from which a reader of the features can name and count objects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.data.picture_shards import CLASSES, INK, NO_COLOR
from training.data.shapes import COLORS

GRID = 16
RAYS, RAY_STEP = 16, 2  # directions, and pixels of the label map between two looks along a ray
PORTRAIT = 8  # points a side
MOST, ORDERS = 6, 5  # ranks and counts from MOST on are one class
FIELDS = (len(COLORS) + 1, len(CLASSES) + 1, 1, 4, 64, PORTRAIT**2, RAYS, *(MOST,) * ORDERS)
BACKGROUND_WEIGHT, CENTER_WEIGHT = 0.15, 4.0
CENTER_POSITIVE_WEIGHT = 2.0
CENTER_LOSS_WEIGHT, BOX_LOSS_WEIGHT, PORTRAIT_WEIGHT, ORDER_WEIGHT = 3.0, 6.0, 3.0, 0.4


@dataclass(frozen=True)
class DenseTargets:
    """What each of the 256 patches of B pictures should say.

    `color` (B, 256), 6 for background and characters; `shape` (B, 256), the class of the shape or character, 40 for
    background; `center` (B, 256), 1 where an object's
    centre lies; `box` (B, 256, 4), its object's centre and size, in shares of the picture: the language model
    has no other way to tell where a patch is;
    `fill` (B, 256, 64), 1 where an 8 x 8 point of the patch lies on an object or on ink: from these follow shapes and
    characters;
    `portrait` (B, 256, 64), the same over the whole box of its object, whatever the object's size;
    `rays` (B, 256, 16), how far the object reaches from the patch's middle in 16 directions, in shares of the picture,
    and `on_object` (B, 256), 1 where that middle lies on an object;
    `orders` (B, 256, 5): how many objects lie further left, how many others share the object's colour, its class, and
    both, and how many others there are at all; -1 where nothing is asked. What a reader has to put in order or to count
    is then there to be read.
    """

    color: Tensor
    shape: Tensor
    center: Tensor
    box: Tensor
    fill: Tensor
    portrait: Tensor
    rays: Tensor
    on_object: Tensor
    orders: Tensor

    @property
    def is_object(self) -> Tensor:
        """(B, 256), where a patch is of an object or a character."""
        return self.shape < len(CLASSES)

    @classmethod
    def cat(cls, parts: Sequence["DenseTargets"]) -> "DenseTargets":
        """The pictures of several in one."""
        fields = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(torch.cat(tensors) for tensors in fields))


class DenseHead(nn.Module):
    """Patches (B, 256, C) to `FIELDS`: colour, class, centre, box, fill, portrait, rays, rank and counts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(FIELDS)))

    def forward(self, patches: Tensor) -> Tensor:
        return self.out(patches)


def dense_targets(labels: Tensor, things: Tensor) -> DenseTargets:
    """From labels (B, 128, 128) and things (B, N, 8); crowds (N over 6) are not put in order."""
    is_ink, labels = labels >= INK, labels % INK
    is_writing = things[:, :1, :1] == NO_COLOR
    batch = labels.shape[0]
    shares = functional.one_hot(labels, things.shape[1] + 1).permute(0, 3, 1, 2).float()
    shares = functional.avg_pool2d(shares, labels.shape[-1] // GRID).flatten(2)  # (B, 1 + N, 256)
    most, index = shares[:, 1:].max(dim=1)
    index = torch.where(most > 0.3, index, -1)  # (B, 256): the object of the patch, -1 for background
    center = torch.zeros(batch, GRID * GRID)
    cells = (things[..., 2:4] * GRID).long().clamp(0, GRID - 1)
    for number in range(things.shape[1]):
        present = (things[:, number, 1] >= 0).nonzero().flatten()
        cell = cells[present, number, 1] * GRID + cells[present, number, 0]
        center[present, cell] = 1.0
        index[present, cell] = number
    rows = torch.arange(batch)[:, None].expand_as(index)
    chosen = things[rows, index.clamp(min=0)]  # (B, 256, 8)
    is_background = index < 0
    color = chosen[..., 0].long().masked_fill(is_background, len(COLORS))
    shape = chosen[..., 1].long().masked_fill(is_background, len(CLASSES))
    orders = _orders(things)[rows, index.clamp(min=0)].masked_fill(is_background[..., None], -1)
    filled = torch.where(is_writing, is_ink, labels > 0).float()
    return DenseTargets(
        color,
        shape,
        center,
        _boxes(chosen),
        _fill(filled),
        _portraits(filled, things)[rows, index.clamp(min=0)],
        *_rays(labels),
        orders,
    )


def _orders(things: Tensor) -> Tensor:
    """Rank from the left, others of the same colour, of the same class, of both, and others at all (B, N, 5); -1 in
    crowds."""
    if things.shape[1] > MOST:
        return torch.full((*things.shape[:2], ORDERS), -1)
    present = things[..., 1] >= 0
    pairs = present[:, :, None] & present[:, None, :] & ~torch.eye(things.shape[1], dtype=torch.bool)
    left = things[:, None, :, 2] < things[:, :, None, 2]
    color, kind = (things[:, None, :, field] == things[:, :, None, field] for field in (0, 1))
    return torch.stack([(pairs & others).sum(-1) for others in (left, color, kind, color & kind, pairs)], -1)


def _boxes(chosen: Tensor) -> Tensor:
    return torch.cat([chosen[..., 2:4], chosen[..., 6:8] - chosen[..., 4:6]], -1)


def _fill(filled: Tensor) -> Tensor:
    points = filled.shape[-1] // GRID
    blocks = filled.unflatten(-1, (GRID, points)).unflatten(1, (GRID, points))  # (B, 16, 8, 16, 8)
    return blocks.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


def _portraits(filled: Tensor, things: Tensor) -> Tensor:
    """What the points of each object's box lie on, (B, N, 64): from (B, S, S) of 0 and 1."""
    along = (torch.arange(PORTRAIT) + 0.5) / PORTRAIT
    start, size = things[..., 4:6], things[..., 6:8] - things[..., 4:6]  # (B, N, 2)
    x = start[..., :1, None] + size[..., :1, None] * along  # (B, N, 1, 8)
    y = start[..., 1:, None] + size[..., 1:, None] * along[:, None]  # (B, N, 8, 1)
    points = torch.stack(torch.broadcast_tensors(x, y), -1) * 2 - 1  # (B, N, 8, 8, 2)
    seen = functional.grid_sample(filled[:, None], points.flatten(1, 2), align_corners=False)  # (B, 1, 8 N, 8)
    return seen[:, 0].unflatten(1, (-1, PORTRAIT)).flatten(2)


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
    met = labels.to(torch.int16).flatten(1)[:, flat].view(-1, *ray_x.shape).masked_fill(outside, -1)  # (B, 256, 16, R)
    own = met[..., :1]
    left = functional.pad(met != own, (0, 1), value=True)  # the object ends where a ray does, at the latest
    length = left.to(torch.uint8).argmax(-1) * (RAY_STEP / size)
    return length.float(), (own[:, :, 0, 0] > 0).float()


def dense_losses(out: Tensor, targets: DenseTargets) -> dict[str, Tensor]:
    """Losses of a head's output (B, 256, sum of FIELDS)."""
    color, shape, center, box, fill, portrait, rays, *orders = out.split(FIELDS, dim=-1)
    is_object = targets.is_object.float()
    weight = patch_weight(is_object) + CENTER_WEIGHT * targets.center
    weight = weight / weight.sum()
    object_weight = is_object / is_object.sum().clamp(min=1)
    box_loss = functional.smooth_l1_loss(box, targets.box, reduction="none", beta=0.05).mean(-1)
    ray_loss = functional.smooth_l1_loss(rays, targets.rays, reduction="none", beta=0.02).mean(-1)
    portrait_loss = functional.binary_cross_entropy_with_logits(portrait, targets.portrait, reduction="none").mean(-1)
    on_object = targets.on_object / targets.on_object.sum().clamp(min=1)
    center_loss = functional.binary_cross_entropy_with_logits(
        center[..., 0], targets.center, pos_weight=torch.tensor(CENTER_POSITIVE_WEIGHT)
    )
    return {
        "color": (functional.cross_entropy(color.transpose(1, 2), targets.color, reduction="none") * weight).sum(),
        "shape": (functional.cross_entropy(shape.transpose(1, 2), targets.shape, reduction="none") * weight).sum(),
        "center": CENTER_LOSS_WEIGHT * center_loss,
        "fill": functional.binary_cross_entropy_with_logits(fill, targets.fill),
        "portrait": PORTRAIT_WEIGHT * (portrait_loss * object_weight).sum(),
        "rays": 4.0 * (ray_loss * on_object).sum(),
        "box": BOX_LOSS_WEIGHT * (box_loss * object_weight).sum(),
        "orders": ORDER_WEIGHT * order_loss(orders, targets, weight),
    }


def patch_weight(is_object: Tensor) -> Tensor:
    """What a patch counts, objects more than background."""
    return BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * is_object


def order_loss(orders: Sequence[Tensor], targets: DenseTargets, weight: Tensor) -> Tensor:
    """Cross-entropy of rank and counts over the patches that are asked."""
    wanted = targets.orders.movedim(-1, 0)  # (5, B, 256)
    asked = (wanted >= 0) * weight
    losses = functional.cross_entropy(
        torch.stack(list(orders)).flatten(0, 2), wanted.clamp(0, MOST - 1).flatten(), reduction="none"
    )
    return (losses.view_as(asked) * asked).sum() / asked.sum().clamp(min=1e-6)


def dense_scores(out: Tensor, targets: DenseTargets) -> dict[str, float]:
    """Shares of objects whose colour, class, rank and counts their centre names right, and precision and recall of the
    calls of centres."""
    color, shape, center, _, _, _, _, *orders = out.split(FIELDS, dim=-1)
    at = targets.center > 0
    asked = at & (targets.orders[..., 0] >= 0)
    ordered = torch.stack(orders, -1).argmax(-2) == targets.orders  # (B, 256, 5)
    called = center[..., 0] > 0
    return {
        "color_acc": (color.argmax(-1) == targets.color)[at].float().mean().item(),
        "shape_acc": (shape.argmax(-1) == targets.shape)[at].float().mean().item(),
        "rank_acc": ordered[asked][:, 0].float().mean().item(),
        "counts_acc": ordered[asked][:, 1:].float().mean().item(),
        "center_precision": (called & at).sum().item() / max(1, int(called.sum())),
        "center_recall": (called & at).sum().item() / int(at.sum()),
    }
