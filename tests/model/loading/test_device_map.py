"""One model over several devices: who gets what, and that hooks change no answer. Real GPUs are for `make test-gpu`."""

import re

import pytest
import torch
from torch import nn

from benchmarks.gpu import published_config
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.loading.device_map import Share, decoder_layers, device_of, layer_devices, map_devices
from sa2va_bento.model.loading.memory import GIB, Workload, estimate, measures_of, unfilled, weight_bytes
from sa2va_bento.model.registry import parse_config
from sa2va_bento.settings import NANO_PATH

CPU = torch.device("cpu")
GPUS = [torch.device("cuda", number) for number in range(4)]
LARGE = {
    **published_config("1b"),
    "template": "internlm2_chat",
    "vision_config": {
        "hidden_size": 3200, "intermediate_size": 12800, "num_attention_heads": 25, "num_hidden_layers": 45,
        "image_size": 448, "patch_size": 14, "qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm",
        "layer_norm_eps": 1e-6, "hidden_act": "gelu",
    },
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"], "vocab_size": 92553, "hidden_size": 6144, "bias": False,
        "intermediate_size": 16384, "num_hidden_layers": 48, "num_attention_heads": 48, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "hidden_act": "silu", "max_position_embeddings": 32768,
    },
}  # fmt: skip
"""Sa2VA-26B's shape."""


@pytest.fixture(scope="module")
def large() -> tuple[nn.Module, Share]:
    config = parse_config(LARGE)
    model = unfilled(config)
    needed = estimate(measures_of(config), weight_bytes(model, 2, "none"), 2, Workload(8, 8192, 1024, 13, 2, 2**29))
    return model, Share.of(needed, weight_bytes(model, 2, "none", "language_model.model.layers.0."), 48)


def test_sa2va_26b_is_as_large_as_it_is_known_to_be(large: tuple[nn.Module, Share]) -> None:
    assert weight_bytes(large[0], 2, "none") / 2e9 == pytest.approx(25.78, rel=0.01)
    assert len(decoder_layers(large[0])) == 48


def test_pictures_and_masks_stay_on_the_first_and_layers_go_on_in_order(large: tuple[nn.Module, Share]) -> None:
    model, share = large
    parts = map_devices(model, share, {gpu: int(24 * GIB) for gpu in GPUS})
    layers = {name: gpu for name, gpu in parts.items() if ".layers." in name}
    assert all(gpu == GPUS[0] for name, gpu in parts.items() if name not in layers)
    assert list(layers.values()) == sorted(layers.values(), key=lambda gpu: gpu.index)
    assert len(set(layers.values())) >= 3
    assert all(re.fullmatch(r"language_model\.model\.layers\.\d+", name) for name in layers)  # none is split
    for gpu in GPUS[1:]:
        assert list(layers.values()).count(gpu) * share.layer + share.anywhere <= 24 * GIB
    for name, _ in model.named_parameters():
        assert device_of(name, parts) in GPUS


def test_what_fits_on_one_stays_there(large: tuple[nn.Module, Share]) -> None:
    assert set(map_devices(*large, {GPUS[0]: int(200 * GIB), GPUS[1]: int(200 * GIB)}).values()) == {GPUS[0]}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((24, 24), r"of 48 layers \(\d\.\d\d GiB each with its cache\) \d+ fit; GiB free: cuda:0 24"),
        ((8, 80), "cuda:0 has"),
    ],
)
def test_devices_that_are_too_small_are_refused_with_the_numbers(
    large: tuple[nn.Module, Share], sizes: tuple[int, ...], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        map_devices(*large, {gpu: int(size * GIB) for gpu, size in zip(GPUS, sizes, strict=False)})


def test_a_spread_model_answers_as_a_whole_one() -> None:
    placement = Placement(CPU, torch.float32)
    whole = load_model(NANO_PATH, placement)
    share = Share(together=0, layer=1, layers=len(decoder_layers(whole)), anywhere=0)
    spread = load_model(NANO_PATH, placement, parts=map_devices(whole, share, {CPU: share.layers}))
    assert sum(hasattr(layer, "_hf_hook") for _, layer in decoder_layers(spread)) == len(decoder_layers(spread))
    assert replies(spread) == replies(whole)


def replies(model: nn.Module) -> list[list[int]]:
    runner = Runner(model, 5, Limits(slots=2, context=128))  # type: ignore[arg-type]
    found = []
    for start in (20, 30):
        sequence = Sequence(tuple(range(start, start + 9)), None, 12, frozenset({-1}), seg_id=-2)
        (token,) = runner.prefill([sequence], sequence.unread)
        sequence.prefilled = len(sequence.prompt_ids)
        while token is not None and len(sequence.output_ids) < 12:
            sequence.append(token)
            (token,) = runner.decode([sequence])
        found.append(sequence.output_ids)
    return found


def test_each_layers_cache_is_where_the_layer_is() -> None:
    model = load_model(NANO_PATH, Placement(CPU, torch.float32))
    layers = decoder_layers(model)
    assert layer_devices(model) == [CPU] * len(layers)
    layers[2][1].to("meta")
    runner = Runner(model, 5, Limits(slots=2, context=128))
    places = ["meta" if number == 2 else "cpu" for number in range(len(layers))]
    assert [keys.device.type for keys in runner.kv_cache.keys] == places
    assert runner.graphs is None
