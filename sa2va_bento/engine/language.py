"""The language model's part of the runner: prompts read in pieces, replies token by token, the KV cache behind both."""

import logging
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from sa2va_bento.engine.cuda_graphs import DecodeGraphs
from sa2va_bento.engine.feature_cache import FeatureCache
from sa2va_bento.engine.flash import FlashAttention, has_kernel
from sa2va_bento.engine.kv_cache import KVCache, head_width
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.ragged import GatherAttention, Piece, ViewAttention, gathering
from sa2va_bento.engine.rows import Rows
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.engine.transfer import on_device
from sa2va_bento.model.adapters import NO_ADAPTERS, Adapters, Part
from sa2va_bento.model.attention import RaggedAttention
from sa2va_bento.model.base import PromptInputs, Sa2VA, parameter_dtype
from sa2va_bento.model.loading.device_map import layer_devices
from sa2va_bento.model.low_rank import Rows as TokenRows
from sa2va_bento.model.low_rank import Runs, share_of_replies

logger = logging.getLogger(__name__)

Reading = Literal["views", "copies", "rows"]
"""How attention reads the cache: a CPU by views of neighbouring rows (`ragged.py`), a GPU from the rows (`flash.py`)
or, where it has no kernel for that, from copies of them (`ragged.py`)."""


@dataclass
class DeviceState:
    """What the device holds of a running sequence, its row of the KV cache apart."""

    image_tokens: Tensor | None = None
    """(K, W): of its picture and regions, in the order of their places in the prompt."""
    prompt: PromptInputs | None = None
    """While it is read."""
    shift: int = 0
    """From a reply token's place to its position."""
    seg_hidden: list[Tensor] = field(default_factory=list[Tensor])
    """(H,) for each `[SEG]` that was read."""


