"""`config.json` of a published Sa2VA checkpoint in the InternVL layout."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from transformers import InternVLVisionConfig

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.chat_template import CHATML, ChatTemplate, Special
from sa2va_bento.model.config import CheckpointConfig, known_fields, sam2_config, sam2_shape
from sa2va_bento.model.internvl.language_models import LANGUAGE_MODELS, language_config
from sa2va_bento.model.internvl.weight_names import weight_rules
from sa2va_bento.model.weight_rules import WeightRules

CHAT_TEMPLATES: tuple[ChatTemplate, ...] = (
    CHATML,
    replace(CHATML, name="internlm2_chat", stop_words=("<|im_end|>",)),
    ChatTemplate(
        name="phi3_chat",
        user_start=(Special("<|user|>"), "\n"),
        user_end=(Special("<|end|>"), "\n", Special("<|assistant|>"), "\n"),
        assistant_end=(Special("<|end|>"), "\n"),
        stop_words=("<|end|>",),
    ),
)
"""What `template` may say."""


@dataclass(frozen=True)
class TileSpec:
    """How a picture is cut for the vision tower: up to `max` tiles of `image_size` pixels, and a thumbnail
    when there is more than one. Defaults: the constants of the published code (InternVL's)."""

    image_size: int = 448
    max: int = 12
    thumbnail: bool = True


@dataclass(frozen=True)
class InternVLConfig(CheckpointConfig):
    """A checkpoint in the InternVL layout."""

    language: str
    """Published name of the language model, a key of `LANGUAGE_MODELS`."""
    vision: InternVLVisionConfig
    tiles: TileSpec

    tiles_per_frame: ClassVar[int | None] = 1

    @property
    def family(self) -> str:
        """The layout and the language model, e.g. `internvl-qwen2`."""
        return f"internvl-{self.language.removesuffix('ForCausalLM').lower()}"

    @property
    def cells_per_side(self) -> int:
        """Image tokens along one side of a tile: patches halved by the pixel shuffle."""
        return self.tiles.image_size // _side(self.vision.patch_size) // 2

    @property
    def tokens_per_tile(self) -> int:
        return self.cells_per_side**2

    @property
    def weight_rules(self) -> WeightRules:
        return weight_rules(LANGUAGE_MODELS[self.language], self.llm)

    @property
    def vision_shape(self) -> tuple[int, int]:
        return self.vision.num_hidden_layers, self.vision.hidden_size

    @property
    def elements_per_tile(self) -> int:
        return (2 * self.cells_per_side) ** 2 * self.vision.intermediate_size

    def largest_picture(self, max_tiles: int | None = None) -> tuple[int, int]:
        most = min(max_tiles or self.tiles.max, self.tiles.max)
        tiles = most + (self.tiles.thumbnail and most > 1)
        return tiles, tiles * self.tokens_per_tile

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "InternVLConfig":
        """Builds the configuration. Raises CheckpointError naming what is unsupported; KeyError, TypeError or
        ValueError where it is no configuration of this layout."""
        _refuse_unsupported(raw)
        native = raw.get("sa2va_native") or {}
        tiles, shape = _tile_spec(native), sam2_shape(native)
        return cls(
            language=raw["llm_config"]["architectures"][0],
            vision=vision_config(raw["vision_config"], tiles.image_size),
            llm=language_config(raw["llm_config"]),
            sam2=sam2_config(shape),
            sam2_shape=shape,
            tiles=tiles,
            chat_template=_chat_template(raw),
            raw=raw,
        )


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    llm = ((raw.get("llm_config") or {}).get("architectures") or ["none"])[0]
    if llm not in LANGUAGE_MODELS:
        raise CheckpointError(f"language model {llm} is not supported (supported: {', '.join(LANGUAGE_MODELS)})")
    for name, expected in (("select_layer", -1), ("ps_version", "v2"), ("downsample_ratio", 0.5)):
        if raw.get(name, expected) != expected:
            raise CheckpointError(f"{name}={raw[name]!r} is not supported (supported: {expected!r})")


def _chat_template(raw: Mapping[str, Any]) -> ChatTemplate:
    name = str(raw["template"]).replace("-", "_")  # both spellings occur in published files
    for known in CHAT_TEMPLATES:
        if name == known.name:
            return known
    supported = ", ".join(known.name for known in CHAT_TEMPLATES)
    raise CheckpointError(f"chat template {name} is not supported (supported: {supported})")


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])


def _tile_spec(native: Mapping[str, Any]) -> TileSpec:
    return TileSpec(**known_fields(native.get("tiles") or {}, TileSpec, "tiles"))


def vision_config(published: Mapping[str, Any], tile_size: int) -> InternVLVisionConfig:
    """InternViT's published fields under their in-tree names.

    `use_mean_pooling` only decides whether a final layer norm exists: True means none, as in the checkpoints.
    """
    if _side(published["image_size"]) != tile_size:
        raise ValueError(f"vision image_size {published['image_size']} is not the tile size {tile_size}")
    return InternVLVisionConfig(
        hidden_size=published["hidden_size"],
        num_hidden_layers=published["num_hidden_layers"],
        num_attention_heads=published["num_attention_heads"],
        intermediate_size=published["intermediate_size"],
        attention_bias=published["qkv_bias"],
        use_qk_norm=published["qk_normalization"],
        norm_type=published["norm_type"],
        layer_norm_eps=published["layer_norm_eps"],
        hidden_act=published["hidden_act"],
        image_size=published["image_size"],
        patch_size=published["patch_size"],
        use_mean_pooling=True,
    )
