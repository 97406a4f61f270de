"""Fresh conversations about the pictures of a batch."""

import random

import torch
from torch import Tensor

from training.data.batches import Batch
from training.data.picture_shards import CLASSES
from training.data.shapes import COLORS, SHAPES
from training.model_config import CELLS
from training.questions import ocr, task_mix
from training.questions.edges import preceded
from training.questions.referring import Item
from training.questions.turns import Turn

TURNS_A_SCENE, TURNS_A_WRITING = 9, 3
SCENE_WRITERS = {
    "pool": task_mix.conversation,
    "tiny": task_mix.conversation,
    "crowd": task_mix.crowd_conversation,
    "alike": task_mix.crowd_conversation,
    "clips": task_mix.clip_conversation,
}
"""Who writes about scenes, by their kind."""


def items_of(things: list[list[float]], labels: Tensor) -> list[Item]:
    """Rows of a batch as the objects that the questions are about; `labels` (S, S) is the scene's."""
    side = labels.shape[-1]
    areas = torch.bincount(labels.flatten(), minlength=len(things) + 1).tolist()
    sampled = labels[:: side // CELLS, :: side // CELLS].flatten().tolist()  # as serving samples a region's mask
    return [
        Item(
            number,
            *(COLORS[int(row[0])], SHAPES[int(row[1])], row[2], row[3]),
            area=areas[number + 1] / side**2,
            extent=(row[6] - row[4]) * (row[7] - row[5]),
            cells=tuple(i for i, label in enumerate(sampled) if label == number + 1) or _cell_at(row),
            box_cells=_box_cells(row) or _cell_at(row),
        )
        for number, row in enumerate(things)
        if row[1] >= 0
    ]


def _cell_at(row: list[float]) -> tuple[int, ...]:
    return (int(row[3] * CELLS) * CELLS + int(row[2] * CELLS),)


def _box_cells(row: list[float]) -> tuple[int, ...]:
    inside = [(y, x) for y in range(CELLS) for x in range(CELLS)]
    return tuple(y * CELLS + x for y, x in inside if row[4] <= x / CELLS < row[6] and row[5] <= y / CELLS < row[7])


def text_of(things: list[list[float]]) -> str:
    """What is written in a picture."""
    return "".join(CLASSES[int(row[1])] for row in things if row[1] >= 0)


def converse(batch: Batch, rng: random.Random) -> list[list[Turn]]:
    """Fresh questions about each picture of the batch, some after a system prompt or a greeting."""
    return [[preceded(turn, rng) for turn in turns] for turns in _conversations(batch, rng)]


def _conversations(batch: Batch, rng: random.Random) -> list[list[Turn]]:
    rows = batch.things.tolist()
    if batch.kind == "blank":
        return [task_mix.blank_conversation(rng, TURNS_A_WRITING) for _ in rows]
    if write := SCENE_WRITERS.get(batch.kind):
        scenes = zip(rows, batch.labels, strict=True)
        shown = (items_of(things, labels) for things, labels in scenes)
        blank = task_mix.blank_conversation
        return [write(items, rng, TURNS_A_SCENE) if items else blank(rng, TURNS_A_SCENE) for items in shown]
    by_hand = batch.kind == "digits"
    return [ocr.conversation(text_of(things), by_hand, rng, TURNS_A_WRITING) for things in rows]