class LanguageRunner:
    """Reads prompts and writes replies, of any sequences together. Its results are hidden states."""

    def __init__(
        self,
        model: Sa2VA,
        image_token_id: int,
        limits: Limits,
        prefix_cache_bytes: int,
        states: dict[Sequence, DeviceState],
        reading: Reading | None = None,
        adapters: Adapters = NO_ADAPTERS,
    ) -> None:
        self.model, self.image_token_id, self._limits, self._states = model, image_token_id, limits, states
        self._adapters = adapters
        self.device, devices = next(model.parameters()).device, layer_devices(model)
        self.devices = list(dict.fromkeys((self.device, *devices)))
        self.reading: Reading = reading or self._best_reading()
        model.prepare_steps()
        self.can_capture = [device.type for device in self.devices] == ["cuda"]
        tokens = (
            limits.kv_tokens + self.can_capture
        )  # one more, where the rows of a graph's batch that are nobody's write
        self.cache = KVCache(model.config.llm, tokens, parameter_dtype(model), devices, self.reading == "rows")
        self.rows = Rows(self.cache, limits.context)
        self.prefixes: FeatureCache[Tensor] = FeatureCache(prefix_cache_bytes)
        self.graphs = self._make_graphs() if self.can_capture else None

    def load_prefix(self, sequence: Sequence) -> int:
        """Copies the keys and values of a prefix cache hit; how many tokens of the prompt they stand for."""
        prefix = sequence.prefix
        if prefix is None or prefix.key not in self.prefixes:
            return 0
        kept = self.prefixes.get(prefix.key)
        assert kept is not None
        self._hold(sequence, prefix.length)
        self.cache.copy_in(self.rows[sequence], kept)
        return prefix.length

    def prefill(self, sequences: list[Sequence], most: int) -> Tensor:
        """Reads the next (up to `most`) tokens of each prompt; hidden states (B, H) of the last of them."""
        prompts = [self._prompt(sequence) for sequence in sequences]
        pieces = [self._piece(sequence, most) for sequence in sequences]
        places = [slice(piece.place, piece.end) for piece in pieces]
        embeddings = torch.cat([prompt.embeddings[place] for prompt, place in zip(prompts, places, strict=True)])
        ends = on_device([end - 1 for end in accumulate(piece.count for piece in pieces)], self.device)
        numbers = self._adapters.numbers(sequence.adapter for sequence in sequences)
        share = Runs.of(numbers, [piece.count for piece in pieces])
        positions, attention = self._positions(prompts, places), self._attention(pieces)
        last = self.model.language_step(embeddings, positions, attention, ends, share)
        for sequence, piece in zip(sequences, pieces, strict=True):
            self._keep_prefix(sequence, piece)
            if sequence.unread <= most:
                self._states[sequence].prompt = None
        return last

    def decode(self, sequences: list[Sequence]) -> Tensor:
        """Reads the last token of each reply; hidden states (B, H)."""
        for sequence in sequences:
            self._hold(sequence, sequence.length)
        order = sorted(range(len(sequences)), key=lambda number: self._rank(sequences[number]))
        ordered = [sequences[number] for number in order]
        hidden = self._decode([sequence.output_ids[-1] for sequence in ordered], ordered)
        if order == sorted(order):
            return hidden
        places = sorted(range(len(order)), key=order.__getitem__)
        return hidden[on_device(places, self.device)]

    def take_row(self, sequence: Sequence) -> bool:
        """Frees a sequence's row: it is read again, some time. Whether its picture's tokens are still here for that."""
        self.rows.free(sequence)
        state = self._states.setdefault(sequence, DeviceState())
        state.prompt = None
        return sequence.picture is None or state.image_tokens is not None

    def _rank(self, sequence: Sequence) -> tuple[int, int]:
        """Neighbours in the cache become neighbours in the batch."""
        row = self.rows[sequence]
        return (row.size, row.start)

    def _decode(self, ids: list[int], sequences: list[Sequence]) -> Tensor:
        places = [sequence.length - 1 for sequence in sequences]
        shifted = [self._states[sequence].shift for sequence in sequences]
        positions = [place + shift for place, shift in zip(places, shifted, strict=True)]
        rows = [self.rows[sequence] for sequence in sequences]
        numbers = self._adapters.numbers(sequence.adapter for sequence in sequences)
        if self.graphs:
            return self.graphs(ids, places, positions, rows, numbers)
        inputs, at, of = on_device([ids, positions, numbers], self.device)
        pieces = [Piece(row, place) for row, place in zip(rows, places, strict=True)]
        share = share_of_replies(numbers, self.device)
        return self.model.language_step(self._embed(inputs, of), at, self._attention(pieces), share=share)

    def step(self, inputs: Tensor, window: int) -> Tensor:
        """A step of fixed shape: `inputs` (6, B) are the ids, places and positions of the tokens to read, the starts
        and sizes of their rows, and the numbers of their adapters; hidden states (B, H)."""
        ids, places, positions, starts, sizes, numbers = inputs
        share = TokenRows(numbers) if self._adapters else None
        attention: RaggedAttention
        if self.reading == "rows":
            attention = FlashAttention.of_tokens(self.cache, starts, places, window)
        else:
            attention = GatherAttention(self.cache, starts, sizes, places[:, None], window)
        return self.model.language_step(self._embed(ids, numbers), positions, attention, share=share)

    def _embed(self, ids: Tensor, numbers: Tensor) -> Tensor:
        """Embeddings (B, H) of tokens (B,), each from the table of its adapter."""
        embeddings = self.model.embed_tokens(ids)
        for name in self._adapters.owning(Part.WORDS):
            with self._adapters.applied(name):
                own = self.model.embed_tokens(ids)
            embeddings = torch.where((numbers == self._adapters.number(name))[:, None], own, embeddings)
        return embeddings

    def _attention(self, pieces: list[Piece]) -> RaggedAttention:
        if self.reading == "rows":
            return FlashAttention.of_pieces(self.cache, pieces, self.device)
        if self.reading == "copies":
            return gathering(self.cache, pieces, self.device)
        return ViewAttention(self.cache, pieces)

    def _best_reading(self) -> Reading:
        llm, dtype = self.model.config.llm, parameter_dtype(self.model)
        if all(has_kernel(device, dtype, head_width(llm)) for device in self.devices):
            return "rows"
        return "views" if self.devices == [torch.device("cpu")] else "copies"

    def _hold(self, sequence: Sequence, tokens: int) -> None:
        """Raises OutOfMemoryError where there is no room for a row; the engine asks for it before."""
        self._states.setdefault(sequence, DeviceState())
        if not self.rows.reserve(sequence, tokens):
            raise torch.OutOfMemoryError(f"no room for {tokens} tokens in the KV cache")

    def _piece(self, sequence: Sequence, most: int) -> Piece:
        count = min(most, sequence.unread)
        self._hold(sequence, sequence.prefilled + sequence.unread)
        return Piece(self.rows[sequence], sequence.prefilled, count)

    def _positions(self, prompts: list[PromptInputs], places: list[slice]) -> Tensor:
        parts = [p.positions[place] for p, place in zip(prompts, places, strict=True) if p.positions is not None]
        if parts:
            return torch.cat(parts)
        return on_device([number for place in places for number in range(place.start, place.stop)], self.device)

    def _prompt(self, sequence: Sequence) -> PromptInputs:
        """What is read of a sequence: its prompt and, where its row was taken from it, the reply so far."""
        state = self._states.setdefault(sequence, DeviceState())
        if state.prompt is None:
            grids = sequence.picture.grids if sequence.picture else ()
            ids = torch.tensor(sequence.prompt_ids)
            with self._adapters.applied(self._adapters.owner(Part.WORDS, sequence.adapter)):
                state.prompt = self.model.read_prompt(ids, state.image_tokens, grids, self.image_token_id)
                state.shift = state.prompt.shift
                if sequence.resumed:
                    replied = sequence.output_ids[: sequence.resumed]
                    state.prompt = self._with_reply(state.prompt, on_device(replied, self.device))
        return state.prompt

    def _with_reply(self, prompt: PromptInputs, reply: Tensor) -> PromptInputs:
        embeddings, positions = self.model.embed_tokens(reply), prompt.positions
        wide = torch.nn.functional.pad(embeddings, (0, prompt.embeddings.shape[-1] - embeddings.shape[-1]))
        if positions is not None:
            first = len(prompt.embeddings) + prompt.shift
            later = torch.arange(first, first + len(reply), device=positions.device)
            positions = torch.cat([positions, later[:, None].expand(-1, positions.shape[1])])
        return PromptInputs(torch.cat([prompt.embeddings, wide]), positions, prompt.shift)

    def _keep_prefix(self, sequence: Sequence, piece: Piece) -> None:
        """Keeps the beginning of a prompt for others once its row holds all of it."""
        prefix = sequence.prefix
        if prefix and piece.place < prefix.length <= piece.end and self.prefixes.max_bytes:
            self.prefixes.misses += 1
            self.prefixes.put(prefix.key, self.cache.copy_out(self.rows[sequence], prefix.length))

    def _make_graphs(self) -> DecodeGraphs | None:
        """Captures the decode step for every size, unless it turns out that it can't be captured."""
        row = self.rows.arena.take(1)
        assert row is not None
        graphs = DecodeGraphs(self.step, self._limits, row, self.device, copies=self.reading == "copies")
        try:
            with torch.inference_mode():
                graphs.capture_all()
        except RuntimeError as error:
            logger.warning("decoding without CUDA graphs: %s", error)
            return None
        return graphs
