"""The tokenizer of a checkpoint, used so that nothing a person types can act as a special token."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.chat_template import Piece, Special
from sa2va_bento.model.loading.internlm2_tokenizer import load_internlm2


def _in_tree(kind: type[PreTrainedTokenizerFast]) -> Callable[[Path], Tokenizer]:
    return lambda folder: kind.from_pretrained(folder).backend_tokenizer


def _as_stored(folder: Path) -> Tokenizer:
    """`tokenizer.json` as it is: the in-tree class for Llama's makes normaliser and pre-tokeniser anew, and gives other
    ids after a special token than those that the weights were trained with."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


TOKENIZERS: Mapping[str, Callable[[Path], Tokenizer]] = {
    "Qwen2Tokenizer": _in_tree(Qwen2Tokenizer),
    "Qwen2TokenizerFast": _in_tree(Qwen2Tokenizer),
    "PreTrainedTokenizerFast": _in_tree(PreTrainedTokenizerFast),
    "InternLM2Tokenizer": load_internlm2,
    "LlamaTokenizer": _as_stored,
    "LlamaTokenizerFast": _as_stored,
}
"""`tokenizer_class` of `tokenizer_config.json` to what loads it."""


class PromptTokenizer:
    """Encodes prompts piece by piece and decodes replies."""

    def __init__(self, tokenizer: Tokenizer, eos_token: str) -> None:
        self._full, self.eos_token = tokenizer, eos_token
        self._plain = _without_added_tokens(self._full)
        self._start = self._full.encode("", add_special_tokens=True).ids
        """What every prompt begins with: `<s>` for some tokenizers, nothing for most."""

    @classmethod
    def from_dir(cls, folder: Path) -> "PromptTokenizer":
        """Loads a folder's tokenizer.

        Raises:
            CheckpointError: there is none, its class is not supported, or its files are damaged.
        """
        try:
            config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
            name = config.get("tokenizer_class")
        except (OSError, ValueError, AttributeError):
            raise CheckpointError(f"{folder} has no readable tokenizer_config.json") from None
        if name not in TOKENIZERS:
            raise CheckpointError(f"tokenizer {name} is not supported (supported: {', '.join(TOKENIZERS)})")
        try:
            return cls(TOKENIZERS[name](folder), _text_of(config.get("eos_token")))
        except CheckpointError:
            raise
        except Exception as error:  # of any class: tokenizers raises that one itself
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise CheckpointError(f"the tokenizer in {folder} can't be loaded: {reason}") from None

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
        ids = list(self._start)
        for piece in _joined([self._known(piece) for piece in pieces]):
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

    def _known(self, piece: Piece) -> Piece:
        """A special token that this tokenizer lacks is text: Sa2VA-4B pairs Phi-3's template with Qwen's tokenizer."""
        if isinstance(piece, Special) and self._full.token_to_id(piece.token) is None:
            return piece.token * piece.count
        return piece


def _text_of(token: object) -> str:
    """A token in a tokenizer's configuration is a text or an object that holds it."""
    return str(token["content"]) if isinstance(token, dict) else str(token or "")


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
