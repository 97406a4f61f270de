"""What only a GPU can show; `make test-gpu`."""

from pathlib import Path

import pytest
import torch

from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest
from tests.parity.goldens import iou, module, write_checkpoint, write_scripted_checkpoint

pytestmark = pytest.mark.gpu


def replies(folder: Path, **settings: object) -> list[str]:
    predictor = Predictor.load(Settings(model_path=str(folder), context=2048, **settings))  # type: ignore[arg-type]
    futures = [predictor.submit(PredictRequest(f"number {n}", max_new_tokens=5 + n)) for n in range(20)]
    answers = [future.result(120).result for future in futures]
    predictor.close()
    return answers


def test_graphs_are_in_use_and_give_the_cpus_tokens(tmp_path: Path) -> None:
    folder = write_checkpoint("qwen2", tmp_path)
    predictor = Predictor.load(Settings(model_path=str(folder), device="cuda", dtype="float32", context=2048))
    assert predictor._runner.graphs is not None
    predictor.close()
    on_gpu = replies(folder, device="cuda", dtype="float32")
    assert on_gpu == replies(folder, device="cpu")


def test_bfloat16_masks_are_the_cpus(tmp_path: Path) -> None:
    folder = write_scripted_checkpoint("qwen2_two", tmp_path)
    request = PredictRequest("Segment both.", module("scripted/inputs").image(160, 120, 3))
    segments = []
    for device, dtype in (("cpu", "float32"), ("cuda", "bfloat16")):
        predictor = Predictor.load(Settings(model_path=str(folder), device=device, dtype=dtype))  # type: ignore[arg-type]
        segments.append(predictor.predict(request).segments)
        predictor.close()
    assert [iou(a.mask, b.mask) > 0.97 for a, b in zip(*segments, strict=True)] == [True, True]
    assert torch.cuda.is_available()
