"""Several independent conversations about one picture packed behind one copy of its image tokens.

Every one sees the picture and itself but no other, and its positions start where the picture's end, so a packed
sequence computes exactly what separate conversations would and pays for the picture once.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from tokenizers import Tokenizer
from torch import Tensor

from sa2va_bento.model.chat_template import CHATML, IMAGE_CONTEXT, SEG, Piece
from training.model_config import END_OF_TEXT, END_OF_TURN, IMAGE_TOKENS
from training.questions.nano_tokenizer import token_id
from training.questions.turns import Exchange, Names, Turn

PAD_TURN = -1


def written(pieces: Sequence[Piece]) -> str:
    """Pieces of a chat template as the training's tokenizer reads them: special tokens are spelled out."""
    return "".join(piece if isinstance(piece, str) else piece.token * piece.count for piece in pieces)


USER_START, USER_END = written(CHATML.user_start), written(CHATML.user_end)


@dataclass(frozen=True)
class Packed:
    """B sequences of L tokens.

    `turns` (B, L) is 0 on the picture's prefix, then 1, 2, ...; -1 on padding. `targets` (B, L) holds the token to
    predict at each position, -100 where none is. `image_places` are the positions of the picture's tokens, the same in
    every row. `segs` lists (row, position of the `[SEG]` input, number of its object), `regions` (row, position, image
    token that is repeated there), `points` (row, position, the objects that the next token speaks of, one bit each),
    `names` the same of the last tokens of what questions and regions call objects, `pairs` (row, position, object,
    object) where the answer about two named objects begins. `kinds` names conversation k of row b at [b][k - 1].
    """

    ids: Tensor
    positions: Tensor
    turns: Tensor
    targets: Tensor
    image_places: list[int]
    segs: list[tuple[int, int, int]]
    regions: list[tuple[int, int, int]]
    points: list[tuple[int, int, int]]
    names: list[tuple[int, int, int]]
    pairs: list[tuple[int, int, int, int]]
    kinds: list[list[str]]

    def mask(self) -> Tensor:
        """Additive attention mask (B, 1, L, L)."""
        length = self.ids.shape[1]
        own = self.turns[:, :, None] == self.turns[:, None, :]
        picture = (self.turns == 0)[:, None, :]
        seen = (own | picture) & torch.ones(length, length, dtype=torch.bool).tril()
        return torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None]


@dataclass(frozen=True)
class _Encoded:
    """One conversation's tokens; `learned`: the predicted ones, `segs` (offset, object), `points` and `names`
    (offset, objects), `pairs` (offset, object, object), `cells` (offset, token)."""

    ids: list[int]
    learned: list[bool]
    segs: list[tuple[int, int]]
    cells: list[tuple[int, int]]
    points: list[tuple[int, int]]
    names: list[tuple[int, int]]
    pairs: list[tuple[int, int, int]]


