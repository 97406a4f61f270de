"""LoRA adapters made by peft: merged as they are loaded, they give what peft's own merge gives."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from sa2va_bento.cli.main import main
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.adapter import Adapter
from sa2va_bento.model.loading.checkpoint import Placement, inspect, load_model
from sa2va_bento.predictor import Predictor
from sa2va_bento.predictor.loading import read_adapter
from sa2va_bento.settings import Settings
from sa2va_bento.types import PredictRequest
from tests.adapters import tuned
from tests.fake_hub import serve, use
from tests.parity.goldens import write_scripted_checkpoint
from tests.pictures import quarters

CPU = Placement(torch.device("cpu"), torch.float32)
FAMILIES = ("qwen2_one", "internlm2_one", "qwen3_vl_one", "llava_one", "qwen3_vl_sam3_one", "sasasa2va_three")
BASES: dict[str, Path] = {}


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name: str = request.param
    if name not in BASES:
        BASES[name] = write_scripted_checkpoint(name, tmp_path_factory.mktemp(name))
    return BASES[name]


@pytest.fixture
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "qwen2_one" not in BASES:
        BASES["qwen2_one"] = write_scripted_checkpoint("qwen2_one", tmp_path_factory.mktemp("qwen2_one"))
    return BASES["qwen2_one"]


def assert_merges(folder: Path, adapter: Path, merged: dict[str, Tensor], tmp_path: Path) -> None:
    """Loading base and adapter is loading what peft has merged; and that is not the base."""
    whole = tmp_path / "whole"
    whole.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (whole / file.name).write_bytes(file.read_bytes())
    save_file({name: tensor.contiguous().clone() for name, tensor in merged.items()}, whole / "model.safetensors")
    ours = load_model(folder, CPU, adapter=Adapter.read(adapter)).state_dict()
    expected, base = load_model(whole, CPU).state_dict(), load_model(folder, CPU).state_dict()
    changed = [name for name in ours if not torch.equal(expected[name], base[name])]
    assert changed
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=0, msg=name)


def test_every_family_takes_what_peft_made_of_its_published_names(base: Path, tmp_path: Path) -> None:
    merged = tuned(base, tmp_path / "adapter")
    assert_merges(base, tmp_path / "adapter", merged, tmp_path)
    inspected = inspect(base, adapter=Adapter.read(tmp_path / "adapter"))
    assert inspected.tensors > 100


@pytest.mark.parametrize(
    "config",
    [
        {"use_rslora": True},
        {"use_dora": True, "target_modules": r"language_model.*\.(q_proj|v_proj)|mlp1\.1"},
        {"rank_pattern": {"mlp1.1": 2}, "alpha_pattern": {"text_hidden_fcs.0": 30, r"layers\.1\..*q_proj": 5}},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["lm_head", "text_hidden_fcs.2"], "target_modules": ["q_proj"]},
        {"bias": "all", "target_modules": ["mlp1.1", "v_proj"]},
    ],
    ids=["rslora", "dora", "patterns", "embedding", "modules_to_save", "bias"],
)
def test_what_else_peft_does_with_lora(config: dict[str, Any], qwen2: Path, tmp_path: Path) -> None:
    assert_merges(qwen2, tmp_path / "adapter", tuned(qwen2, tmp_path / "adapter", **config), tmp_path)


def test_an_adapter_of_the_language_model_alone(qwen2: Path, tmp_path: Path) -> None:
    merged = tuned(qwen2, tmp_path / "adapter", "language_model.", target_modules=["q_proj", "up_proj"])
    saved = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.layers.") for name in saved)
    assert_merges(qwen2, tmp_path / "adapter", merged, tmp_path)


def test_an_adapter_of_the_in_tree_modules(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """InternLM2's projections are one tensor in its files and three in the model."""
    if "internlm2_one" not in BASES:
        BASES["internlm2_one"] = write_scripted_checkpoint("internlm2_one", tmp_path_factory.mktemp("internlm2_one"))
    model = load_model(BASES["internlm2_one"], CPU)
    torch.manual_seed(0)
    parts = r"language_model.*\.(k_proj|o_proj)|grounding_encoder\.mask_decoder.*\.v_proj"
    wrapped = get_peft_model(
        model,  # type: ignore[arg-type]
        LoraConfig(r=2, target_modules=parts, init_lora_weights=False),  # type: ignore[arg-type]
    )
    wrapped.save_pretrained(str(tmp_path))
    expected = wrapped.merge_and_unload().state_dict()
    ours = load_model(BASES["internlm2_one"], CPU, adapter=Adapter.read(tmp_path)).state_dict()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=0, msg=name)


