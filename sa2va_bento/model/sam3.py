"""SAM3's tracker as Sa2VA's grounding encoder: the in-tree `Sam3TrackerVideoModel`, which has SAM2's sub-modules behind
a vision transformer and a neck of its own.

What differs from SAM2 as Sa2VA uses it: an object that is scored absent has no mask, and its memory is marked; prompted
masks are remembered as zeros and ones; at most four conditioning frames are looked back to; pointers know how long ago
they were made. Sources: facebookresearch/sam3, and Sa2VA's `third_parts/sam3`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import Sam3TrackerVideoConfig, Sam3TrackerVideoModel

from sa2va_bento.model.config import known_fields
from sa2va_bento.model.grounding_encoder import GroundingEncoder
from sa2va_bento.model.sam2 import CUTS_PROMPTED, HIDES_ABSENT
from sa2va_bento.model.weight_rules import Chunk, Fused, WeightRules

PATCH = 14
"""Side of a patch of the vision transformer, in pixels."""
MASK_CELLS = 4
"""Cells of a mask along one side of a patch."""
LAYER_NORM_EPS = 1e-5
"""Of the vision transformer; the in-tree default is another."""
TRANSFORMER_PEAK = 3
"""Numbers alive at once in the vision transformer, for each of its MLP's."""
HIERA_PEAK = 12
"""And in Hiera, for each of its first stage's width and each cell of a mask, which memory is told by."""


