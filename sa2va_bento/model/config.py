"""`config.json` of a published Sa2VA checkpoint, turned into the configurations of in-tree transformers modules.

The published files describe the language model and the vision tower; SAM2's shape and the tiling are constants of
the code that came with them. A checkpoint with another shape says so in a `sa2va_native` block, whose names are
those of SAM2's own YAML files; without the block the published constants hold.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from transformers import InternVLVisionConfig, PreTrainedConfig, Sam2VideoConfig

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.language import LANGUAGE_MODELS, language_config

TemplateName = Literal["qwen_chat", "internlm2_chat", "phi3_chat", "qwen2_5_vl", "qwen3_vl"]
INTERNVL_TEMPLATES: tuple[TemplateName, ...] = ("qwen_chat", "internlm2_chat", "phi3_chat")
"""What `template` may say in the InternVL layout; Qwen-VL's come with the family."""


@dataclass(frozen=True)
class TileSpec:
    """How a picture is cut for the vision tower: up to `max` tiles of `image_size` pixels, and a thumbnail
    when there is more than one. Defaults: the constants of the published code (InternVL's)."""

    image_size: int = 448
    max: int = 12
    thumbnail: bool = True


@dataclass(frozen=True)
class Sam2Shape:
    """SAM2's shape, names as in its YAML files. Defaults: SAM 2.0 Hiera-L, which every published checkpoint carries."""

    image_size: int = 1024
    d_model: int = 256
    embed_dim: int = 144
    num_heads: int = 2
    stages: tuple[int, ...] = (2, 6, 36, 4)
    global_att_blocks: tuple[int, ...] = (23, 33, 43)
    window_spec: tuple[int, ...] = (8, 4, 16, 8)
    window_pos_embed_bkg_spatial_size: tuple[int, ...] = (7, 7)
    memory_attention_layers: int = 4
    memory_attention_dim_feedforward: int = 2048
    mask_decoder_mlp_dim: int = 2048


@dataclass(frozen=True)
class CheckpointConfig(ABC):
    """What the configurations of all families have."""

    llm: PreTrainedConfig
    sam2: Sam2VideoConfig
    sam2_shape: Sam2Shape
    template: TemplateName
    raw: Mapping[str, Any] = field(repr=False)

    renames: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Published and in-tree names of tensors that this family alone has."""
    takes_regions: ClassVar[bool] = True
    """Whether the family was trained to read visual prompts."""

    @property
    @abstractmethod
    def family(self) -> str:
        """Short name for people."""

    @property
    @abstractmethod
    def elements_per_tile(self) -> int:
        """Numbers in the widest tensor of the vision tower, for each tile (of 448 x 448 pixels) that it sees."""


@dataclass(frozen=True)
class InternVLConfig(CheckpointConfig):
    """A checkpoint in the InternVL layout."""

    language: str
    """Published name of the language model, a key of `LANGUAGE_MODELS`."""
    vision: InternVLVisionConfig
    tiles: TileSpec

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
    def elements_per_tile(self) -> int:
        return (2 * self.cells_per_side) ** 2 * self.vision.intermediate_size

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
            template=_template(raw),
            raw=raw,
        )


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    for flag in ("use_llm_lora", "use_backbone_lora"):
        if raw.get(flag):
            raise CheckpointError(f"{flag}={raw[flag]}: a LoRA export; merge the adapter into the weights first")
    llm = ((raw.get("llm_config") or {}).get("architectures") or ["none"])[0]
    if llm not in LANGUAGE_MODELS:
        raise CheckpointError(f"language model {llm} is not supported (supported: {', '.join(LANGUAGE_MODELS)})")
    for name, expected in (("select_layer", -1), ("ps_version", "v2"), ("downsample_ratio", 0.5)):
        if raw.get(name, expected) != expected:
            raise CheckpointError(f"{name}={raw[name]!r} is not supported (supported: {expected!r})")


def _template(raw: Mapping[str, Any]) -> TemplateName:
    name = str(raw["template"]).replace("-", "_")  # both spellings occur in published files
    for known in INTERNVL_TEMPLATES:
        if name == known:
            return known
    raise CheckpointError(f"chat template {name} is not supported (supported: {', '.join(INTERNVL_TEMPLATES)})")


def _side(size: Any) -> int:
    return int(size if isinstance(size, int) else size[0])


def _tile_spec(native: Mapping[str, Any]) -> TileSpec:
    return TileSpec(**_known_fields(native.get("tiles") or {}, TileSpec, "tiles"))


def sam2_shape(native: Mapping[str, Any]) -> Sam2Shape:
    """SAM2's shape as a `sa2va_native` block gives it."""
    return Sam2Shape(**_known_fields(native.get("sam2") or {}, Sam2Shape, "sam2"))


def _known_fields(block: Mapping[str, Any], shape: type, name: str) -> dict[str, Any]:
    unknown = sorted(set(block) - set(shape.__dataclass_fields__))
    if unknown:
        raise CheckpointError(f"sa2va_native.{name} has unknown fields: {', '.join(unknown)}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in block.items()}


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


def sam2_config(shape: Sam2Shape) -> Sam2VideoConfig:
    """SAM 2.0's configuration; the in-tree defaults are SAM 2.1's, which has two embeddings more."""
    width, stride16 = shape.d_model, shape.image_size // 16
    widths = [shape.embed_dim * 2**stage for stage in range(len(shape.stages))]
    return Sam2VideoConfig(
        image_size=shape.image_size,
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": _hiera_config(shape, widths),
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[stride16 * scale] * 2 for scale in (4, 2, 1)],
            "fpn_hidden_size": width,
        },
        prompt_encoder_config={"hidden_size": width, "image_size": shape.image_size},
        mask_decoder_config={
            "hidden_size": width,
            "iou_head_hidden_dim": width,
            "mlp_dim": shape.mask_decoder_mlp_dim,
        },
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=shape.memory_attention_layers,
        memory_attention_feed_forward_hidden_size=shape.memory_attention_dim_feedforward,
        memory_attention_rope_feat_sizes=[stride16, stride16],
        memory_encoder_hidden_size=width,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
    )


def _hiera_config(shape: Sam2Shape, widths: list[int]) -> dict[str, Any]:
    return {
        "model_type": "sam2_hiera_det_model",
        "image_size": [shape.image_size, shape.image_size],
        "hidden_size": shape.embed_dim,
        "num_attention_heads": shape.num_heads,
        "blocks_per_stage": list(shape.stages),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [shape.num_heads * 2**stage for stage in range(len(shape.stages))],
        "window_size_per_stage": list(shape.window_spec),
        "global_attention_blocks": list(shape.global_att_blocks),
        "window_positional_embedding_background_size": list(shape.window_pos_embed_bkg_spatial_size),
    }
