"""The language models of the InternVL layout: how each one's published configuration and tensors read in-tree."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from transformers import LlamaConfig, Phi3Config, PreTrainedConfig, Qwen2Config, Qwen3Config

from sa2va_bento.model.config import NOT_MODEL_FIELDS

Fields = dict[str, Any]

Projection = Literal["q", "k", "v"]

SAME_NAMES = (("{rest}", "{rest}"),)

INTERNLM2_RENAMES = (
    ("model.tok_embeddings.{rest}", "model.embed_tokens.{rest}"),
    ("output.{rest}", "lm_head.{rest}"),
    ("model.norm.{rest}", "model.norm.{rest}"),
    ("model.layers.{n}.attention.wo.{rest}", "model.layers.{n}.self_attn.o_proj.{rest}"),
    ("model.layers.{n}.feed_forward.w1.{rest}", "model.layers.{n}.mlp.gate_proj.{rest}"),
    ("model.layers.{n}.feed_forward.w3.{rest}", "model.layers.{n}.mlp.up_proj.{rest}"),
    ("model.layers.{n}.feed_forward.w2.{rest}", "model.layers.{n}.mlp.down_proj.{rest}"),
    ("model.layers.{n}.attention_norm.{rest}", "model.layers.{n}.input_layernorm.{rest}"),
    ("model.layers.{n}.ffn_norm.{rest}", "model.layers.{n}.post_attention_layernorm.{rest}"),
)


@dataclass(frozen=True)
class GroupedHeads:
    """One of the projections in InternLM2's `wqkv`, whose rows (dim 0) are, for each key/value head, its `group`
    query heads, then its key head, then its value head, `width` rows each."""

    role: Projection
    kv_heads: int
    group: int
    width: int

    def take(self, fused: Tensor) -> Tensor:
        heads = fused.unflatten(0, (self.kv_heads, self.group + 2, self.width))
        chosen = {"q": heads[:, :-2], "k": heads[:, -2:-1], "v": heads[:, -1:]}[self.role]
        return chosen.flatten(0, 2).contiguous()

    def shape(self, fused: tuple[int, ...]) -> tuple[int, ...]:
        """The projection's shape, or the whole tensor's where that does not divide into these heads."""
        if fused[:1] != (self.kv_heads * (self.group + 2) * self.width,):
            return fused
        heads = self.kv_heads * (self.group if self.role == "q" else 1)
        return (heads * self.width, *fused[1:])


@dataclass(frozen=True)
class LanguageModel:
    """`config` makes the in-tree configuration; `renames` are names below `language_model.`, published and in-tree;
    `has_wqkv` says that the three projections of attention are one tensor."""

    config: Callable[[Fields], PreTrainedConfig]
    renames: tuple[tuple[str, str], ...] = SAME_NAMES
    has_wqkv: bool = False


def _internlm2(fields: Fields) -> PreTrainedConfig:
    """InternLM2's arithmetic is Llama's. "dynamic" RoPE scaling matters beyond the trained length only, where the
    engine never goes, and the in-tree one asks the device for the largest position at every step: it is left out."""
    scaling = fields.pop("rope_scaling", None) or {"type": "default"}
    kind = "default" if scaling["type"] == "dynamic" else scaling["type"]
    rope = {"rope_type": kind, "rope_theta": fields.pop("rope_theta")}
    if kind != "default" and "factor" in scaling:
        rope["factor"] = scaling["factor"]
    bias = fields.pop("bias", False)
    return LlamaConfig(**fields, attention_bias=bias, rope_parameters=rope)


def _phi3(fields: Fields) -> PreTrainedConfig:
    """Attention spans the whole context: the engine's masks do not slide."""
    return Phi3Config(**{**fields, "sliding_window": None})


LANGUAGE_MODELS: Mapping[str, LanguageModel] = {
    "Qwen2ForCausalLM": LanguageModel(lambda fields: Qwen2Config(**fields)),
    "Qwen3ForCausalLM": LanguageModel(lambda fields: Qwen3Config(**fields)),
    "Phi3ForCausalLM": LanguageModel(_phi3),
    "InternLM2ForCausalLM": LanguageModel(_internlm2, INTERNLM2_RENAMES, has_wqkv=True),
}
"""By published `llm_config.architectures[0]`."""


def language_config(published: Mapping[str, Any]) -> PreTrainedConfig:
    """The in-tree configuration of a published `llm_config`. Raises KeyError when a field is missing."""
    fields = {key: value for key, value in published.items() if key not in NOT_MODEL_FIELDS and value is not None}
    return LANGUAGE_MODELS[published["architectures"][0]].config(fields)
