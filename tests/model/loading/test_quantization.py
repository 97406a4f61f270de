"""8-bit and 4-bit weights of the language model's layers, on the embedded model."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.loading.memory import unfilled, weight_bytes
from sa2va_bento.model.registry import read_config
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import NANO_PATH, Settings
from sa2va_bento.types import Prediction, PredictRequest
from tests.parity.goldens import iou
from tests.serving import ROOT

CPU = Placement(torch.device("cpu"), torch.float32)
QUESTIONS = ("Please segment the red circle.", "What color is the square?", "Please segment the blue square.")


def answers(kind: str) -> list[Prediction]:
    picture = Image.open(Path(ROOT) / "docs" / "shapes.png").convert("RGB")
    predictor = Predictor.load(Settings(quantization=kind, slots=2, context=1024))  # type: ignore[arg-type]
    found = [predictor.predict(PredictRequest(question, picture)) for question in QUESTIONS]
    predictor.close()
    return found


@pytest.fixture(scope="module")
def plain() -> list[Prediction]:
    return answers("none")


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_answers_stay_nearly_the_same(plain: list[Prediction], kind: str) -> None:
    for ours, expected in zip(answers(kind), plain, strict=True):
        assert ours.result == expected.result
        for segment, other in zip(ours.segments, expected.segments, strict=True):
            assert iou(segment.mask, other.mask) > 0.9


@pytest.mark.parametrize(("kind", "share"), [("int8", 1 / 4), ("int4", 1 / 8)])
def test_layers_shrink_and_nothing_else_changes(kind: str, share: float) -> None:
    plain, small = load_model(NANO_PATH, CPU), load_model(NANO_PATH, CPU, kind)  # type: ignore[arg-type]
    kept = small.state_dict()
    for name, tensor in plain.state_dict().items():
        if not (name.startswith("language_model.model.layers.") and name.endswith("proj.weight")):
            assert torch.equal(kept[name], tensor), name
    sizes = [sum(p.numel() * p.element_size() for p in projections(model)) for model in (plain, small)]
    assert sizes[1] / sizes[0] == pytest.approx(share, rel=0.06)


def projections(model: nn.Module) -> list[Tensor]:
    """The weights that are quantised."""
    return [p for n, p in model.named_parameters() if "language_model" in n and n.endswith("proj.weight")]


def test_the_estimate_follows() -> None:
    model = unfilled(read_config(NANO_PATH / "config.json"))
    none, int8, int4 = (weight_bytes(model, 4, kind) for kind in ("none", "int8", "int4"))  # type: ignore[arg-type]
    layers = sum(p.numel() for p in projections(load_model(NANO_PATH, CPU)))
    assert none - int8 == 3 * layers
    assert int4 < int8


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(CheckpointError, match=r"SA2VA_QUANTIZATION=int8 needs bitsandbytes: pip install"):
        load_model(NANO_PATH, CPU, "int8")
