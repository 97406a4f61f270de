"""Checkpoints that were saved as InternVL's code wraps them: LoRA beside the weights, the rank in `config.json`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from sa2va_bento.cli.main import main
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.checkpoint import Placement, inspect, load_model
from tests.adapters import modules_of
from tests.parity.goldens import write_scripted_checkpoint

CPU = Placement(torch.device("cpu"), torch.float32)
LAYERS = ["q_proj", "o_proj", "gate_proj", "down_proj"]
VISION = ["qkv", "proj", "fc1", "fc2"]
RANK = 4


def wrapped(tensors: dict[str, Tensor], part: str, targets: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A part's tensors as its LoRA is saved with it, and as peft merges them."""
    below = f"{part}."
    inner = {name.removeprefix(below): tensor for name, tensor in tensors.items() if name.startswith(below)}
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets, init_lora_weights=False)
    model = get_peft_model(modules_of(inner), config)  # type: ignore[arg-type]
    known = model.state_dict()
    others = {name: tensor for name, tensor in inner.items() if not any(name in key for key in known)}
    saved = {f"{below}{name}": tensor.clone() for name, tensor in known.items()}
    for name, tensor in inner.items():
        if f"base_model.model.{name}" not in known and not any(key.endswith(_based(name)) for key in known):
            saved[f"{below}base_model.model.{name}"] = tensor
    merged = model.merge_and_unload().state_dict()
    return saved, {below + name: tensor.clone() for name, tensor in {**inner, **others, **merged}.items()}


def _based(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{module}.base_layer.{leaf}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_scripted_checkpoint("qwen2_one", tmp_path / "base")


def written(base: Path, out: Path, tensors: dict[str, Tensor], **fields: Any) -> Path:
    out.mkdir()
    for file in base.iterdir():
        if file.suffix != ".safetensors":
            (out / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, **fields}))
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, out / "model.safetensors")
    return out


@pytest.mark.parametrize(
    ("part", "targets", "flag"),
    [("language_model", LAYERS, "use_llm_lora"), ("vision_model", VISION, "use_backbone_lora")],
)
def test_it_loads_as_what_peft_merges(part: str, targets: list[str], flag: str, base: Path, tmp_path: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    saved, merged = wrapped(tensors, part, targets)
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{part}.")}
    folder = written(base, tmp_path / "wrapped", {**others, **saved}, **{flag: RANK})
    ours = load_model(folder, CPU).state_dict()
    expected = load_model(written(base, tmp_path / "merged", {**others, **merged}), CPU).state_dict()
    plain = load_model(base, CPU).state_dict()
    assert any(not torch.allclose(ours[name], plain[name], atol=1e-3) for name in ours)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=0, msg=name)
    assert inspect(folder).tensors == len(tensors)
    assert main(["check", str(folder)]) == 0


def test_factors_that_the_configuration_knows_nothing_of_are_refused(base: Path, tmp_path: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    saved, _ = wrapped(tensors, "language_model", LAYERS)
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith("language_model.")}
    folder = written(base, tmp_path / "a", {**others, **saved})
    with pytest.raises(CheckpointError, match=r"lora_A.* is LoRA's, and config.json says use_llm_lora=0: its scale"):
        load_model(folder, CPU)
    lost = {name: tensor for name, tensor in saved.items() if "layers.0.self_attn.q_proj.lora_B" not in name}
    folder = written(base, tmp_path / "b", {**others, **lost}, use_llm_lora=RANK)
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.q_proj\.weight, to which LoRA adds, has A alone"):
        load_model(folder, CPU)


def test_a_merged_checkpoint_may_still_say_so(base: Path, tmp_path: Path) -> None:
    folder = written(base, tmp_path / "a", load_file(base / "model.safetensors"), use_llm_lora=128)
    assert load_model(folder, CPU).state_dict().keys() == load_model(base, CPU).state_dict().keys()
