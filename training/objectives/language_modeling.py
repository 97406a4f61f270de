"""The language stage's forward pass, its losses, and its teacher-forced scores."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sa2va_bento.model.internvl.model import InternVLSa2VA
from training.objectives.stand_in_prompts import PromptTable, Words
from training.questions.packing import Packed


@dataclass(frozen=True)
class Answered:
    """`loss`: mean over conversations of the summed token losses; `correct` (B, L) bool where `targets` hold a token;
    `segs` (P, H) the hidden states at the `[SEG]` inputs."""

    loss: Tensor
    correct: Tensor
    segs: Tensor


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
    """The stand-in prompt of every `[SEG]` of the batch, whose `things` (B, N, 8) these are."""
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
