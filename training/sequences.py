"""Several independent questions about one picture packed behind one copy of its image tokens.

Every turn sees the picture and itself but no other turn, and its positions start where the picture's end, so a packed
sequence computes exactly what separate conversations would and pays for the picture once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.geometry import IMAGE_TOKENS
from training.tasks import Reference, Turn
from training.tokenizer import token_id

PAD_TURN = -1


@dataclass(frozen=True)
class Packed:
    """B sequences of L tokens. `turns` (B, L) is 0 on the picture's prefix, then 1, 2, ...; -1 on padding. `targets`
    (B, L) holds the token to predict at each position, -100 where none is. `segs` lists (row, position of the `[SEG]`
    input, its reference); `kinds` names turn k of row b at [b][k - 1]."""

    ids: Tensor
    positions: Tensor
    turns: Tensor
    targets: Tensor
    segs: list[tuple[int, int, Reference]]
    kinds: list[list[str]]

    def mask(self) -> Tensor:
        """Additive attention mask (B, 1, L, L)."""
        length = self.ids.shape[1]
        own = self.turns[:, :, None] == self.turns[:, None, :]
        picture = (self.turns == 0)[:, None, :]
        seen = (own | picture) & torch.ones(length, length, dtype=torch.bool).tril()
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]


class Packer:
    """Turns conversations into `Packed` batches of a fixed length."""

    def __init__(self, tokenizer: Tokenizer, length: int = 240) -> None:
        self.length = length
        self._tokenizer = tokenizer
        self._ids = {token: token_id(tokenizer, token) for token in ("<|endoftext|>", "<|im_end|>", "[SEG]")}
        picture = "<img>" + "<IMG_CONTEXT>" * IMAGE_TOKENS + "</img>"
        self.prefix = self._encode(f"<|im_start|>user\n{picture}")
        self.bare_prefix = self._encode("<|im_start|>user")
        self.image_at = self.prefix.index(token_id(tokenizer, "<IMG_CONTEXT>"))
        self._before_answer = self._encode("<|im_end|>\n<|im_start|>assistant\n")

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def pack(self, conversations: Sequence[Sequence[Turn]], picture: bool = True) -> Packed:
        """Turns that do not fit are left out."""
        prefix = self.prefix if picture else self.bare_prefix
        shape = (len(conversations), self.length)
        ids = torch.full(shape, self._ids["<|endoftext|>"])
        positions, turns = torch.zeros(shape, dtype=torch.long), torch.full(shape, PAD_TURN)
        targets = torch.full(shape, -100)
        segs: list[tuple[int, int, Reference]] = []
        kinds: list[list[str]] = []
        for row, conversation in enumerate(conversations):
            at = len(prefix)
            ids[row, :at], positions[row, :at], turns[row, :at] = torch.tensor(prefix), torch.arange(at), 0
            kinds.append([])
            for turn in conversation:
                asked, answered = self._turn_ids(turn)
                end = at + len(asked) + len(answered)
                if end > self.length:
                    continue
                kinds[-1].append(turn.kind)
                tokens = torch.tensor(asked + answered)
                ids[row, at:end], turns[row, at:end] = tokens, len(kinds[-1])
                positions[row, at:end] = torch.arange(len(prefix), len(prefix) + len(tokens))
                targets[row, at + len(asked) - 1 : end - 1] = tokens[len(asked) :]
                seg_places = [i for i in range(at + len(asked), end) if ids[row, i] == self._ids["[SEG]"]]
                segs += [(row, place, ref) for place, ref in zip(seg_places, turn.references, strict=True)]
                at = end
        return Packed(ids, positions, turns, targets, segs, kinds)

    def _turn_ids(self, turn: Turn) -> tuple[list[int], list[int]]:
        question = self._encode(f"\n{turn.question}") + self._before_answer
        return question, [*self._encode(turn.answer), self._ids["<|im_end|>"]]
