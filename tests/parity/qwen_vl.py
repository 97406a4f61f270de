"""Qwen-VL models for the tests: the recipe of `*_vl_xver.npz`, and checkpoints whose replies wander."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from sa2va_bento.model.loading.weight_names import plan
from sa2va_bento.model.qwen_vl.model import QwenVLSa2VA
from sa2va_bento.model.registry import build_model, parse_config
from tests.parity.goldens import TINY_SAM2, module, write_scripted_checkpoint

VISION: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"depth": 2, "patch_size": 14, "fullatt_block_indexes": [1], "window_size": 112},
    "qwen3_vl": {"depth": 3, "patch_size": 16, "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 2304},
}
TEXT: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    },
    "qwen3_vl": {
        "num_hidden_layers": 3,
        "head_dim": 16,
        "rope_theta": 5e6,
        "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
    },
}


def config_dict(name: str) -> dict[str, Any]:
    """`config.json` of the models of `*_vl_xver.npz`."""
    vision = {"model_type": name, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
    text = {
        "vocab_size": 288,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "bos_token_id": 256,
        "eos_token_id": 258,
    }
    return {
        "architectures": ["Sa2VAChatModelQwen"],
        "vision_config": {**vision, **VISION[name]},
        "text_config": {**text, **TEXT[name]},
        "sa2va_native": {"sam2": TINY_SAM2},
    }


def seeded_model(name: str, keys: list[str]) -> QwenVLSa2VA:
    """The model of `*_vl_xver.npz`, its weights drawn by name; SAM2's stay as torch made them."""
    config = parse_config(config_dict(name))
    model = build_model(config)
    assert isinstance(model, QwenVLSa2VA)
    state, drawn = model.state_dict(), set()
    for place, source in plan([f"model.{key}" for key in keys], config.weight_rules).items():
        state[place].copy_(module("detw").tensor_for(source.names[0], tuple(state[place].shape)))
        drawn.add(place)
    assert drawn == {place for place in state if place.startswith(("visual.", "language_model."))}
    return model.eval().requires_grad_(False)


def write_wandering_checkpoint(name: str, folder: Path) -> Path:
    """A scripted checkpoint with other weights in its language model, drawn by name: its replies depend on all of the
    prompt."""
    path = write_scripted_checkpoint(name, folder) / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    for key, tensor in tensors.items():
        if key.startswith("model."):
            tensors[key] = module("detw").tensor_for(key, tuple(tensor.shape)).to(torch.float32)
    save_file(tensors, path)
    return folder
