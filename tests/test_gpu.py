"""What only a GPU can show; `make test-gpu`."""

from pathlib import Path

import pytest
import torch

from sa2va_bento.engine.flash import FlashAttention
from sa2va_bento.engine.kv_cache import KVCache
from sa2va_bento.engine.ragged import Piece
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest
from tests.engine.test_rows import as_the_kernel, fill, pieces_of, small_cache
from tests.parity.goldens import iou, module, scripted, write_checkpoint, write_scripted_checkpoint
from tests.parity.test_http import GOLDENS, check_answers
from tests.parity.test_video_http import check_clips
from tests.serving import client_of

pytestmark = pytest.mark.gpu


def loaded(folder: Path, **settings: object) -> Predictor:
    return Predictor.load(Settings(model_path=str(folder), context=8192, **settings))  # type: ignore[arg-type]


def replies(folder: Path, **settings: object) -> list[str]:
    predictor = loaded(folder, **settings)
    futures = [predictor.submit(PredictRequest(f"number {n}", max_new_tokens=5 + n)) for n in range(20)]
    answers = [future.result(120).result for future in futures]
    predictor.close()
    return answers


def test_graphs_are_in_use_and_give_the_cpus_tokens(tmp_path: Path) -> None:
    folder = write_checkpoint("qwen2", tmp_path)
    predictor = loaded(folder, device="cuda", dtype="float32")
    assert predictor._runner.graphs is not None
    predictor.close()
    on_gpu = replies(folder, device="cuda", dtype="float32")
    assert on_gpu == replies(folder, device="cpu")


@pytest.mark.parametrize("kind", ["decode", "new", "mixed"])
@pytest.mark.parametrize("width", [64, 128])
def test_the_kernel_computes_what_it_is_documented_to(kind: str, width: int) -> None:
    """In bfloat16, against float32 on the CPU."""
    pieces, tokens = pieces_of(kind)
    count, device = sum(piece.count for piece in pieces), torch.device("cuda")
    torch.manual_seed(0)
    query, key, value = (torch.randn(count, heads, width).bfloat16() for heads in (14, 2, 2))
    expected = attended(small_cache(tokens, True, width), pieces, query, key, value, torch.device("cpu"))
    found = attended(small_cache(tokens, True, width, device), pieces, query, key, value, device)
    assert (found - expected).norm() < 1e-2 * expected.norm()


def attended(
    cache: KVCache,
    pieces: list[Piece],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    fill(cache, pieces)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    cache.keys, cache.values = ([buffer.bfloat16().to(dtype) for buffer in part] for part in (cache.keys, cache.values))
    attention = FlashAttention.of_pieces(cache, pieces, device)
    with pytest.MonkeyPatch.context() as patch:
        if device.type == "cpu":
            patch.setattr("sa2va_bento.engine.flash.varlen_attention", as_the_kernel)
        query, key, value = (part.to(device, dtype) for part in (query, key, value))
        return attention.attend(0, query, key, value, 0.3).float().cpu()


@pytest.mark.parametrize(("dtype", "reading", "least"), [("auto", "rows", 0.9), ("float32", "copies", 0.999)])
@pytest.mark.parametrize("name", GOLDENS)
def test_every_family_is_served_with_graphs(name: str, dtype: str, reading: str, least: float, tmp_path: Path) -> None:
    """The goldens, in the number format that the service chooses and in the CPU's."""
    predictor = loaded(write_scripted_checkpoint(name, tmp_path), device="cuda", dtype=dtype)
    assert predictor._runner.graphs is not None
    assert predictor._runner.language.reading == reading
    with client_of(predictor) as client:
        check_answers(name, client, least)


@pytest.mark.parametrize("name", ["qwen2_two", "qwen3_vl_one", "qwen3_vl_sam3_two", "sasasa2va_three"])
def test_clips_are_followed(name: str, tmp_path: Path) -> None:
    assert any("video" in case for case in scripted(name)["cases"])
    with client_of(loaded(write_scripted_checkpoint(name, tmp_path), device="cuda", dtype="float32")) as client:
        check_clips(name, client, 0.99)


def test_bfloat16_masks_are_the_cpus(tmp_path: Path) -> None:
    folder = write_scripted_checkpoint("qwen2_two", tmp_path)
    request = PredictRequest("Segment both.", module("scripted/inputs").image(160, 120, 3))
    segments = []
    for device, dtype in (("cpu", "float32"), ("cuda", "bfloat16")):
        predictor = loaded(folder, device=device, dtype=dtype)
        segments.append(predictor.predict(request).segments)
        predictor.close()
    assert [iou(a.mask, b.mask) > 0.97 for a, b in zip(*segments, strict=True)] == [True, True]
    assert torch.cuda.is_available()
