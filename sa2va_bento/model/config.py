"""What the configurations of all families share: `config.json` as the configurations of in-tree transformers modules.

The published files describe the language model and the vision tower; SAM2's shape and the tiling are constants of
the code that came with them. A checkpoint with another shape says so in a `sa2va_native` block, whose names are
those of SAM2's own YAML files; without the block the published constants hold.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from transformers import PreTrainedConfig, Sam2VideoConfig

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.chat_template import ChatTemplate
from sa2va_bento.model.grounding_encoder import GroundingEncoder, GroundingShape
from sa2va_bento.model.sam2 import Sam2
from sa2va_bento.model.weight_rules import WeightRules

NOT_MODEL_FIELDS = ("architectures", "auto_map", "attn_implementation", "model_type", "torch_dtype", "dtype")
"""Fields of a published language model's configuration that say nothing about the model's arithmetic."""


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

    @property
    def mask_side(self) -> int:
        return self.image_size // 4

    @property
    def peak_width(self) -> int:
        return self.embed_dim

    @property
    def summary(self) -> str:
        return f"SAM2: {sum(self.stages)} blocks from {self.embed_dim} on, pictures of {self.image_size} pixels"


@dataclass(frozen=True)
class CheckpointConfig(ABC):
    """What the configurations of all families have. `sam2` and `sam2_shape` are those of `grounding`, which is SAM2 in
    most checkpoints."""

    llm: PreTrainedConfig
    sam2: Sam2VideoConfig
    sam2_shape: GroundingShape
    chat_template: ChatTemplate
    raw: Mapping[str, Any] = field(repr=False)
    grounding: GroundingEncoder = field(default_factory=lambda: SAM2, kw_only=True, repr=False)

    takes_regions: ClassVar[bool] = True
    """Whether the family was trained to read visual prompts."""
    is_one_object: ClassVar[bool] = False
    """Whether all `[SEG]`s of a reply are about one object, in several parts of a clip."""
    llm_licence: ClassVar[str | None] = None
    """Of the language model's weights, where a checkpoint's card may not name it."""
    tiles_per_frame: ClassVar[int | None] = None
    """Most tiles that a frame of a clip is cut into; None cuts it as a picture is."""

    @property
    @abstractmethod
    def family(self) -> str:
        """Short name for people."""

    @property
    @abstractmethod
    def weight_rules(self) -> WeightRules:
        """Published and in-tree names of the tensors that are the family's own."""

    @property
    def all_rules(self) -> WeightRules:
        """Those of the family, and of the grounding encoder where it is not SAM2."""
        return self.weight_rules | self.grounding.weight_rules

    @property
    def licences(self) -> tuple[str, ...]:
        """Those of parts, which hold whatever the card says."""
        return tuple(licence for licence in (self.llm_licence, self.grounding.licence) if licence)

    def grounded_by(self, encoder: GroundingEncoder) -> Self:
        """The same with another grounding encoder."""
        sam, shape = encoder.configure(self.raw.get("sa2va_native") or {})
        return replace(self, sam2=sam, sam2_shape=shape, grounding=encoder)

    @property
    @abstractmethod
    def vision_shape(self) -> tuple[int, int]:
        """Layers of the vision tower, and their width."""

    @property
    @abstractmethod
    def elements_per_tile(self) -> int:
        """Numbers in the widest tensor of the vision tower, for each tile (of 448 x 448 pixels) that it sees."""

    @abstractmethod
    def largest_picture(self, max_tiles: int | None = None) -> tuple[int, int]:
        """Tiles (of 448 x 448 pixels, or as they are cut) and image tokens of a picture that has the most of both,
        where `max_tiles` limits it."""


def sam2_shape(native: Mapping[str, Any]) -> Sam2Shape:
    """SAM2's shape as a `sa2va_native` block gives it."""
    return Sam2Shape(**known_fields(native.get("sam2") or {}, Sam2Shape, "sam2"))


def known_fields(block: Mapping[str, Any], shape: type, name: str) -> dict[str, Any]:
    """A block's fields for a dataclass, lists as tuples. Raises CheckpointError naming those that are unknown."""
    unknown = sorted(set(block) - set(shape.__dataclass_fields__))
    if unknown:
        raise CheckpointError(f"sa2va_native.{name} has unknown fields: {', '.join(unknown)}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in block.items()}


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


def _configure(native: Mapping[str, Any]) -> tuple[Sam2VideoConfig, Sam2Shape]:
    shape = sam2_shape(native)
    return sam2_config(shape), shape


SAM2 = GroundingEncoder("SAM2", "grounding_encoder.sam2_model.image_encoder.", _configure, Sam2)
"""Its rules hold in all checkpoints (`loading.weight_names`)."""


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
