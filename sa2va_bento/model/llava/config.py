"""`config.json` of a published Sa2VA checkpoint in the LLaVA-1.5 layout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import CLIPVisionConfig, LlamaConfig

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.chat_template import ChatTemplate, Special
from sa2va_bento.model.config import NOT_MODEL_FIELDS, CheckpointConfig, sam2_config, sam2_shape
from sa2va_bento.model.weight_rules import WeightRules

TILE = 448
"""Side of the square, in pixels, by which the cost of a picture is counted in all families."""

VICUNA = ChatTemplate(
    name="vicuna",
    user_start=("USER: ",),
    user_end=(" ASSISTANT:",),
    assistant_end=(Special("</s>"),),
    stop_words=("</s>",),
    image_start="",
    image_token="<image>",
    image_end="",
    drops_image_words=True,
)
"""Vicuna's, without its system prompt; `<s>` in front is the tokenizer's."""

SUPPORTED = {
    "vision_feature_select_strategy": "default",
    "projector_hidden_act": "gelu",
    "multimodal_projector_bias": True,
}
"""Fields that have one value in published files, which is what the code here computes."""


@dataclass(frozen=True)
class LlavaConfig(CheckpointConfig):
    """A checkpoint in the LLaVA layout. `vision` has the layers of CLIP alone that are read: its features are those of
    the layer that `vision_feature_layer` names, the last but one, and what is behind it computes nothing."""

    vision: CLIPVisionConfig
    layers_stored: int
    """Layers of CLIP in the checkpoint."""

    takes_regions: ClassVar = False
    llm_licence: ClassVar = "Llama 2 Community License (Vicuna)"

    @property
    def family(self) -> str:
        return "llava-llama"

    @property
    def side(self) -> int:
        """Side of a picture as CLIP sees it, in pixels."""
        return int(self.vision.image_size)  # type: ignore[arg-type]

    @property
    def cells_per_side(self) -> int:
        """Image tokens along one side of a picture."""
        return self.side // int(self.vision.patch_size)  # type: ignore[arg-type]

    @property
    def weight_rules(self) -> WeightRules:
        tower = "model.model.vision_tower.vision_model."
        unread = range(self.vision.num_hidden_layers, self.layers_stored)
        return WeightRules(
            renames=(
                (f"{tower}{{rest}}", "vision_tower.{rest}"),
                ("model.model.multi_modal_projector.{rest}", "projector.{rest}"),
                ("model.model.language_model.{rest}", "language_model.model.{rest}"),
                ("model.lm_head.{rest}", "language_model.lm_head.{rest}"),
            ),
            unused=tuple(f"{tower}encoder.layers.{layer}.{{rest}}" for layer in unread),
        )

    @property
    def vision_shape(self) -> tuple[int, int]:
        return self.vision.num_hidden_layers, self.vision.hidden_size

    @property
    def elements_per_tile(self) -> int:
        return self.cells_per_side**2 * self.vision.intermediate_size

    def largest_picture(self, max_tiles: int | None = None) -> tuple[int, int]:
        """Every picture is one square."""
        return 1, self.cells_per_side**2

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "LlavaConfig":
        """Builds the configuration. Raises CheckpointError naming what is unsupported; KeyError, TypeError or
        ValueError where it is no configuration of this layout."""
        _refuse_unsupported(raw)
        shape = sam2_shape(raw.get("sa2va_native") or {})
        stored, vision = _vision_config(raw["vision_config"], raw.get("vision_feature_layer", -2))
        return cls(
            llm=_text_config(raw),
            sam2=sam2_config(shape),
            sam2_shape=shape,
            chat_template=VICUNA,
            raw=raw,
            vision=vision,
            layers_stored=stored,
        )


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    for name, expected in {**SUPPORTED, "template": VICUNA.name}.items():
        if raw.get(name, expected) != expected:
            raise CheckpointError(f"{name}={raw[name]!r} is not supported (supported: {expected!r})")
    for part, known in (("text_config", "llama"), ("vision_config", "clip_vision_model")):
        if (found := raw[part].get("model_type", known)) != known:
            raise CheckpointError(f"{part}.model_type {found} is not supported (supported: {known})")


def _vision_config(published: Mapping[str, Any], feature_layer: int) -> tuple[int, CLIPVisionConfig]:
    """The layers that are stored, and the configuration of those that are read."""
    vision = CLIPVisionConfig(**{key: published[key] for key in _model_fields(published) if key != "vocab_size"})
    stored = vision.num_hidden_layers
    read = feature_layer if feature_layer >= 0 else stored + 1 + feature_layer
    if not 0 < read <= stored:
        raise ValueError(f"vision_feature_layer {feature_layer} of {stored} layers")
    vision.num_hidden_layers = read
    return stored, vision


def _text_config(raw: Mapping[str, Any]) -> LlamaConfig:
    """A published `text_config` has only what differs from the in-tree defaults, which are Llama-7B's."""
    fields = {key: raw["text_config"][key] for key in _model_fields(raw["text_config"])}
    fields["vocab_size"]
    rope = {"rope_type": "default", **(fields.pop("rope_scaling", None) or {})}
    rope["rope_theta"] = fields.pop("rope_theta", 10000.0)
    llm = LlamaConfig(**fields, rope_parameters=fields.pop("rope_parameters", rope))
    llm.tie_word_embeddings = bool(raw.get("tie_word_embeddings", False))
    return llm


def _model_fields(published: Mapping[str, Any]) -> list[str]:
    dropped = (*NOT_MODEL_FIELDS, "transformers_version", "pretraining_tp")
    return [key for key, value in published.items() if key not in dropped and value is not None]
