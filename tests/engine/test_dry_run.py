"""The path of a GPU, walked without one: every stage of every family with tensors that have a device and no content.
A tensor on the wrong device fails, and so does whatever would make the host wait, but for the places where it has to.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sa2va_bento.engine import runner as runner_module
from sa2va_bento.engine import tracker as tracker_module
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.sequence import Prefix, Sequence
from sa2va_bento.engine.tracking import ClipTracking, FramePixels
from sa2va_bento.model.base import Sa2VA
from sa2va_bento.model.config import CheckpointConfig
from sa2va_bento.model.loading.memory import unfilled
from sa2va_bento.model.registry import family_of, parse_config
from sa2va_bento.types import Picture
from tests.parity.goldens import TINY_SAM2, module
from tests.parity.qwen_vl import config_dict

META = torch.device("meta")
IMAGE_TOKEN = 5


def internvl(llm: str, vision: str = "300m", **options: object) -> dict[str, Any]:
    return {**module("tinycfg").sa2va_config(llm, vision), "sa2va_native": {"sam2": TINY_SAM2, **options}}


FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "internvl-qwen2": lambda: internvl("qwen2"),
    "sa2va-i": lambda: internvl("qwen2"),
    "internvl-qwen3": lambda: internvl("qwen3"),
    "internvl-internlm2-6b": lambda: internvl("internlm2", "6b"),
    "internvl-phi3": lambda: internvl("phi3"),
    "qwen2_5_vl": lambda: config_dict("qwen2_5_vl"),
    "qwen3_vl": lambda: config_dict("qwen3_vl"),
}


class NoWaiting(TorchDispatchMode):
    """Fails where the host would wait for the device, and where tensors of both meet (but for numbers)."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal.default")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim}
        name = func.__name__
        moves = name.startswith(("_to_copy", "copy_"))
        if len(devices) > 1 and not moves:
            raise AssertionError(f"{name} of tensors on {sorted(devices)}")
        if "meta" in devices and any(wait in str(func) for wait in self.WAITS):
            raise AssertionError(f"{name} makes the host wait")
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=FAMILIES)
def config(request: pytest.FixtureRequest) -> CheckpointConfig:
    parsed = parse_config(FAMILIES[request.param]())
    parsed.sam2.has_tuned_decoder = request.param == "sa2va-i"  # what loading finds in the weights
    return parsed


@pytest.fixture
def model(config: CheckpointConfig) -> Sa2VA:
    return unfilled(config).to(META).eval()


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what came back to the host, where it is allowed to: next tokens, masks and their scores."""
    shapes: list[tuple[int, ...]] = []

    def to_host(tensor: Tensor) -> np.ndarray:
        shapes.append(tuple(tensor.shape))
        return np.zeros(tuple(tensor.shape), np.float32)

    def to_numbers(tensor: Tensor) -> list[int]:
        return [int(number) for number in to_host(tensor)]

    for place in (runner_module, tracker_module):
        monkeypatch.setattr(place, "to_host", to_host)
        monkeypatch.setattr(place, "to_numbers", to_numbers)
    return shapes


@pytest.fixture
def runner(model: Sa2VA) -> Runner:
    return Runner(model, IMAGE_TOKEN, Limits(slots=4, context=4096, kv_tokens=8192), 2**28, 2**28)


def question(config: CheckpointConfig, seed: int, size: tuple[int, int], seg_id: int = 0) -> Sequence:
    """About a picture of so many pixels."""
    picture = picture_of(config, seed, size)
    ids = (10, *[IMAGE_TOKEN] * picture.all_tokens, *range(20, 30 + seed))
    return Sequence(ids, picture, 9, frozenset(), seg_id=seg_id, prefix=Prefix(picture.key, picture.all_tokens + 1))


def picture_of(config: CheckpointConfig, seed: int, size: tuple[int, int]) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return family_of(config).image_processor(config, Image.fromarray(pixels), (), 2)


def test_every_stage_walks_the_path_of_a_gpu(
    config: CheckpointConfig, runner: Runner, arrived: list[tuple[int, ...]]
) -> None:
    """Two questions of different lengths, in pieces; then one whose beginning is known, and a clip."""
    asked = [question(config, 1, (200, 100)), question(config, 2, (448, 448))]
    with NoWaiting():
        read(runner, asked)
        assert [len(masks) for masks in runner.ground(asked)] == [1, 1]
        known = question(config, 1, (200, 100))
        known.skip(*runner.load_prefixes([known]))
        assert known.prefilled == asked[0].prefix.length  # type: ignore[union-attr]
        read(runner, [known])
        follow(runner)
    assert (2,) in arrived  # a token for each
    side = config.sam2_shape.image_size // 4
    assert (2, side, side) in arrived  # a mask for each
    assert all(tensor.device == META for tensor in runner.kv_cache.keys)


def read(runner: Runner, asked: list[Sequence]) -> None:
    """Encodes, prefills in pieces, decodes three tokens of which the first counts as `[SEG]`."""
    runner.encode([sequence for sequence in asked if not sequence.is_encoded])
    while unread := [sequence for sequence in asked if sequence.unread]:
        for sequence, token in zip(unread, runner.prefill(unread, 100), strict=True):
            sequence.prefilled += min(100, sequence.unread)
            if token is not None:
                sequence.append(token)
    for _ in range(3):
        for sequence, _token in zip(asked, runner.decode(asked), strict=True):
            sequence.append(1)


def follow(runner: Runner) -> None:
    """Two objects through six frames, the first two of which condition."""
    width, side = runner.model.config.sam2_shape.d_model, runner.model.config.sam2_shape.image_size
    clip = ClipTracking(torch.zeros(2, width, device=META), frozenset({0, 1}), lambda frame, masks: None)
    frames = [FramePixels(number, np.zeros((3, side, side), np.float32)) for number in range(6)]
    for part in (frames[:4], frames[4:]):
        assert [len(masks) for masks in runner.track(clip, part)] == [2] * len(part)
    runner.release_clip(clip)


@pytest.mark.parametrize(
    "wait", [lambda t: t.sum().item(), lambda t: t[t > 0], lambda t: t + torch.ones(4), lambda t: t.nonzero()]
)
def test_what_waits_or_mixes_devices_is_noticed(wait: Callable[[Tensor], object]) -> None:
    with NoWaiting(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        wait(torch.ones(4, device=META))
