"""The tokenizer of a checkpoint, used so that nothing a person types can act as a special token."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from sa2va_bento.errors import CheckpointError

TOKENIZERS: Mapping[str, type[PreTrainedTokenizerFast]] = {
    "Qwen2Tokenizer": Qwen2Tokenizer,
    "Qwen2TokenizerFast": Qwen2Tokenizer,
    "PreTrainedTokenizerFast": PreTrainedTokenizerFast,
}
"""`tokenizer_class` of `tokenizer_config.json` to the in-tree class."""


@dataclass(frozen=True)
class Special:
    """A special token, `count` times over."""

    token: str
    count: int = 1


Piece = str | Special
"""Part of a prompt: plain text or a special token."""


class PromptTokenizer:
    """Encodes prompts piece by piece and decodes replies."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._full: Tokenizer = tokenizer.backend_tokenizer
        self._plain = _without_added_tokens(self._full)
        self.eos_token = str(tokenizer.eos_token or "")

    @classmethod
    def from_dir(cls, folder: Path) -> "PromptTokenizer":
        """Loads a folder's tokenizer.

        Raises:
            CheckpointError: there is none, or its class is not supported.
        """
        try:
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise CheckpointError(f"{folder} has no readable tokenizer_config.json") from None
        name = config.get("tokenizer_class")
        if name not in TOKENIZERS:
            raise CheckpointError(f"tokenizer {name} is not supported (supported: {', '.join(TOKENIZERS)})")
        try:
            return cls(TOKENIZERS[name].from_pretrained(folder))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the tokenizer in {folder} can't be loaded: {str(error).splitlines()[0]}") from None

    def id_of(self, token: str) -> int:
        """The id of a special token, by name: ids differ from checkpoint to checkpoint.

        Raises:
            CheckpointError: the tokenizer lacks it.
        """
        found = self._full.token_to_id(token)
        if found is None:
            raise CheckpointError(f"the tokenizer lacks the token {token}")
        return found

    def ids_of(self, tokens: Iterable[str]) -> frozenset[int]:
        """The ids of those of the tokens that exist."""
        return frozenset(i for token in tokens if (i := self._full.token_to_id(token)) is not None)

    def encode(self, pieces: Sequence[Piece]) -> list[int]:
        """Token ids of a prompt. Neighbouring texts are joined before they are encoded, so that the result is that of
        encoding the whole prompt at once, except that no text ever yields an added token."""
        ids: list[int] = []
        for piece in _joined(pieces):
            if isinstance(piece, Special):
                ids += [self.id_of(piece.token)] * piece.count
            else:
                ids += self._plain.encode(piece, add_special_tokens=False).ids
        return ids

    def stream(self) -> Callable[[int], str]:
        """A decoder of one reply, token by token: each call gives the whole characters that have become complete."""
        decoder = DecodeStream(skip_special_tokens=False)
        return lambda token: decoder.step(self._full, token) or ""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens kept."""
        return self._full.decode(list(ids), skip_special_tokens=False)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return joined


def _without_added_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The same model without its added tokens: to it `<|im_end|>` is just a few characters."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = []
    state["post_processor"] = None  # it may name added tokens; none are wanted here
    return Tokenizer.from_str(json.dumps(state))
