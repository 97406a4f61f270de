"""InternLM2's tokenizer without its remote code: the sentencepiece model beside it, turned into a `tokenizers` BPE.

No in-tree class reads the published folder: it keeps its special tokens at ids inside the sentencepiece range, under
other names than the pieces there have.
"""

import json
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

from sa2va_bento.errors import CheckpointError

NORMAL_PIECE = 1
"""`ModelProto.SentencePiece.Type.NORMAL`: the pieces that merging makes."""
SPACE = "▁"


def load_internlm2(folder: Path) -> Tokenizer:
    """The tokenizer of a folder with `tokenizer.model` and `tokenizer_config.json`.

    Raises:
        CheckpointError: one of them is missing or unreadable.
    """
    try:
        model = pb.ModelProto.FromString((folder / "tokenizer.model").read_bytes())  # pyright: ignore
        config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        added = {int(number): token for number, token in config["added_tokens_decoder"].items()}
    except (OSError, ValueError, KeyError, DecodeError) as error:
        raise CheckpointError(f"the InternLM2 tokenizer in {folder} can't be read: {error}") from None
    return build(model, {number: token["content"] for number, token in sorted(added.items())})


def build(model: Any, added: dict[int, str]) -> Tokenizer:
    """A BPE of the model's pieces, the added tokens (id to text) in the places that they name."""
    names: list[str] = [piece.piece for piece in model.pieces]
    vocabulary: dict[str, int] = {added.get(number, name): number for number, name in enumerate(names)}
    merges = _merges(
        {p.piece: p.score for n, p in enumerate(model.pieces) if p.type == NORMAL_PIECE and n not in added}
    )
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token=names[0], fuse_unk=True, byte_fallback=True))
    has_dummy_prefix = model.normalizer_spec.add_dummy_prefix
    prefix = [normalizers.Prepend(SPACE)] if has_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if has_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    for token in added.values():
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    start = "<s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, vocabulary[start])]
    )
    return tokenizer


def _merges(scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, best score first: the order in which sentencepiece merges."""
    found = [
        (-score, piece[:cut], piece[cut:])
        for piece, score in scores.items()
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return [(left, right) for _, left, right in sorted(found, key=lambda merge: merge[0])]
