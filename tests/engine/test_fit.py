"""Memory that fits itself: what is chosen on a device of any size, and what is said where nothing fits."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import config_of
from sa2va_bento.engine.fit import Device, Fit, fit
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.memory import GIB, Measures, kv_elements, measures_of, unfilled, weight_bytes
from sa2va_bento.model.loading.published import PUBLISHED
from sa2va_bento.model.loading.quantization import Quantization
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest
from tests.parity.goldens import write_checkpoint

LARGE = next(known for known in PUBLISHED if known.model == "ByteDance/Sa2VA-8B")
SIZES: dict[Quantization, int] = {"none": LARGE.weights(2), "int8": 9 * GIB, "int4": 6 * GIB}


def measures(max_tiles: int | None) -> Measures:
    """The 8B's, whose pictures have a thumbnail more than tiles."""
    tiles = min(max_tiles or 12, 12)
    tiles += tiles > 1
    return Measures(32**2 * 4096, 14336, 32, LARGE.language.kv, 4, tiles, 256 * tiles, 32768)


def on(gib: float, **settings: object) -> Fit:
    device = Device(int(gib * GIB), 2, gathers=True)
    return fit(Settings(**settings), measures, SIZES.__getitem__, device)  # type: ignore[arg-type]


@pytest.mark.parametrize("gib", [16.45, 16.8, 18, 19, 20, 24, 40, 80, 140])
def test_what_is_chosen_fits_and_leaves_room_for_the_largest_picture(gib: float) -> None:
    found = on(gib)
    assert found.needed.total <= gib * GIB
    assert found.limits.context >= 13 * 256 + 512
    assert found.limits.kv_tokens >= found.limits.context
    assert 1 <= found.limits.slots <= 64


def test_more_memory_holds_more() -> None:
    found = [on(gib).limits for gib in (16.5, 17, 18, 20, 24, 40, 80)]
    for few, many in pairwise(found):
        assert few.kv_tokens < many.kv_tokens
        assert few.slots <= many.slots
        assert few.context <= many.context
    assert found[-1].context == 8192 + 2048  # the longest prompt and reply that the settings allow


def test_what_is_set_is_kept_and_cut_where_it_does_not_fit() -> None:
    found = on(80, slots=5, context=2000, kv_tokens=8000, feature_cache_mb=100, prefix_cache_mb=0).limits
    assert (found.slots, found.context, found.kv_tokens) == (5, 2000, 8000)
    assert (found.feature_cache_bytes, found.prefix_cache_bytes) == (100 * 2**20, 0)
    small = on(17, slots=16, context=8192).limits
    assert small.slots == 16
    assert small.context == small.kv_tokens < 8192


def test_pictures_are_encoded_in_smaller_batches_where_memory_is_short() -> None:
    few, many = on(17).limits, on(80).limits
    assert (few.max_tiles, few.max_images) == (13, 1)
    assert (many.max_tiles, many.max_images) == (16, 8)


@pytest.mark.parametrize(
    ("gib", "settings", "remedy"),
    [
        (
            17,
            {"feature_cache_mb": 2000},
            "SA2VA_FEATURE_CACHE_MB=auto and SA2VA_PREFIX_CACHE_MB=auto would make it fit",
        ),
        (16.2, {}, "SA2VA_MAX_TILES=6 would make it fit"),
        (16, {}, "SA2VA_MAX_TILES=1 would make it fit"),
        (12, {}, "SA2VA_QUANTIZATION=int8 would make it fit"),
        (8, {}, "SA2VA_QUANTIZATION=int4 would make it fit"),
        (2, {}, "no setting makes it fit"),
    ],
)
def test_a_refusal_names_what_would_help(gib: float, settings: dict[str, object], remedy: str) -> None:
    with pytest.raises(CheckpointError, match=r"one request alone needs \d+\.\d\d GiB \(weights .*\), of the device"):
        on(gib, **settings)
    with pytest.raises(CheckpointError, match=remedy):
        on(gib, **settings)


def test_the_remedy_works() -> None:
    assert on(16, max_tiles=1).needed.total <= 16 * GIB
    assert on(12, quantization="int8").limits.slots >= 1


def test_the_arithmetic_is_that_of_the_buffers() -> None:
    """What a cache takes is what it was estimated to take."""
    config = config_of("tiny")
    weights = weight_bytes(unfilled(config), 4, "none")
    found = fit(
        Settings(context=1000, slots=3),
        lambda most: measures_of(config, most),
        lambda _: weights,
        Device(3 * GIB, 4, False),
    )
    cache = KVCache(config.llm, found.limits.kv_tokens, torch.float32, torch.device("cpu"))
    assert cache.bytes == found.needed.kv_cache == 4 * kv_elements(config) * found.limits.kv_tokens


def test_published_measures_are_those_of_a_real_configuration() -> None:
    known = next(known for known in PUBLISHED if known.model == "ByteDance/Sa2VA-1B")
    config = config_of("1b")
    assert known.measures == measures_of(config)
    assert known.weights(2) == pytest.approx(weight_bytes(unfilled(config), 2, "none"), rel=0.01)
    quantised = weight_bytes(unfilled(config), 2, "none") - weight_bytes(unfilled(config), 2, "int8")
    assert quantised == known.language.projections


def test_a_service_starts_in_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much memory as one request needs is enough to start, and to answer."""
    folder = write_checkpoint("qwen2", tmp_path)
    monkeypatch.setattr("sa2va_bento.model.loading.memory.free_memory", lambda device: 10 * 2**20)
    with pytest.raises(CheckpointError, match=r"one request alone needs .* of cpu 0\.01 GiB can be had: .* too little"):
        Predictor.load(Settings(model_path=str(folder)))
    monkeypatch.setattr("sa2va_bento.model.loading.memory.free_memory", lambda device: 450 * 2**20)
    predictor = Predictor.load(Settings(model_path=str(folder), max_tiles=1))
    limits = predictor._runner.limits
    assert limits.kv_tokens < 16 * limits.context
    assert predictor.predict(PredictRequest("tell me", max_new_tokens=3)).usage.completion_tokens == 3
    predictor.close()