def test_the_service_answers_with_its_adapter(qwen2: Path, tmp_path: Path) -> None:
    tuned(qwen2, tmp_path / "adapter", target_modules=["text_hidden_fcs.0", "text_hidden_fcs.2"])
    request = PredictRequest("Please segment the red disc.", quarters())
    masks = []
    for adapter in (None, str(tmp_path / "adapter")):
        predictor = Predictor.load(Settings(model_path=str(qwen2), adapter=adapter))
        masks.append(predictor.predict(request).segments[0].mask)
        predictor.close()
    assert (masks[0] != masks[1]).any()


def test_an_adapter_comes_from_the_hub_and_check_knows_it(
    qwen2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(qwen2, tmp_path / "adapter", target_modules=["text_hidden_fcs.0", "text_hidden_fcs.2"])
    with serve(tmp_path / "adapter") as hub:
        use(monkeypatch, hub.url, tmp_path / "cache")
        monkeypatch.setenv("SA2VA_ADAPTER", hub.model)
        assert main(["check", str(qwen2)]) == 0
        assert f"adapter   {hub.model}: LoRA of rank 4, changes 2 tensors\n" in capsys.readouterr().out
        found = read_adapter(Settings(adapter=hub.model))
        assert found
        assert found.tensors == 2
        monkeypatch.setenv("SA2VA_ADAPTER", "nobody/knows")
        assert main(["check", str(qwen2)]) == 1
        assert "model 'nobody/knows' does not exist on the Hub" in capsys.readouterr().err
    monkeypatch.setenv("SA2VA_ADAPTER", str(tmp_path / "nothing"))
    assert main(["check", str(qwen2)]) == 1
    assert "SA2VA_ADAPTER" in capsys.readouterr().err


def edited(adapter: Path, **fields: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "IA3"}, "IA3 is not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base, too"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is not supported"),
        ({"r": None}, "no readable adapter_config.json"),
    ],
)
def test_other_adapters_are_refused(fields: dict[str, Any], said: str, qwen2: Path, tmp_path: Path) -> None:
    tuned(qwen2, tmp_path, target_modules=["q_proj"])
    edited(tmp_path, **fields)
    with pytest.raises(CheckpointError, match=re.escape(said)):
        Adapter.read(tmp_path)


def test_an_adapter_of_another_model_is_named(qwen2: Path, tmp_path: Path) -> None:
    tuned(qwen2, tmp_path, "language_model.", target_modules=["q_proj"])
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    first = sorted(tensors)[0]
    save_file({**tensors, first: torch.zeros(4, 7)}, path)
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.q_proj\.weight does not go with a weight of"):
        load_model(qwen2, CPU, adapter=Adapter.read(tmp_path))
    save_file({name.replace("layers.0", "layers.7"): tensor for name, tensor in tensors.items()}, path)
    with pytest.raises(CheckpointError, match=r"the checkpoint has no .*layers\.7\.self_attn\.q_proj\.weight"):
        inspect(qwen2, adapter=Adapter.read(tmp_path))
    save_file({name: tensor for name, tensor in tensors.items() if "lora_B" not in name}, path)
    with pytest.raises(CheckpointError, match="has A alone"):
        load_model(qwen2, CPU, adapter=Adapter.read(tmp_path))
    path.write_bytes(b"x" * 64)
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        Adapter.read(tmp_path)


def test_pickles_are_never_read(qwen2: Path, tmp_path: Path) -> None:
    tuned(qwen2, tmp_path, target_modules=["q_proj"])
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickle is never loaded"):
        Predictor.load(Settings(model_path=str(qwen2), adapter=str(tmp_path)))
    for name in ("iter_500.pth", "missing.pth"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run/iter_500.pth").write_bytes(b"")
        for given in (tmp_path / "run" / name, tmp_path / "run"):
            with pytest.raises(CheckpointError, match=r"convert_to_hf\.py CONFIG\.py --pth-model"):
                Predictor.load(Settings(model_path=str(given)))
            with pytest.raises(CheckpointError, match=r"convert_to_hf\.py CONFIG\.py --pth-model"):
                Predictor.load(Settings(model_path=str(qwen2), adapter=str(given)))
