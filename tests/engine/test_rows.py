"""Rows of the KV cache: an arena that is never wrong about who has what, and memory that serves twice the requests."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen2Config

from sa2va_bento.engine.arena import SMALLEST_ROW, Arena, Row, row_size
from sa2va_bento.engine.flash import FlashAttention
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.language import Reading
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.ragged import Piece, ViewAttention, gathering
from sa2va_bento.engine.rows import AHEAD, Rows
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest, Sampling
from tests.engine.test_batching import requests, wandering

__all__ = ["wandering"]

CPU = torch.device("cpu")


@pytest.mark.parametrize("tokens", [1, 128, 129, 192, 193, 256, 257, 1000, 4096, 8000])
def test_a_row_is_large_enough_and_not_much_larger(tokens: int) -> None:
    size = row_size(tokens, 8192)
    assert tokens <= size <= max(SMALLEST_ROW, 1.5 * tokens)


def test_rows_are_of_few_sizes_and_no_longer_than_a_context() -> None:
    assert {row_size(tokens, 3000) for tokens in range(1, 3001)} == {
        128,
        192,
        256,
        384,
        512,
        768,
        1024,
        1536,
        2048,
        3000,
    }


@pytest.mark.parametrize("seed", range(5))
def test_no_place_is_given_twice_and_none_is_lost(seed: int) -> None:
    rng, arena, held = random.Random(seed), Arena(5000), list[Row]()
    for _ in range(2000):
        if held and rng.random() < 0.5:
            arena.give_back(held.pop(rng.randrange(len(held))))
        elif row := arena.take(rng.randint(1, 400)):
            held.append(row)
        places = [place for row in held for place in range(row.start, row.end)]
        assert len(places) == len(set(places)) == arena.used
        assert not places or max(places) < 5000
    for row in held:
        arena.give_back(row)
    assert arena.take(5000) == Row(0, 5000)


def small_cache(tokens: int, by_token: bool = False, width: int = 8, device: torch.device = CPU) -> KVCache:
    config = Qwen2Config(hidden_size=4 * width, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1)
    return KVCache(config, tokens, torch.float32, device, by_token)


def of_length(tokens: int) -> Sequence:
    return Sequence((1,) * tokens, None, 10, frozenset())


def test_a_row_grows_with_its_content() -> None:
    rows = Rows(cache := small_cache(2000), 1000)
    sequence, other = of_length(100), of_length(50)
    assert rows.reserve(sequence, 100)
    assert rows.reserve(other, 50)
    cache.rows(cache.keys[0], rows[sequence])[0, :, :100] = 5.0
    before = rows[sequence]
    assert rows.reserve(sequence, before.size + 1)
    assert rows[sequence] != before
    assert (cache.rows(cache.keys[0], rows[sequence])[0, :, :100] == 5.0).all()
    assert rows.arena.used == rows[sequence].size + rows[other].size


def test_where_there_is_no_room_the_row_stays_as_it_was() -> None:
    rows = Rows(small_cache(600), 512)
    first, second = of_length(10), of_length(10)
    assert rows.reserve(first, 300)
    row = rows[first]
    assert not rows.reserve(second, 500)
    assert not rows.reserve(first, 512)
    assert rows[first] == row
    assert second not in rows
    rows.free(first)
    assert rows.reserve(second, 500)


def test_rows_hold_twice_the_requests_of_mixed_lengths_in_the_same_bytes() -> None:
    """Lengths as of the published models: questions about pictures of 1 to 13 tiles, or none, of 256 tokens each."""
    rng, context = random.Random(0), 8192
    cache = small_cache(16 * context)
    rows, held = Rows(cache, context), 0
    while rows.reserve(of_length(1), 256 * rng.choice((0, 1, 1, 2, 3, 5, 7, 13)) + rng.randint(60, 700)):
        held += 1
    whole_contexts = small_cache(context).bytes  # what a request took before, whatever its length
    assert held * whole_contexts >= 2 * cache.bytes
    assert held >= 60


def pieces_of(kind: str) -> tuple[list[Piece], int]:
    """Pieces of one token, of many, of new prompts and of all together, in rows of different sizes."""
    rows = [Row(0, 128), Row(128, 128), Row(256, 128), Row(600, 192), Row(900, 128)]
    if kind == "decode":
        return [Piece(row, place) for row, place in zip(rows, (5, 100, 0, 150, 127), strict=True)], 1100
    if kind == "new":
        return [Piece(row, 0, count) for row, count in zip(rows, (7, 1, 30, 190, 2), strict=True)], 1100
    counts = ((5, 1), (0, 20), (40, 3), (90, 100), (0, 1))
    return [Piece(row, place, count) for row, (place, count) in zip(rows, counts, strict=True)], 1100


@pytest.mark.parametrize("most", [2**16, 600])
@pytest.mark.parametrize("kind", ["decode", "new", "mixed"])
def test_rows_copies_and_views_are_read_alike(kind: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch, and in several where one would copy too much."""
    monkeypatch.setattr("sa2va_bento.engine.ragged.GATHERED", most)
    pieces, tokens = pieces_of(kind)
    count = sum(piece.count for piece in pieces)
    torch.manual_seed(0)
    query, key, value = torch.randn(count, 4, 8), torch.randn(count, 2, 8), torch.randn(count, 2, 8)
    found, caches = [], []
    monkeypatch.setattr("sa2va_bento.engine.flash.varlen_attention", as_the_kernel)
    for make in (
        lambda c: ViewAttention(c, pieces),
        lambda c: gathering(c, pieces, CPU),
        lambda c: FlashAttention.of_pieces(c, pieces, CPU),
    ):
        cache = small_cache(tokens, by_token=len(caches) == 2)
        fill(cache, pieces)
        found.append(make(cache).attend(0, query, key, value, 0.3))
        caches.append(cache)
    expected = reference(caches[0], pieces, query)
    assert all(torch.allclose(results, expected, atol=1e-5) for results in found)
    for piece in pieces:
        contents = [cache.rows(cache.keys[0], piece.row) for cache in caches]
        assert torch.equal(contents[0], contents[1])
        assert torch.equal(contents[0], contents[2])


