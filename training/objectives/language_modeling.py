"""The language stage's forward pass, its losses, and its teacher-forced scores."""

import random
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sa2va_bento.model.internvl import InternVLSa2VA
from training import reading, tasks
from training.batches import Batch
from training.geometry import CELLS
from training.naming import Item
from training.pool import CLASSES
from training.prompts import PromptTable, Words
from training.scenes import COLORS, SHAPES
from training.sequences import Packed
from training.turns import Turn

TURNS_A_SCENE, TURNS_A_CLIP, TURNS_A_WRITING = 9, 9, 3


@dataclass(frozen=True)
class Answered:
    """`loss`: mean over conversations of the summed token losses; `correct` (B, L) bool where `targets` hold a token;
    `segs` (P, H) the hidden states at the `[SEG]` inputs."""

    loss: Tensor
    correct: Tensor
    segs: Tensor


def items_of(things: list[list[float]], labels: Tensor) -> list[Item]:
    """Rows of the pool as the objects that the questions are about; `labels` (S, S) is the scene's."""
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
    """Fresh questions about each picture of the batch."""
    if batch.kind in ("pool", "clips"):
        write, turns = (
            (tasks.conversation, TURNS_A_SCENE) if batch.kind == "pool" else (tasks.clip_conversation, TURNS_A_CLIP)
        )
        scenes = zip(batch.things.tolist(), batch.labels, strict=True)
        return [write(items_of(things, labels), rng, turns) for things, labels in scenes]
    by_hand = batch.kind == "digits"
    return [reading.conversation(text_of(things), by_hand, rng, TURNS_A_WRITING) for things in batch.things.tolist()]


def answer(model: InternVLSa2VA, packed: Packed, image_tokens: Tensor | None) -> Answered:
    """`image_tokens` (B, pictures * N, H) from the projector, or None for conversations without a picture."""
    table = model.language_model.get_input_embeddings().weight
    embeddings = functional.embedding(packed.ids, table)
    if image_tokens is not None:
        embeddings = embeddings.index_copy(1, torch.tensor(packed.image_places), image_tokens)
    if image_tokens is not None and packed.regions:
        rows, places, cells = torch.tensor(packed.regions).unbind(1)
        embeddings = embeddings.index_put((rows, places), image_tokens[rows, cells])
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.language_model.model(
            inputs_embeds=embeddings, attention_mask=packed.mask(), position_ids=packed.positions, use_cache=False
        ).last_hidden_state
    hidden = hidden.float()
    asked = packed.targets >= 0
    logits, targets = hidden[asked] @ table.T, packed.targets[asked]
    correct = torch.zeros_like(asked)
    correct[asked] = logits.argmax(-1) == targets
    turns = sum(len(kinds) for kinds in packed.kinds)
    rows, places = (torch.tensor([seg[i] for seg in packed.segs], dtype=torch.long) for i in (0, 1))
    return Answered(functional.cross_entropy(logits, targets, reduction="sum") / turns, correct, hidden[rows, places])


def words_of(packed: Packed, things: Tensor) -> Words:
    """The stand-in prompt of every `[SEG]` of the batch; `things` (B, N, 8) as in the pool."""
    rows, _, numbers = torch.tensor(packed.segs).unbind(1)
    meant = things[rows, numbers]
    return Words(meant[:, 0].long(), meant[:, 1].long(), meant[:, 2:4])


@torch.no_grad()
def nearest_is_meant(prompts: Tensor, table: PromptTable, packed: Packed, things: Tensor) -> Tensor:
    """Whether each `[SEG]`'s prompt (P, d) lies nearest to the stand-in prompt of its own object, (P,) bool."""
    rows, _, numbers = torch.tensor(packed.segs).unbind(1)
    there = things[rows, :, 1] >= 0  # (P, N)
    known = things[rows].clamp(min=0)
    wanted = table(Words(known[..., 0].long(), known[..., 1].long(), known[..., 2:4]))  # (P, N, d)
    away = (wanted - prompts[:, None]).square().mean(-1).masked_fill(~there, torch.inf)
    return away.argmin(-1) == numbers


class Scores:
    """Shares of conversations, by kind, whose every token is right under teacher forcing and whose every `[SEG]` means
    the right object; a sum until printed."""

    def __init__(self) -> None:
        self._right: dict[str, list[bool]] = defaultdict(list)

    def add(self, packed: Packed, answered: Answered, hits: Tensor) -> None:
        """`hits` says of each of `packed.segs` whether it means its object."""
        wrong = (packed.targets >= 0) & ~answered.correct
        for (row, place, _), hit in zip(packed.segs, hits.tolist(), strict=True):
            wrong[row, place] |= not hit
        for row, kinds in enumerate(packed.kinds):
            bad = set(packed.turns[row][wrong[row]].tolist())
            for number, kind in enumerate(kinds, start=1):
                self._right[kind].append(number not in bad)

    def flush(self) -> dict[str, float]:
        shares = {kind: round(sum(right) / len(right), 3) for kind, right in sorted(self._right.items())}
        self._right.clear()
        return shares
