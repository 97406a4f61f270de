"""Whatever runs beside a request, its answer is the same: batched against one by one, on random weights whose replies
wander (tokens) and on a scripted checkpoint (masks)."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config

from sa2va_bento.engine.arena import Row
from sa2va_bento.engine.feature_cache import FeatureCache
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.sampler import SamplingBatch, choose
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.errors import DeviceLostError, NotReadyError, OverloadedError
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import Prediction, PredictRequest, Sampling, Turn
from tests.parity.goldens import module, write_checkpoint, write_scripted_checkpoint

WORDS = ("what", "is", "the", "red", "disc", "near", "a", "blue", "bar", "and", "how", "many", "are", "there", "please")


def requests() -> list[PredictRequest]:
    """Thirty different ones: with and without a picture, short and long prompts and replies, greedy and drawn."""
    rng = random.Random(0)
    pictures = [module("scripted/inputs").image(64 + 32 * n, 80, n) for n in range(3)]
    made = []
    for number in range(30):
        history = tuple(Turn(role, " ".join(WORDS * 2)) for role in ("user", "assistant")) if number % 7 == 0 else ()
        made.append(
            PredictRequest(
                prompt=" ".join(rng.choices(WORDS, k=rng.randint(1, 30))),
                image=pictures[number % 3] if number % 4 == 0 else None,
                history=history,
                max_tiles=1,
                max_new_tokens=rng.randint(1, 25),
                sampling=Sampling(temperature=1.0, top_p=0.9, seed=number) if number % 5 == 0 else Sampling(),
            )
        )
    return made


@pytest.fixture(scope="module")
def wandering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("qwen2", tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def alone(wandering: Path) -> list[Prediction]:
    predictor = Predictor.load(
        Settings(model_path=str(wandering), slots=1, feature_cache_mb=0, prefix_cache_mb=0, context=2048)
    )
    answers = [predictor.predict(request) for request in requests()]
    predictor.close()
    return answers


@pytest.fixture(scope="module")
def crowd(wandering: Path) -> Iterator[Predictor]:
    """Few slots, prompts in small pieces, features kept: as much as possible can go wrong."""
    settings = Settings(model_path=str(wandering), slots=5, max_prefill=96, context=2048)
    predictor = Predictor.load(settings)
    yield predictor
    predictor.close()


def test_the_replies_are_worth_comparing(alone: list[Prediction]) -> None:
    assert len({answer.result for answer in alone}) > 25
    assert len({answer.usage.completion_tokens for answer in alone}) > 10


@pytest.mark.parametrize("seed", [1, 2])
def test_shuffled_arrivals_give_the_same_answers(alone: list[Prediction], crowd: Predictor, seed: int) -> None:
    order = random.Random(seed).sample(range(30), 30)
    futures = {number: crowd.submit(requests()[number]) for number in order}
    for number, future in futures.items():
        answer = future.result(60)
        assert (answer.result, answer.usage) == (alone[number].result, alone[number].usage)
    assert crowd._runner.prefix_cache.hits > 0


def test_cancellations_in_the_middle_disturb_nobody(alone: list[Prediction], crowd: Predictor) -> None:
    futures = [crowd.submit(request) for request in requests()]
    futures[0].result(60)  # the others are waiting, being read or being answered
    cancelled = {number for number in (3, 4, 9, 14, 20, 29) if futures[number].cancel()}
    assert cancelled
    for number, future in enumerate(futures):
        if number not in cancelled:
            assert future.result(60).result == alone[number].result
    crowd.predict(PredictRequest("and now?", max_new_tokens=2))  # by then the engine has dropped the others
    assert crowd.queue_depth == 0
    assert not crowd._runner.language.rows
    assert not crowd._runner._states


def test_beyond_the_queue_requests_are_refused_at_once_and_taken_again_later(wandering: Path) -> None:
    predictor = Predictor.load(Settings(model_path=str(wandering), slots=1, max_queue=2, context=2048))
    accepted = [predictor.submit(PredictRequest("tell me", max_new_tokens=200)) for _ in range(3)]  # one runs
    with pytest.raises(OverloadedError) as refusal:
        predictor.submit(PredictRequest("and me"))
    assert (refusal.value.status, refusal.value.retry_after_s) == (503, 1)
    assert not any(future.done() for future in accepted)
    for future in accepted:
        future.result(60)
    assert predictor.predict(PredictRequest("now me", max_new_tokens=2)).result
    predictor.close()


def test_a_device_that_is_gone_fails_what_it_had_and_ends_liveness(wandering: Path) -> None:
    predictor = Predictor.load(Settings(model_path=str(wandering), context=2048))
    assert predictor.is_alive

    def lost(sequences: list[Sequence]) -> list[int]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    predictor._runner.decode = lost
    predictor._runner.is_device_alive = lambda: False
    with pytest.raises(DeviceLostError):
        predictor.submit(PredictRequest("tell me")).result(60)
    with pytest.raises(NotReadyError):
        predictor.submit(PredictRequest("and me")).result(60)
    assert not predictor.is_alive
    assert not predictor.is_ready
    predictor.close()


def test_the_same_seed_gives_the_same_reply_and_another_gives_another(crowd: Predictor) -> None:
    drawn = [
        crowd.predict(PredictRequest("tell me", sampling=Sampling(1.5, 1.0, seed), max_new_tokens=20)).result
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_stop_string_ends_the_reply_and_is_not_part_of_it(alone: list[Prediction], crowd: Predictor) -> None:
    number, request = next((n, r) for n, r in enumerate(requests()) if len(alone[n].result) > 20)
    whole = alone[number].result
    stop = whole[8:10]
    answer = crowd.predict(PredictRequest(**{**vars(request), "stop": ("never", stop)}))
    assert answer.result == whole[: whole.find(stop)].strip()
    assert answer.finish_reason == "stop"


def test_masks_in_a_crowd_are_those_of_a_request_alone(tmp_path: Path) -> None:
    folder = write_scripted_checkpoint("qwen2_two", tmp_path)
    pictures = [module("scripted/inputs").image(90 + 10 * n, 70, n) for n in range(3)]
    asked = [PredictRequest("Segment both.", pictures[n % 3], max_tiles=1) for n in range(6)]
    single = Predictor.load(Settings(model_path=str(folder), slots=1, feature_cache_mb=0, prefix_cache_mb=0))
    expected = [single.predict(request) for request in asked[:3]]
    single.close()
    many = Predictor.load(Settings(model_path=str(folder)))
    futures = [many.submit(request) for request in asked]
    for number, future in enumerate(futures):
        masks = [segment.mask for segment in future.result(60).segments]
        assert len(masks) == 2
        for mask, other in zip(masks, expected[number % 3].segments, strict=True):
            assert (mask != other.mask).mean() < 1e-4
    assert (len(many._runner.sam_features), many._runner.sam_features.misses) == (3, 3)  # each encoded once
    many.close()


def test_choosing_the_next_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]]).log_softmax(-1).repeat(4, 1)
    rows = SamplingBatch(
        temperature=torch.tensor([0.0, 1.0, 1.0, 1.0]),
        top_p=torch.tensor([1.0, 1e-6, 0.7, 1.0]),
        uniform=torch.tensor([0.99, 0.99, 0.99, 0.999999]),
    )
    assert choose(logits, None).tolist() == [1, 1, 1, 1]
    assert choose(logits, rows).tolist() == [1, 1, 3, 0]


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.1, 0.2, 0.7]).log().repeat(1000, 1)
    uniform = (torch.arange(1000) + 0.5) / 1000
    drawn = choose(logits, SamplingBatch(torch.ones(1000), torch.ones(1000), uniform))
    assert drawn.bincount().tolist() == [100, 200, 700]


def test_the_feature_cache_forgets_what_was_used_longest_ago() -> None:
    cache: FeatureCache[torch.Tensor] = FeatureCache(max_bytes=3 * 40)
    for key in "abc":
        cache.put(key, torch.zeros(10))
    assert cache.get("a") is not None
    cache.put("d", torch.zeros(10))
    assert [key in cache for key in "abcd"] == [True, False, True, True]
    cache.put("huge", torch.zeros(1000))
    assert "huge" not in cache
    assert cache.bytes == 120
    assert (cache.hits, cache.misses) == (1, 0)
    assert cache.get("b") is None
    assert cache.misses == 1


def test_rows_move_with_their_content() -> None:
    config = Qwen2Config(hidden_size=8, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2)
    cache = KVCache(config, 30, torch.float32, torch.device("cpu"))
    cache.rows(cache.keys[1], Row(20, 10))[0, :, :4] = 7.0
    cache.move(Row(20, 10), Row(0, 20), 4)
    assert np.array_equal(cache.rows(cache.keys[1], Row(0, 20))[0, 0, :, 0], [7] * 4 + [0] * 16)
