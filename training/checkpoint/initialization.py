"""Freshly initialised models of the nano model's shape."""

import math
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.model import InternVLSa2VA
from training.model_config import END_OF_TEXT, END_OF_TURN, PATCH, TILE_SIZE, VIT_HEADS, VIT_WIDTH, config_dict
from training.questions import nano_tokenizer


def nano_config(tokenizer: Tokenizer) -> dict[str, object]:
    ids = {token: nano_tokenizer.token_id(tokenizer, token) for token in (END_OF_TEXT, END_OF_TURN)}
    return config_dict(tokenizer.get_vocab_size(), ids)


def fresh_model(tokenizer: Tokenizer) -> InternVLSa2VA:
    """The model before any stage."""
    return build_model(InternVLConfig.from_dict(nano_config(tokenizer)))


def wordless_model() -> InternVLSa2VA:
    """The same with a stand-in vocabulary: for stages that train an encoder alone."""
    return build_model(InternVLConfig.from_dict(config_dict(64, {END_OF_TEXT: 0, END_OF_TURN: 1})))


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
