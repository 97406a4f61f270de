"""LoRA adapters of checkpoints, made by peft."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

PARTS = (
    r"language_model.*\.(q_proj|v_proj|down_proj|wqkv|w2)|mlp1\.1|.*multi_modal_projector\.linear_1"
    r"|text_hidden_fcs\.\d|.*sam_mask_decoder\.transformer.*\.(q_proj|out_proj)|.*sam_mask_decoder\.conv_s0"
    r"|model\.model\..*layers\.0\.self_attn\.k_proj"
)
"""Of the language model, the projector, `text_hidden_fcs` and the mask decoder, as they are called in some family."""


def modules_of(tensors: dict[str, Tensor]) -> nn.Module:
    """A tree of modules with the tensors of a checkpoint: linear ones, convolutions, and whatever else."""
    root = nn.Module()
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        parent = root
        *path, leaf = name.split(".")
        for part in path:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        if leaf in dict(parent.named_children()):
            continue
        parent.add_module(leaf, leaf_of(name, tensors))
    return root


def leaf_of(name: str, tensors: dict[str, Tensor]) -> nn.Module:
    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    if weight is None:
        return nn.Module()
    if name.endswith("embed_tokens"):
        made: nn.Module = nn.Embedding(weight.shape[0], weight.shape[1])
    elif weight.ndim == 2:
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    elif weight.ndim == 4 and name.endswith("conv_s0"):
        made = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=bias is not None)
    else:
        return nn.Module()
    made.load_state_dict({key: t for key, t in (("weight", weight), ("bias", bias)) if t is not None})
    return made


def tuned(
    folder: Path, out: Path, below: str = "", seed: int = 1, size: float = 1.0, **config: Any
) -> dict[str, Tensor]:
    """Saves an adapter of the modules of a checkpoint, or of those below a name, and gives its tensors as merged by
    peft. `size` scales what its factors are drawn with."""
    tensors = load_file(folder / "model.safetensors")
    torch.manual_seed(seed)
    inner = {name.removeprefix(below): tensor for name, tensor in tensors.items() if name.startswith(below)}
    given = {"r": 4, "lora_alpha": 12, "target_modules": PARTS, "init_lora_weights": False, **config}
    model = get_peft_model(modules_of(inner), LoraConfig(**given))  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data *= size
        if "modules_to_save" in name or "magnitude" in name:
            parameter.data += 0.1 * torch.rand_like(parameter)
    model.save_pretrained(str(out), save_embedding_layers=False)
    merged = model.merge_and_unload().state_dict()
    return {**tensors, **{below + name: tensor for name, tensor in merged.items()}}
