"""Data augmentation: scenes turned and mirrored; writing recoloured, zoomed, slanted and moved."""

import torch
from torch import Tensor
from torch.nn import functional

ZOOM, SLANT, MARGIN = (0.85, 1.2), 0.15, 0.01  # of writing that is written otherwise
TURNABLE = ("pool", "crowd", "alike", "tiny", "blank")  # kinds whose pictures may be mirrored and turned
REWRITABLE = ("text", "digits", "glyphs", "lines")  # kinds whose colours mean nothing: those of writing


def turned(maps: Tensor, turn: int) -> Tensor:
    """(..., S, S) in the `turn`-th of eight forms: bit 0 mirrors left-right, bit 1 up-down, bit 2 swaps the axes."""
    if turn & 1:
        maps = maps.flip(-1)
    if turn & 2:
        maps = maps.flip(-2)
    return (maps.transpose(-1, -2) if turn & 4 else maps).contiguous()


def turned_things(things: Tensor, turn: int) -> Tensor:
    """Rows (B, 5, 8) of a batch in the same form as `turned`."""
    kind, x, y, x0, y0, x1, y1 = things[..., :2], *things[..., 2:].unbind(-1)
    if turn & 1:
        x, x0, x1 = 1 - x, 1 - x1, 1 - x0
    if turn & 2:
        y, y0, y1 = 1 - y, 1 - y1, 1 - y0
    if turn & 4:
        x, y, x0, y0, x1, y1 = y, x, y0, x0, y1, x1
    return torch.cat([kind, torch.stack([x, y, x0, y0, x1, y1], -1)], -1)


def rewritten(tiles: Tensor, labels: Tensor, things: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of writing with their colours exchanged, and zoomed, slanted and moved as far as nothing is cut off."""
    tiles = tiles[:, torch.randperm(3)]
    if torch.rand(()) < 0.5:
        tiles = -tiles  # about a photograph's negative: the channels' means are near the middle
    before, after, across, down, slant = _layout(things)

    def came_from(side: int) -> Tensor:
        """Where each pixel of a side x side picture was, in grid_sample's terms (B, side, side, 2)."""
        along = (torch.arange(side) + 0.5) / side
        y = (along[None, :, None] - after[:, 1]) / down + before[:, 1]  # (B, side, 1)
        x = (along[None, None, :] - after[:, 0] - slant * (y - before[:, 1])) / across + before[:, 0]
        return torch.stack([x, y.expand_as(x)], -1) * 2 - 1

    tiles = functional.grid_sample(tiles, came_from(tiles.shape[-1]), padding_mode="border", align_corners=False)
    moved = functional.grid_sample(
        labels[:, None].float(), came_from(labels.shape[-1]), mode="nearest", align_corners=False
    )
    x, y = things[..., 2::2] - before[:, 0], things[..., 3::2] - before[:, 1]  # of centre, corner, corner
    leaning = slant * y
    low, high = leaning[..., 1:].min(-1).values, leaning[..., 1:].max(-1).values
    x = across * x + torch.stack([leaning[..., 0], low, high], -1) + after[:, 0]
    places = torch.stack([x, down * y + after[:, 1]], -1).flatten(2)
    is_there = things[..., 1:2] >= 0
    return tiles, moved[:, 0].long(), torch.cat([things[..., :2], torch.where(is_there, places, -1)], -1)


def _layout(things: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of each picture (B): the middle of all that is written, (B, 2, 1, 1), where it goes, and by how much it is zoomed
    across and down and slanted, (B, 1, 1) each."""
    is_there = things[..., 1:2] >= 0
    is_blank = ~is_there.any(1)
    low = torch.where(is_there, things[..., 4:6], 1).amin(1).masked_fill(is_blank, 0)
    high = torch.where(is_there, things[..., 6:8], 0).amax(1).masked_fill(is_blank, 1)
    (width, height), rows = (high - low).clamp(min=1e-3).unbind(-1), len(things)
    slant = torch.empty(rows).uniform_(-SLANT, SLANT)
    room = 1 - 2 * MARGIN
    down = torch.minimum(torch.empty(rows).uniform_(*ZOOM), room / height)
    across = torch.minimum(torch.empty(rows).uniform_(*ZOOM), (room - (slant * height).abs()) / width)
    half = torch.stack([across * width + (slant * height).abs(), down * height], -1) / 2
    after = MARGIN + half + torch.rand(rows, 2) * (room - 2 * half).clamp(min=0)
    before = (low + high) / 2
    one = (slice(None), None, None)
    return before[..., None, None], after[..., None, None], across[one], down[one], slant[one]
