"""`config.json` of a published Sa2VA checkpoint in the Qwen-VL layout.

The vision tower and the language model are those of Qwen2.5-VL or Qwen3-VL; which of the two, the vision tower's
`model_type` says. Older files keep the language model's fields at the top instead of in `text_config`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args

from transformers import Qwen2_5_VLTextConfig, Qwen3VLTextConfig
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig

from sa2va_bento.model.chat_template import CHATML, ChatTemplate, Special
from sa2va_bento.model.config import NOT_MODEL_FIELDS, CheckpointConfig, sam2_config, sam2_shape
from sa2va_bento.model.weight_rules import WeightRules

KindName = Literal["qwen2_5_vl", "qwen3_vl"]
TILE = 448
"""Side of the square, in pixels, by which the cost of a picture is counted in all families."""
MOST_PIXELS = 2048 * 28**2
"""Of a picture, as Sa2VA resizes it."""


@dataclass(frozen=True)
class Kind:
    """What differs between the two. `mean` and `std` are the published `preprocessor_config.json`'s.

    `reads_seg_before_norm`: Qwen3-VL was trained under a version of transformers that gave the last layer's output
    before the final norm as its last hidden state; Qwen2.5-VL's was always the one after it.
    """

    vision: Callable[..., Qwen2_5_VLVisionConfig | Qwen3VLVisionConfig]
    text: type[Qwen2_5_VLTextConfig | Qwen3VLTextConfig]
    chat_template: ChatTemplate
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    reads_seg_before_norm: bool


_CHAT = replace(
    CHATML,
    image_start="<|vision_start|>",
    image_token="<|image_pad|>",
    image_end="<|vision_end|>",
    between_images="",
    drops_image_words=True,
)

KINDS: Mapping[KindName, Kind] = {
    "qwen2_5_vl": Kind(
        vision=Qwen2_5_VLVisionConfig,
        text=Qwen2_5_VLTextConfig,
        chat_template=replace(
            _CHAT,
            name="qwen2_5_vl",
            start=(Special("<|im_start|>"), "system\nYou are a helpful assistant.", Special("<|im_end|>"), "\n"),
        ),
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        reads_seg_before_norm=False,
    ),
    "qwen3_vl": Kind(
        vision=Qwen3VLVisionConfig,
        text=Qwen3VLTextConfig,
        chat_template=replace(_CHAT, name="qwen3_vl"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        reads_seg_before_norm=True,
    ),
}

RENAMES = (
    # transformers 4.52 and later
    ("model.model.visual.{rest}", "visual.{rest}"),
    ("model.model.language_model.norm.{rest}", "language_model.norm.{rest}"),
    ("model.model.language_model.{rest}", "language_model.model.{rest}"),
    # before it
    ("model.visual.{rest}", "visual.{rest}"),
    ("model.model.norm.{rest}", "language_model.norm.{rest}"),
    ("model.model.{rest}", "language_model.model.{rest}"),
    ("model.lm_head.{rest}", "language_model.lm_head.{rest}"),
)
"""Published and in-tree names of tensors."""


@dataclass(frozen=True)
class QwenVLConfig(CheckpointConfig):
    """A checkpoint in the Qwen-VL layout."""

    name: KindName
    vision: Qwen2_5_VLVisionConfig | Qwen3VLVisionConfig

    takes_regions: ClassVar = False

    @property
    def weight_rules(self) -> WeightRules:
        return WeightRules(RENAMES)

    @property
    def vision_shape(self) -> tuple[int, int]:
        layers = getattr(self.vision, "depth", None) or self.vision.num_hidden_layers
        return layers, self.vision.hidden_size

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def family(self) -> str:
        return self.name.replace("2_5", "2.5").replace("_", "-")

    @property
    def patch(self) -> int:
        """Side of a patch, in pixels."""
        return int(self.vision.patch_size)  # type: ignore[arg-type]

    @property
    def cell(self) -> int:
        """Side of the square that one image token stands for, in pixels."""
        return self.patch * self.vision.spatial_merge_size

    @property
    def deep_layers(self) -> int:
        """Layers of the language model that image features are added to (DeepStack), beside its input."""
        return len(getattr(self.vision, "deepstack_visual_indexes", ()))

    @property
    def elements_per_tile(self) -> int:
        return (TILE // self.patch) ** 2 * max(self.vision.intermediate_size, 3 * self.vision.hidden_size)

    def largest_picture(self, max_tiles: int | None = None) -> tuple[int, int]:
        most = min(MOST_PIXELS, max_tiles * TILE**2) if max_tiles else MOST_PIXELS
        return math.ceil(most / TILE**2), most // self.cell**2

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "QwenVLConfig":
        """Builds the configuration. Raises KeyError, TypeError or ValueError where it is no configuration of this
        layout."""
        name = _kind_name(raw["vision_config"])
        shape = sam2_shape(raw.get("sa2va_native") or {})
        llm = _text_config(KINDS[name].text, raw)
        llm.tie_word_embeddings = bool(raw.get("tie_word_embeddings") or getattr(llm, "tie_word_embeddings", False))
        return cls(
            llm=llm,
            sam2=sam2_config(shape),
            sam2_shape=shape,
            chat_template=KINDS[name].chat_template,
            raw=raw,
            name=name,
            vision=KINDS[name].vision(**_model_fields(raw["vision_config"])),
        )


def _kind_name(vision: Mapping[str, Any]) -> KindName:
    published = str(vision["model_type"]).removesuffix("_vision")
    for name in get_args(KindName):
        if published == name:
            return name
    raise ValueError(f"vision_config.model_type {published} is not supported (supported: {', '.join(KINDS)})")


def _text_config(kind: type[Qwen2_5_VLTextConfig | Qwen3VLTextConfig], raw: Mapping[str, Any]) -> Any:
    """Attention spans the whole context: the engine's masks do not slide."""
    known = {field.name for field in fields(kind)} | {"rope_theta", "rope_scaling", "tie_word_embeddings"}
    published = raw.get("text_config") or {key: value for key, value in raw.items() if key in known}
    given = _model_fields(published)
    for required in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        given[required]
    if "use_sliding_window" in given:
        given["use_sliding_window"] = False
    return kind(**given)


def _model_fields(published: Mapping[str, Any]) -> dict[str, Any]:
    dropped = (*NOT_MODEL_FIELDS, "transformers_version")
    return {key: value for key, value in published.items() if key not in dropped and value is not None}
