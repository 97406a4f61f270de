"""Phi-3 in the InternVL layout. No published checkpoint has it; it is compared with transformers' own generation."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sa2va_bento.engine.limits import Limits
from sa2va_bento.engine.runner import Runner
from sa2va_bento.engine.sequence import Sequence
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.loading.checkpoint import Placement, load_model
from sa2va_bento.model.loading.weight_names import to_published
from sa2va_bento.predictor import Predictor
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest
from tests.parity.goldens import GOLDEN, TINY_SAM2, module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights in the published layout."""
    folder = tmp_path_factory.mktemp("phi3")
    config = {**module("tinycfg").sa2va_config("phi3", "300m"), "sa2va_native": {"sam2": TINY_SAM2}}
    torch.manual_seed(0)
    model = InternVLSa2VA(InternVLConfig.from_dict(config))
    tensors = {
        name: tensor.contiguous().clone()
        for name, tensor in to_published(model.state_dict(), model.config.weight_rules).items()
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    for file in (GOLDEN / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


@torch.inference_mode()
def test_replies_are_transformers_own(folder: Path) -> None:
    model = load_model(folder, Placement(torch.device("cpu"), torch.float32))
    assert isinstance(model, InternVLSa2VA)
    runner = Runner(model, 5, Limits(slots=2, context=256))
    prompt = tuple(torch.randint(10, 250, (60,), generator=torch.Generator().manual_seed(1)).tolist())
    sequence = Sequence(prompt, None, 20, frozenset({-1}), seg_id=-2)
    (token,) = runner.prefill([sequence], sequence.unread)
    sequence.prefilled = len(prompt)
    while token is not None and len(sequence.output_ids) < 20:
        sequence.append(token)
        (token,) = runner.decode([sequence])
    ids = torch.tensor([prompt])
    whole = model.language_model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    assert sequence.output_ids == whole[0, len(prompt) :].tolist()


def test_it_answers_about_a_picture(folder: Path) -> None:
    predictor = Predictor.load(Settings(model_path=str(folder), slots=1, context=1024))
    answer = predictor.predict(PredictRequest("What is this?", module("inputs").img(448, 448, 11), max_new_tokens=4))
    predictor.close()
    assert answer.usage.completion_tokens >= 1
    assert answer.usage.prompt_tokens > 256