class Packer:
    """Turns conversations into `Packed` batches."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pad = token_id(tokenizer, END_OF_TEXT)
        self._seg = token_id(tokenizer, SEG)
        self._context, self._region_end = token_id(tokenizer, IMAGE_CONTEXT), token_id(tokenizer, "</vp>")
        self._separators = {token_id(tokenizer, ","), token_id(tokenizer, "Ġand")}

    def prefix(self, pictures: int) -> list[int]:
        """What stands in front of every conversation about so many pictures (a clip's frames)."""
        picture = CHATML.image_start + IMAGE_CONTEXT * IMAGE_TOKENS + CHATML.image_end
        shown = CHATML.between_images.join([picture] * pictures)
        return self._encode(USER_START + shown if pictures else USER_START.removesuffix("\n"))

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def pack(self, conversations: Sequence[Sequence[Turn]], length: int, pictures: int = 1) -> Packed:
        """At most `length` tokens a row; turns that do not fit are left out."""
        prefix = self.prefix(pictures)
        rows = [self._row([self._turn(turn) for turn in turns], length - len(prefix)) for turns in conversations]
        longest = len(prefix) + max(sum(len(encoded.ids) for _, encoded in row) for row in rows)
        shape = (len(rows), longest)
        ids, positions = torch.full(shape, self._pad), torch.zeros(shape, dtype=torch.long)
        turns, targets = torch.full(shape, PAD_TURN), torch.full(shape, -100)
        segs: list[tuple[int, int, int]] = []
        regions: list[tuple[int, int, int]] = []
        points: list[tuple[int, int, int]] = []
        names: list[tuple[int, int, int]] = []
        pairs: list[tuple[int, int, int, int]] = []
        for number, row in enumerate(rows):
            at = len(prefix)
            ids[number, :at], positions[number, :at], turns[number, :at] = torch.tensor(prefix), torch.arange(at), 0
            for turn, (_, encoded) in enumerate(row, start=1):
                end = at + len(encoded.ids)
                tokens, learned = torch.tensor(encoded.ids), torch.tensor(encoded.learned)
                ids[number, at:end], turns[number, at:end] = tokens, turn
                positions[number, at:end] = torch.arange(len(prefix), len(prefix) + len(tokens))
                targets[number, at - 1 : end - 1] = torch.where(learned, tokens, targets[number, at - 1 : end - 1])
                segs += [(number, at + offset, target) for offset, target in encoded.segs]
                regions += [(number, at + offset, cell) for offset, cell in encoded.cells]
                points += [(number, at + offset, target) for offset, target in encoded.points]
                names += [(number, at + offset, target) for offset, target in encoded.names]
                pairs += [(number, at + offset, a, b) for offset, a, b in encoded.pairs]
                at = end
        kinds = [[turns[index].kind for index, _ in row] for turns, row in zip(conversations, rows, strict=True)]
        places = [place for place, token in enumerate(prefix) if token == self._context]
        return Packed(ids, positions, turns, targets, places, segs, regions, points, names, pairs, kinds)

    @staticmethod
    def _row(encoded: list[_Encoded], room: int) -> list[tuple[int, _Encoded]]:
        """The longest first: they would not find room after the others."""
        kept = []
        for index, turn in sorted(enumerate(encoded), key=lambda numbered: -len(numbered[1].ids)):
            if len(turn.ids) <= room:
                kept.append((index, turn))
                room -= len(turn.ids)
        return kept

    def _turn(self, turn: Turn) -> _Encoded:
        found = _Encoded([], [], [], [], [], [], [])
        self._add(found, *self._regions(turn.regions))
        ends = (place for place, token in enumerate(found.ids) if token == self._region_end)
        found.names.extend(zip(ends, (1 << number for number in turn.shown), strict=False))
        first = ".\n\n" if turn.regions else "\n"
        for number, exchange in enumerate((*turn.history, turn)):
            self._add_exchange(found, exchange, start=f"\n{USER_START}" if number else first)
        return found

    def _regions(self, regions: tuple[tuple[int, ...], ...]) -> tuple[str, list[int]]:
        """The sentence that shows regions, without its end, and the image tokens in it."""
        if not regions:
            return "", []
        shown = ", ".join(
            f"region{number}<vp>" + IMAGE_CONTEXT * len(cells) + "</vp>"
            for number, cells in enumerate(regions, start=1)
        )
        text = f"\nThere are {len(regions)} part regions in the picture: {shown}"
        return text, [cell for cells in regions for cell in cells]

    def _add(self, found: _Encoded, text: str, cells: list[int]) -> None:
        pending = iter(cells)
        for token in self._encode(text):
            if token == self._context:
                found.cells.append((len(found.ids), next(pending)))
            found.ids.append(token)
            found.learned.append(False)

    def _add_exchange(self, found: _Encoded, exchange: Exchange, start: str) -> None:
        question = f"{start}{exchange.question}{USER_END}"
        found.names.extend((len(found.ids) + place, meant) for place, meant in self._named(question, exchange.names))
        self._add(found, question, [])
        if not exchange.targets and [len(numbers) for _, numbers in exchange.names] == [1, 1]:
            (_, (first,)), (_, (second,)) = exchange.names
            found.pairs.append((len(found.ids) - 1, first, second))
        tokens = [*self._encode(exchange.answer), token_id(self._tokenizer, END_OF_TURN)]
        found.points.extend((len(found.ids) - 1 + place, about) for place, about in self._points(exchange, tokens))
        objects = iter(exchange.targets)
        for token in tokens:
            if token == self._seg:
                found.segs.append((len(found.ids), next(objects)))
            found.ids.append(token)
            found.learned.append(True)

    def _named(self, question: str, names: Names) -> list[tuple[int, int]]:
        """(index of the last token of a name, the objects that it means) of a question's names, however it is typed."""
        encoded, at, found = self._tokenizer.encode(question, add_special_tokens=False), 0, []
        for name, numbers in names:
            match = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE).search(question, at)
            if match:
                at = match.end()
                found.append((encoded.char_to_token(at - 1), sum(1 << number for number in numbers)))
        return found

    def _points(self, exchange: Exchange, tokens: list[int]) -> list[tuple[int, int]]:
        """(index of an answer's token, what it speaks of): up to each `[SEG]` and at it, of its object; a character
        that is read out, of its own; the tokens of a list, of what it names there; all others, of the objects that
        the answer is about."""
        if exchange.spells:
            start = len(self._encode(exchange.answer[: exchange.answer.index(exchange.spells)]))
            return [(start + place, 1 << place) for place in range(len(exchange.spells))]
        if exchange.lists:
            passed = accumulate((token in self._separators for token in tokens), initial=0)
            return [(i, 1 << exchange.lists[n]) for i, n in zip(range(len(tokens)), passed, strict=False)]
        if exchange.targets:
            passed = list(accumulate((token == self._seg for token in tokens), initial=0))
            points = {i: 1 << exchange.targets[n] for i, n in enumerate(passed) if n < len(exchange.targets)}
            at_segs = {i + 1: 1 << exchange.targets[passed[i]] for i, token in enumerate(tokens) if token == self._seg}
            return list((points | at_segs).items())
        return [(i, sum(1 << number for number in exchange.about)) for i in range(len(tokens)) if exchange.about]