def fill(cache: KVCache, pieces: list[Piece]) -> None:
    """The same in each row, however it lies."""
    torch.manual_seed(1)
    for buffer in (cache.keys[0], cache.values[0]):
        for piece in pieces:
            view = cache.rows(buffer, piece.row)
            view.copy_(torch.randn(view.shape))


def as_the_kernel(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    firsts: torch.Tensor,
    bounds: torch.Tensor,
    ends: torch.Tensor,
    longest: int,
    window: int,
    scale: float,
) -> torch.Tensor:
    """What the GPU's kernel is documented to compute; that it does, `tests/test_gpu.py` shows."""
    results: list[torch.Tensor] = []
    for number, (start, end) in enumerate(zip(bounds[:-1].tolist(), ends.tolist(), strict=True)):
        asked = query[firsts[number] : firsts[number + 1]].transpose(0, 1)
        k, v = (states[start : start + end].transpose(0, 1) for states in (keys, values))
        assert asked.shape[1] <= longest
        assert end <= window
        seen = torch.ones(asked.shape[1], end).tril(end - asked.shape[1]).bool()
        found = scaled_dot_product_attention(asked[None], k[None], v[None], seen, scale=scale, enable_gqa=True)[0]
        results.append(found.transpose(0, 1))
    return torch.cat(results)


def reference(cache: KVCache, pieces: list[Piece], query: torch.Tensor) -> torch.Tensor:
    """Token by token, in so many words."""
    results, number = [], 0
    for piece in pieces:
        keys, values = (cache.rows(buffer, piece.row)[0] for buffer in (cache.keys[0], cache.values[0]))
        for place in range(piece.place, piece.end):
            for head in range(4):
                k, v = keys[head // 2, : place + 1], values[head // 2, : place + 1]
                results.append(((k @ query[number, head]) * 0.3).softmax(0) @ v)
            number += 1
    return torch.stack(results).view(-1, 4, 8)


def long_replies() -> list[PredictRequest]:
    """Of up to 300 tokens, with a picture or none, greedy and drawn."""
    return [
        replace(request, max_new_tokens=300, sampling=Sampling(1.0, 0.9, seed=number) if number % 3 else Sampling())
        for number, request in enumerate(requests()[:12])
    ]


@pytest.mark.parametrize("reading", ["views", "copies", "rows"])
def test_pre_emption_changes_no_answer(wandering: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for two long requests, and twelve that want some; some are cancelled."""
    single = Predictor.load(Settings(model_path=str(wandering), slots=1, prefix_cache_mb=0, context=1024))
    alone = [single.predict(request) for request in long_replies()]
    single.close()
    settings = Settings(model_path=str(wandering), slots=12, max_prefill=96, context=1024, kv_tokens=2200)
    predictor = Predictor.load(settings)
    runner, preempted = predictor._runner, list[int]()
    runner.language.reading = reading
    runner.kv_cache._by_token = reading == "rows"
    monkeypatch.setattr("sa2va_bento.engine.flash.varlen_attention", as_the_kernel)
    preempt = runner.preempt
    runner.preempt = lambda one: (preempted.append(len(one.output_ids)), preempt(one))[1]  # type: ignore[method-assign]
    order = random.Random(3).sample(range(12), 12)
    futures = {number: predictor.submit(long_replies()[number]) for number in order}
    cancelled = {number for number in (5, 9) if futures[number].cancel()}
    for number in set(futures) - cancelled:
        answer = futures[number].result(120)
        assert (answer.result, answer.usage) == (alone[number].result, alone[number].usage)
    predictor.predict(replace(requests()[1], max_new_tokens=1))  # by then the engine has dropped the others
    predictor.close()
    assert max(preempted) > 1
    assert runner.language.rows.arena.used == 0


def test_limits_hold_one_context_at_least() -> None:
    assert Limits(slots=2, context=100).kv_tokens == 200
    assert AHEAD < SMALLEST_ROW
