"""What the language and the joint stage share: the packed forward pass, its losses, and its teacher-forced scores."""

import random
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sa2va_bento.model.internvl import InternVLSa2VA
from training.batches import Batch
from training.prompts import ANY_COLOR, ANY_SHAPE, Words
from training.scenes import COLORS, SHAPES
from training.sequences import Packed, Packer
from training.tasks import Item, conversation

TURNS_A_SCENE = 8


@dataclass(frozen=True)
class Answered:
    """`loss`: mean over turns of the summed token losses; `correct` (B, L) bool where `targets` hold a token; `segs`
    (P, H) the hidden states at the `[SEG]` inputs."""

    loss: Tensor
    correct: Tensor
    segs: Tensor


def items_of(things: list[list[float]]) -> list[Item]:
    """Rows of the pool as the objects that the questions are about."""
    return [
        Item(number, COLORS[int(row[0])], SHAPES[int(row[1])], row[2], row[3])
        for number, row in enumerate(things)
        if row[0] >= 0
    ]


def converse(batch: Batch, packer: Packer, rng: random.Random) -> Packed:
    """Fresh questions about each scene of the batch."""
    return packer.pack([conversation(items_of(things), rng, TURNS_A_SCENE) for things in batch.things.tolist()])


def answer(model: InternVLSa2VA, packer: Packer, packed: Packed, image_tokens: Tensor | None) -> Answered:
    """`image_tokens` (B, 64, H) from the projector, or None for conversations without a picture."""
    table = model.language_model.get_input_embeddings().weight
    embeddings = functional.embedding(packed.ids, table)
    if image_tokens is not None:
        start, end = packer.image_at, packer.image_at + image_tokens.shape[1]
        embeddings = torch.cat([embeddings[:, :start], image_tokens, embeddings[:, end:]], dim=1)
    hidden = model.language_model.model(
        inputs_embeds=embeddings, attention_mask=packed.mask(), position_ids=packed.positions, use_cache=False
    ).last_hidden_state
    asked = packed.targets >= 0
    logits, targets = hidden[asked] @ table.T, packed.targets[asked]
    correct = torch.zeros_like(asked)
    correct[asked] = logits.argmax(-1) == targets
    turns = sum(len(kinds) for kinds in packed.kinds)
    rows = torch.tensor([row for row, _, _ in packed.segs], dtype=torch.long)
    places = torch.tensor([place for _, place, _ in packed.segs], dtype=torch.long)
    return Answered(functional.cross_entropy(logits, targets, reduction="sum") / turns, correct, hidden[rows, places])


def words_of(packed: Packed, things: Tensor) -> Words:
    """The stand-in prompt of every `[SEG]` of the batch."""
    refs = [(row, ref) for row, _, ref in packed.segs]
    rows = torch.tensor([row for row, _ in refs])
    numbers = torch.tensor([ref.number for _, ref in refs])
    return Words(
        color=torch.tensor([COLORS.index(ref.color) if ref.color else ANY_COLOR for _, ref in refs]),
        shape=torch.tensor([SHAPES.index(ref.shape) if ref.shape else ANY_SHAPE for _, ref in refs]),
        place=things[rows, numbers, 2:4],
        has_place=torch.tensor([float(ref.has_place) for _, ref in refs]),
    )


class Scores:
    """Shares of turns, by kind, whose every token is right under teacher forcing; a running sum until printed."""

    def __init__(self) -> None:
        self._right: dict[str, list[bool]] = defaultdict(list)

    def add(self, packed: Packed, answered: Answered) -> None:
        wrong = (packed.targets >= 0) & ~answered.correct
        for row, kinds in enumerate(packed.kinds):
            bad = set(packed.turns[row][wrong[row]].tolist())
            for number, kind in enumerate(kinds, start=1):
                self._right[kind].append(number not in bad)

    def flush(self) -> dict[str, float]:
        shares = {kind: round(sum(right) / len(right), 3) for kind, right in sorted(self._right.items())}
        self._right.clear()
        return shares