@dataclass(frozen=True)
class Sam3Shape:
    """The tracker's shape, names as in its own code. Defaults: the published checkpoint's."""

    image_size: int = 1008
    d_model: int = 256
    embed_dim: int = 1024
    depth: int = 32
    num_heads: int = 16
    mlp_ratio: float = 4.625
    global_att_blocks: tuple[int, ...] = (7, 15, 23, 31)

    @property
    def tokens_per_side(self) -> int:
        return self.image_size // PATCH

    @property
    def mask_side(self) -> int:
        return MASK_CELLS * self.tokens_per_side

    @property
    def intermediate_size(self) -> int:
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def peak_width(self) -> int:
        a_token = TRANSFORMER_PEAK * self.intermediate_size
        return -(-a_token // (HIERA_PEAK * MASK_CELLS**2))

    @property
    def summary(self) -> str:
        return f"SAM3: {self.depth} layers of {self.embed_dim}, pictures of {self.image_size} pixels"


class Sam3(Sam3TrackerVideoModel):
    """The in-tree model, whose memory is made as Sa2VA's checkpoints were trained with it."""

    def pyramid(self, pixels: Tensor) -> list[Tensor]:
        """Pixels (N, 3, S, S) to maps (N, d, h, w) at a quarter, a half and the whole of a patch; the neck's fourth
        level is read by nobody."""
        encoder: Any = self.vision_encoder
        tokens = encoder.backbone(pixels).last_hidden_state
        spread = tokens.transpose(1, 2).unflatten(-1, self.backbone_feature_sizes[-1])
        return [level(spread) for level in encoder.neck.fpn_layers[:3]]

    def _encode_new_memory(
        self,
        current_vision_feats: Tensor,
        pred_masks_high_res: Tensor,
        object_score_logits: Tensor,
        is_mask_from_pts: bool,
    ) -> tuple[Tensor, Tensor]:
        """The map (h * w, B, m) of masks (B, 1, S, S), and its positions. The in-tree method scales the logits to the
        encoder's size; here it is what they have become, after the sigmoid or the cut, as in the original code."""
        config, side = self.config, 4 * self.prompt_encoder.mask_input_size[0]
        logits = pred_masks_high_res.float()
        masks = (logits > 0).float() if is_mask_from_pts else logits.sigmoid()
        scaled = masks * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        resized = interpolate(scaled, (side, side), mode="bilinear", align_corners=False, antialias=True)
        height, width = self.backbone_feature_sizes[-1]
        embedding = current_vision_feats.permute(1, 2, 0).unflatten(-1, (height, width))
        encoded, positions = self.memory_encoder(embedding, resized.to(embedding.dtype))
        is_absent = (object_score_logits <= 0).to(encoded.dtype)[..., None, None]  # (B, 1, 1, 1)
        occluded: Any = self.occlusion_spatial_embedding_parameter  # (1, m)
        encoded = encoded + is_absent * occluded[..., None, None]
        return encoded.to(torch.bfloat16).flatten(2).permute(2, 0, 1), positions.flatten(2).permute(2, 0, 1)


def configure(native: Mapping[str, Any]) -> tuple[Sam3TrackerVideoConfig, Sam3Shape]:
    """The configuration that a `sa2va_native` block gives, or the published one's."""
    shape = Sam3Shape(**known_fields(native.get("sam3") or {}, Sam3Shape, "sam3"))
    tokens, width = shape.tokens_per_side, shape.d_model
    backbone = {
        "model_type": "sam3_vit_model",
        "layer_norm_eps": LAYER_NORM_EPS,
        "image_size": shape.image_size,
        "patch_size": PATCH,
        "hidden_size": shape.embed_dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
        "global_attn_indexes": list(shape.global_att_blocks),
    }
    config = Sam3TrackerVideoConfig(
        vision_config={
            "model_type": "sam3_vision_model",
            "backbone_config": backbone,
            "fpn_hidden_size": width,
            "backbone_feature_sizes": [[tokens * scale] * 2 for scale in (4, 2, 1)],
        },
        prompt_encoder_config={"hidden_size": width, "image_size": shape.image_size, "patch_size": PATCH},
        mask_decoder_config={"hidden_size": width, "iou_head_hidden_dim": width},
        memory_attention_hidden_size=width,
        memory_attention_rope_feat_sizes=[tokens, tokens],
        memory_encoder_hidden_size=width,
        mask_downsampler_embed_dim=width,
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
    )
    setattr(config, HIDES_ABSENT, True)
    setattr(config, CUTS_PROMPTED, True)
    return config, shape


@dataclass(frozen=True)
class WithoutClassToken:
    """Positions (1, 1 + N, C) without the class token's, which is the first."""

    def take(self, fused: Tensor) -> Tensor:
        return fused[:, 1:].clone()

    def shape(self, fused: tuple[int, ...]) -> tuple[int, ...]:
        return (*fused[:1], *(places - 1 for places in fused[1:2]), *fused[2:])


PUBLISHED, IN_TREE = "grounding_encoder.sam2_model", "grounding_encoder"
BACKBONE = "backbone.vision_backbone"
TRUNK, VIT = f"{BACKBONE}.trunk", "vision_encoder.backbone"
NECK = "vision_encoder.neck.fpn_layers"

RENAMES = (
    (f"{TRUNK}.patch_embed.proj.{{rest}}", f"{VIT}.embeddings.patch_embeddings.projection.{{rest}}"),
    (f"{TRUNK}.ln_pre.{{rest}}", f"{VIT}.layer_norm.{{rest}}"),
    *((f"{TRUNK}.blocks.{{n}}.norm{i}.{{rest}}", f"{VIT}.layers.{{n}}.layer_norm{i}.{{rest}}") for i in (1, 2)),
    (f"{TRUNK}.blocks.{{n}}.attn.proj.{{rest}}", f"{VIT}.layers.{{n}}.attention.o_proj.{{rest}}"),
    (f"{TRUNK}.blocks.{{n}}.mlp.{{rest}}", f"{VIT}.layers.{{n}}.mlp.{{rest}}"),
    *(
        (f"{BACKBONE}.sam2_convs.{{n}}.{a}.{{rest}}", f"{NECK}.{{n}}.{b}.{{rest}}")
        for a, b in (
            ("dconv_2x2_0", "scale_layers.0"),
            ("dconv_2x2", "scale_layers.0"),
            ("dconv_2x2_1", "scale_layers.2"),
            ("conv_1x1", "proj1"),
            ("conv_3x3", "proj2"),
        )
    ),
    ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    ("obj_ptr_tpos_proj.{rest}", "temporal_positional_encoding_projection_layer.{rest}"),
    *(
        (
            f"transformer.encoder.layers.{{n}}.{attention}.out_proj.{{rest}}",
            f"memory_attention.layers.{{n}}.{attention}.o_proj.{{rest}}",
        )
        for attention in ("self_attn", "cross_attn_image")
    ),
    *(
        (
            f"transformer.encoder.layers.{{n}}.norm{i}.{{rest}}",
            f"memory_attention.layers.{{n}}.layer_norm{i}.{{rest}}",
        )
        for i in (1, 2, 3)
    ),
    ("transformer.encoder.norm.{rest}", "memory_attention.layer_norm.{rest}"),
    ("transformer.encoder.{rest}", "memory_attention.{rest}"),
    ("maskmem_backbone.pix_feat_proj.{rest}", "memory_encoder.feature_projection.{rest}"),
    ("maskmem_backbone.out_proj.{rest}", "memory_encoder.projection.{rest}"),
    *(
        (f"maskmem_backbone.fuser.layers.{{n}}.{a}.{{rest}}", f"memory_encoder.memory_fuser.layers.{{n}}.{b}.{{rest}}")
        for a, b in (
            ("dwconv", "depthwise_conv"),
            ("norm", "layer_norm"),
            ("pwconv1", "pointwise_conv1"),
            ("pwconv2", "pointwise_conv2"),
        )
    ),
    *(
        (f"maskmem_backbone.fuser.layers.{{n}}.{a}", "memory_encoder.memory_fuser.layers.{n}.scale")
        for a in ("g_weight", "gamma")
    ),
    *(
        (
            f"maskmem_backbone.mask_downsampler.encoder.{3 * i + j}.{{rest}}",
            f"memory_encoder.mask_downsampler.layers.{i}.{name}.{{rest}}",
        )
        for i in range(4)
        for j, name in enumerate(("conv", "layer_norm"))
    ),
    (
        "maskmem_backbone.mask_downsampler.encoder.12.{rest}",
        "memory_encoder.mask_downsampler.final_conv.{rest}",
    ),
    *(
        (
            f"sam_mask_decoder.transformer.layers.{{n}}.mlp.{a}.{{rest}}",
            f"mask_decoder.transformer.layers.{{n}}.mlp.{b}.{{rest}}",
        )
        for a, b in (("lin1", "proj_in"), ("lin2", "proj_out"))
    ),
)
"""Published and in-tree names where they are not SAM2's."""

ENCODER = GroundingEncoder(
    name="SAM3",
    marker=f"{PUBLISHED}.{BACKBONE}.",
    configure=configure,
    model=Sam3,
    weight_rules=WeightRules(
        renames=tuple((f"{PUBLISHED}.{a}", f"{IN_TREE}.{b}") for a, b in RENAMES),
        fused=(
            Fused(
                f"{PUBLISHED}.{TRUNK}.blocks.{{n}}.attn.qkv.{{rest}}",
                {
                    f"{IN_TREE}.{VIT}.layers.{{n}}.attention.{part}_proj.{{rest}}": Chunk(i, 3)
                    for i, part in enumerate("qkv")
                },
            ),
            Fused(
                f"{PUBLISHED}.{TRUNK}.pos_embed",
                {f"{IN_TREE}.{VIT}.embeddings.position_embeddings": WithoutClassToken()},
            ),
        ),
        unused=(f"{PUBLISHED}.{BACKBONE}.convs.{{rest}}",),
    ),
    licence="SAM License (Meta)",
)
"""`convs` is the neck of SAM3's detector, which Sa2VA does not ask."""
