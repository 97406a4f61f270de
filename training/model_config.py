"""The nano model's shape: its `config.json` in the published layout, and a freshly initialised model of that shape."""

import math
from typing import Any

import torch
from torch import nn

from sa2va_bento.model.config import InternVLConfig
from sa2va_bento.model.internvl import InternVLSa2VA

VIT_WIDTH, VIT_LAYERS, VIT_HEADS = 128, 6, 4
LLM_WIDTH, LLM_LAYERS, LLM_HEADS, LLM_KV_HEADS, LLM_MLP = 192, 6, 6, 2, 512
SAM_WIDTH = 128
TILE_SIZE, PATCH = 224, 14
IMAGE_TOKENS = (TILE_SIZE // PATCH // 2) ** 2
CELLS = TILE_SIZE // PATCH // 2  # cells along a side: an image token covers 28 x 28 pixels of the tile
MAX_POSITIONS = 4096


def config_dict(vocab_size: int, token_ids: dict[str, int]) -> dict[str, Any]:
    """`config.json` for a vocabulary of `vocab_size`; `token_ids` gives `<|endoftext|>` and `<|im_end|>`."""
    return {
        "architectures": ["Sa2VAChatModel"],
        "model_type": "sa2va_chat",
        "dtype": "bfloat16",
        "template": "qwen_chat",
        "select_layer": -1,
        "force_image_size": TILE_SIZE,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "dynamic_image_size": True,
        "use_thumbnail": False,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 1,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "vision_config": _vision(),
        "llm_config": _language(vocab_size, token_ids),
        "sa2va_native": {
            "sam2": {
                "image_size": 256,
                "d_model": SAM_WIDTH,
                "embed_dim": 32,
                "num_heads": 1,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_spec": [8, 4, 16, 8],
                "window_pos_embed_bkg_spatial_size": [7, 7],
                "memory_attention_layers": 2,
                "memory_attention_dim_feedforward": 512,
                "mask_decoder_mlp_dim": 512,
            },
            "tiles": {"image_size": TILE_SIZE, "max": 1, "thumbnail": False},
        },
    }


def _vision() -> dict[str, Any]:
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_size": VIT_WIDTH,
        "intermediate_size": 4 * VIT_WIDTH,
        "num_attention_heads": VIT_HEADS,
        "num_hidden_layers": VIT_LAYERS,
        "image_size": TILE_SIZE,
        "patch_size": PATCH,
        "qkv_bias": True,
        "qk_normalization": False,
        "norm_type": "layer_norm",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "initializer_factor": 0.1,
    }


def _language(vocab_size: int, token_ids: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": vocab_size,
        "hidden_size": LLM_WIDTH,
        "intermediate_size": LLM_MLP,
        "num_hidden_layers": LLM_LAYERS,
        "num_attention_heads": LLM_HEADS,
        "num_key_value_heads": LLM_KV_HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": token_ids["<|endoftext|>"],
        "eos_token_id": token_ids["<|im_end|>"],
    }


def build_model(config: InternVLConfig, seed: int = 0) -> InternVLSa2VA:
    """A model to train from scratch. The in-tree initialisation is meant for large models; a small one learns sooner
    from weights that keep the variance of what flows through."""
    torch.manual_seed(seed)
    model = InternVLSa2VA(config)
    for part in (model.vision_model, model.mlp1, model.language_model, model.text_hidden_fcs, model.grounding_encoder):
        part.apply(_initialise)
    for name, parameter in model.named_parameters():
        if ".lambda_" in name:
            nn.init.constant_(parameter, 0.5)
        if name.endswith(("position_embeddings", "pos_embed", "pos_embed_window", "cls_token", "no_memory_embedding")):
            nn.init.normal_(parameter, std=0.02)
    with torch.no_grad():
        vision: Any = model.vision_model
        vision.embeddings.position_embeddings[0, 1:] = _waves(TILE_SIZE // PATCH, VIT_WIDTH)
        for layer in vision.encoder.layer:
            _attend_to_alike(layer.attention, VIT_HEADS)
    return model


def _attend_to_alike(attention: Any, heads: int) -> None:
    """Mimetic initialisation (Trockman and Kolter, 2023): queries meet keys that are alike in content and place, and
    values pass through with their sign turned, as in trained transformers. A small ViT then sees outlines sooner."""
    width: int = attention.q_proj.weight.shape[0]
    depth = width // heads
    for head in range(heads):
        rows = slice(head * depth, (head + 1) * depth)
        left, size, right = torch.linalg.svd(
            0.7 * torch.randn(width, width) / math.sqrt(width) + 0.7 * torch.eye(width)
        )
        root = size[:depth].sqrt()[:, None]
        attention.q_proj.weight[rows] = root * left[:, :depth].T
        attention.k_proj.weight[rows] = root * right[:depth]
    left, size, right = torch.linalg.svd(0.4 * torch.randn(width, width) / math.sqrt(width) - 0.4 * torch.eye(width))
    attention.v_proj.weight.copy_(size.sqrt()[:, None] * right)
    attention.projection_layer.weight.copy_(left * size.sqrt())


def _waves(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of a grid's rows and columns (side * side, width): from these, nearness is easy to learn."""
    angles = torch.arange(side)[:, None] * math.pi / 2 ** torch.linspace(0, 5, width // 4)
    line = 0.5 * torch.cat([angles.sin(), angles.cos()], -1)  # (side, width / 2)
    return torch.cat([line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)], -1).flatten(0, 1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.05)


def parameter_counts(model: nn.Module) -> dict[str, float]:
    """Millions of parameters of each part."""
    return {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in model.named_children()}
