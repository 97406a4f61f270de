"""What the runner does when a computation fails, on the embedded model."""

import numpy as np
import pytest
import torch

from sa2va_bento.engine import runner as runner_module
from sa2va_bento.engine.feature_cache import size_of
from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.settings import NANO_PATH
from sa2va_bento.types import Picture, Pixels, TokenGrid

CPU = torch.device("cpu")


@pytest.fixture
def runner() -> Runner:
    return Runner(load_model(NANO_PATH, Placement(CPU, torch.float32)), 5, Limits(slots=2, context=128))


def read(runner: Runner) -> Sequence:
    """A sequence whose reply's first token is one that it takes for `[SEG]`."""
    sequence = Sequence(tuple(range(20, 29)), None, 9, frozenset({-1}))
    (token,) = runner.prefill([sequence], sequence.unread)
    assert token is not None
    sequence.prefilled, sequence.seg_id = len(sequence.prompt_ids), token
    sequence.append(token)
    return sequence


def test_a_step_that_is_taken_again_finds_its_segs_once(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence, choose = read(runner), runner_module.choose

    def fail(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(runner_module, "choose", fail)
    with pytest.raises(torch.OutOfMemoryError):
        runner.decode([sequence])
    monkeypatch.setattr(runner_module, "choose", choose)
    assert runner.decode([sequence])
    assert len(runner._states[sequence].seg_hidden) == 1


def test_kept_features_hold_no_others_memory(runner: Runner) -> None:
    side = runner.model.config.tiles.image_size  # type: ignore[attr-defined]
    runner.tile_features.max_bytes = 2**30

    def picture(key: str) -> Picture:
        pixels = np.zeros((1, 3, side, side), np.float32)
        return Picture(key, key, 1, Pixels(lambda: pixels), Pixels(lambda: pixels[0]), (TokenGrid(1, 1),))

    runner.encode([Sequence((5,), picture(key), 1, frozenset()) for key in "abc"])
    for key in "abc":
        kept = runner.tile_features.get(key)
        assert kept is not None
        assert kept.untyped_storage().nbytes() == size_of(kept)


class Ones:
    """`torch.ones` on devices of which some fail."""

    def __init__(self, failures: dict[torch.device, Exception]) -> None:
        self.failures = failures

    def __call__(self, size: int, device: torch.device) -> torch.Tensor:
        if device in self.failures:
            raise self.failures[device]
        return torch.full((size,), 1.0)


@pytest.mark.parametrize(
    ("failure", "is_alive"),
    [
        (None, True),
        (torch.OutOfMemoryError("full"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_a_device_lives_while_it_computes_or_is_only_full(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, failure: Exception | None, is_alive: bool
) -> None:
    monkeypatch.setattr(torch, "ones", Ones({CPU: failure} if failure else {}))
    assert runner.is_device_alive() is is_alive


def test_every_device_of_a_spread_model_is_asked(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    other = torch.device("meta")
    runner.devices.append(other)
    monkeypatch.setattr(torch, "ones", Ones({other: RuntimeError("CUDA error: device lost")}))
    assert not runner.is_device_alive()
