"""Tensor names of the InternVL layout: InternViT, the projector and the language model."""

from transformers import PreTrainedConfig

from sa2va_bento.model.internvl.language_models import GroupedHeads, LanguageModel
from sa2va_bento.model.weight_rules import Chunk, Fused, WeightRules

VIT, LANGUAGE = "vision_model", "language_model"

VIT_RENAMES = (
    ("embeddings.class_embedding", "embeddings.cls_token"),
    ("embeddings.patch_embedding.{rest}", "embeddings.patch_embeddings.projection.{rest}"),
    ("embeddings.position_embedding", "embeddings.position_embeddings"),
    ("encoder.layers.{n}.ls1", "encoder.layer.{n}.lambda_1"),
    ("encoder.layers.{n}.ls2", "encoder.layer.{n}.lambda_2"),
    ("encoder.layers.{n}.norm1.{rest}", "encoder.layer.{n}.layernorm_before.{rest}"),
    ("encoder.layers.{n}.norm2.{rest}", "encoder.layer.{n}.layernorm_after.{rest}"),
    ("encoder.layers.{n}.attn.proj.{rest}", "encoder.layer.{n}.attention.projection_layer.{rest}"),
    ("encoder.layers.{n}.attn.q_norm.{rest}", "encoder.layer.{n}.attention.q_norm.{rest}"),
    ("encoder.layers.{n}.attn.k_norm.{rest}", "encoder.layer.{n}.attention.k_norm.{rest}"),
    ("encoder.layers.{n}.mlp.{rest}", "encoder.layer.{n}.mlp.{rest}"),
)

_ATTENTION = f"{VIT}.encoder.layer.{{n}}.attention"
_LAYER = f"{LANGUAGE}.model.layers.{{n}}"

VISION = WeightRules(
    renames=(*((f"{VIT}.{a}", f"{VIT}.{b}") for a, b in VIT_RENAMES), ("mlp1.{rest}", "mlp1.{rest}")),
    fused=(
        Fused(
            f"{VIT}.encoder.layers.{{n}}.attn.qkv.{{rest}}",
            {f"{_ATTENTION}.{part}_proj.{{rest}}": Chunk(i, 3) for i, part in enumerate("qkv")},
        ),
    ),
)
SAME_LANGUAGE = WeightRules(renames=((f"{LANGUAGE}.{{rest}}", f"{LANGUAGE}.{{rest}}"),))
"""Of a language model whose names are the same on both sides."""


def weight_rules(language: LanguageModel, llm: PreTrainedConfig) -> WeightRules:
    """The rules of a checkpoint with that language model."""
    renames = tuple((f"{LANGUAGE}.{a}", f"{LANGUAGE}.{b}") for a, b in language.renames)
    return VISION | WeightRules(renames, (_wqkv(llm),) if language.has_wqkv else ())


def _wqkv(llm: PreTrainedConfig) -> Fused:
    """InternLM2's projections of attention, which are one tensor."""
    kv_heads, width = llm.num_key_value_heads, llm.hidden_size // llm.num_attention_heads
    group = llm.num_attention_heads // kv_heads
    parts = {
        f"{_LAYER}.self_attn.{role}_proj.{{rest}}": GroupedHeads(role, kv_heads, group, width)
        for role in ("q", "k", "v")
    }
    return Fused(f"{_LAYER}.attention.wqkv.{{rest}}", parts)
