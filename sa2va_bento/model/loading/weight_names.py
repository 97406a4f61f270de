"""Tensor names of a published Sa2VA checkpoint and of the in-tree modules, read in both directions.

A family's own rules are its configuration's; those of SAM2, which all families carry, are here. Most rename; a fused
projection splits into several tensors, and SAM2's four point embeddings join into one.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.weights import name_some
from sa2va_bento.model.weight_rules import Part, WeightRules, rename

SAM = "grounding_encoder"
SAM_PUBLISHED = f"{SAM}.sam2_model"

HIERA_RENAMES = (
    ("image_encoder.trunk.patch_embed.proj.{rest}", "vision_encoder.backbone.patch_embed.projection.{rest}"),
    ("image_encoder.trunk.pos_embed", "vision_encoder.backbone.pos_embed"),
    ("image_encoder.trunk.pos_embed_window", "vision_encoder.backbone.pos_embed_window"),
    ("image_encoder.trunk.blocks.{n}.norm1.{rest}", "vision_encoder.backbone.blocks.{n}.layer_norm1.{rest}"),
    ("image_encoder.trunk.blocks.{n}.norm2.{rest}", "vision_encoder.backbone.blocks.{n}.layer_norm2.{rest}"),
    ("image_encoder.trunk.blocks.{n}.attn.{rest}", "vision_encoder.backbone.blocks.{n}.attn.{rest}"),
    ("image_encoder.trunk.blocks.{n}.proj.{rest}", "vision_encoder.backbone.blocks.{n}.proj.{rest}"),
    ("image_encoder.trunk.blocks.{n}.mlp.layers.0.{rest}", "vision_encoder.backbone.blocks.{n}.mlp.proj_in.{rest}"),
    ("image_encoder.trunk.blocks.{n}.mlp.layers.1.{rest}", "vision_encoder.backbone.blocks.{n}.mlp.proj_out.{rest}"),
    ("image_encoder.neck.convs.{n}.conv.{rest}", "vision_encoder.neck.convs.{n}.{rest}"),
)

DOWNSAMPLER, FUSER = "memory_encoder.mask_downsampler", "memory_encoder.memory_fuser.layers"
FUSED = (("dwconv", "depthwise_conv"), ("norm", "layer_norm"), *((f"pwconv{i}", f"pointwise_conv{i}") for i in (1, 2)))
MEMORY_RENAMES = (
    ("mask_downsample.{rest}", "mask_downsample.{rest}"),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("no_obj_ptr", "no_object_pointer"),
    ("memory_attention.layers.{n}.self_attn.out_proj.{rest}", "memory_attention.layers.{n}.self_attn.o_proj.{rest}"),
    (
        "memory_attention.layers.{n}.cross_attn_image.out_proj.{rest}",
        "memory_attention.layers.{n}.cross_attn_image.o_proj.{rest}",
    ),
    ("memory_attention.layers.{n}.norm1.{rest}", "memory_attention.layers.{n}.layer_norm1.{rest}"),
    ("memory_attention.layers.{n}.norm2.{rest}", "memory_attention.layers.{n}.layer_norm2.{rest}"),
    ("memory_attention.layers.{n}.norm3.{rest}", "memory_attention.layers.{n}.layer_norm3.{rest}"),
    ("memory_attention.norm.{rest}", "memory_attention.layer_norm.{rest}"),
    ("memory_attention.layers.{n}.{rest}", "memory_attention.layers.{n}.{rest}"),
    ("memory_encoder.pix_feat_proj.{rest}", "memory_encoder.feature_projection.{rest}"),
    ("memory_encoder.out_proj.{rest}", "memory_encoder.projection.{rest}"),
    *((f"memory_encoder.fuser.layers.{{n}}.{a}.{{rest}}", f"{FUSER}.{{n}}.{b}.{{rest}}") for a, b in FUSED),
    ("memory_encoder.fuser.layers.{n}.g_weight", "memory_encoder.memory_fuser.layers.{n}.scale"),
    ("memory_encoder.fuser.layers.{n}.gamma", "memory_encoder.memory_fuser.layers.{n}.scale"),
    ("memory_encoder.fuser.layers.{n}.weight", "memory_encoder.memory_fuser.layers.{n}.scale"),
    # SAM2's mask downsampler is a flat list of (convolution, norm, GELU) triples and a last convolution.
    *(
        (f"{DOWNSAMPLER}.encoder.{3 * i + j}.{{rest}}", f"{DOWNSAMPLER}.layers.{i}.{name}.{{rest}}")
        for i in range(4)
        for j, name in enumerate(("conv", "layer_norm"))
    ),
    (f"{DOWNSAMPLER}.encoder.12.{{rest}}", f"{DOWNSAMPLER}.final_conv.{{rest}}"),
)


def _three_layers(published: str, in_tree: str) -> tuple[tuple[str, str], ...]:
    """SAM2's MLPs count their layers; the in-tree feed-forward names its first and last."""
    places = (("layers.0", "proj_in"), ("layers.1", "layers.0"), ("layers.2", "proj_out"))
    return tuple((f"{published}.{a}.{{rest}}", f"{in_tree}.{b}.{{rest}}") for a, b in places)


DECODER_RENAMES = (
    *_three_layers("obj_ptr_proj", "object_pointer_proj"),
    ("sam_prompt_encoder.not_a_point_embed.{rest}", "prompt_encoder.not_a_point_embed.{rest}"),
    ("sam_prompt_encoder.no_mask_embed.{rest}", "prompt_encoder.no_mask_embed.{rest}"),
    *(
        (f"sam_prompt_encoder.mask_downscaling.{i}.{{rest}}", f"prompt_encoder.mask_embed.{name}.{{rest}}")
        for i, name in ((0, "conv1"), (1, "layer_norm1"), (3, "conv2"), (4, "layer_norm2"), (6, "conv3"))
    ),
    *(
        (f"sam_mask_decoder.output_upscaling.{i}.{{rest}}", f"mask_decoder.{name}.{{rest}}")
        for i, name in ((0, "upscale_conv1"), (1, "upscale_layer_norm"), (3, "upscale_conv2"))
    ),
    *(
        (
            f"sam_mask_decoder.transformer.layers.{{n}}.norm{i}.{{rest}}",
            f"mask_decoder.transformer.layers.{{n}}.layer_norm{i}.{{rest}}",
        )
        for i in range(1, 5)
    ),
    *(
        (
            f"sam_mask_decoder.transformer.layers.{{n}}.{name}.out_proj.{{rest}}",
            f"mask_decoder.transformer.layers.{{n}}.{name}.o_proj.{{rest}}",
        )
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
    ),
    (
        "sam_mask_decoder.transformer.layers.{n}.mlp.layers.0.{rest}",
        "mask_decoder.transformer.layers.{n}.mlp.proj_in.{rest}",
    ),
    (
        "sam_mask_decoder.transformer.layers.{n}.mlp.layers.1.{rest}",
        "mask_decoder.transformer.layers.{n}.mlp.proj_out.{rest}",
    ),
    (
        "sam_mask_decoder.transformer.final_attn_token_to_image.out_proj.{rest}",
        "mask_decoder.transformer.final_attn_token_to_image.o_proj.{rest}",
    ),
    (
        "sam_mask_decoder.transformer.norm_final_attn.{rest}",
        "mask_decoder.transformer.layer_norm_final_attn.{rest}",
    ),
    *_three_layers("sam_mask_decoder.output_hypernetworks_mlps.{n}", "mask_decoder.output_hypernetworks_mlps.{n}"),
    *_three_layers("sam_mask_decoder.iou_prediction_head", "mask_decoder.iou_prediction_head"),
    *_three_layers("sam_mask_decoder.pred_obj_score_head", "mask_decoder.pred_obj_score_head"),
    ("sam_mask_decoder.{rest}", "mask_decoder.{rest}"),
)

TUNED_RENAMES = tuple(
    (a.replace("sam_mask_decoder.", "sam_mask_decoder_modified.", 1), f"tuned_{b}")
    for a, b in DECODER_RENAMES
    if a.startswith("sam_mask_decoder.")
)
"""The second mask decoder of Sa2VA-i (`model/sam2.py`)."""
SAM_RENAMES = (*HIERA_RENAMES, *MEMORY_RENAMES, *DECODER_RENAMES, *TUNED_RENAMES)

SHARED = WeightRules(
    renames=(
        *((f"{SAM_PUBLISHED}.{a}", f"{SAM}.{b}") for a, b in SAM_RENAMES),
        ("text_hidden_fcs.{rest}", "text_hidden_fcs.{rest}"),
    )
)
"""Of the parts that all families have."""

POINTS_PUBLISHED = tuple(f"{SAM_PUBLISHED}.sam_prompt_encoder.point_embeddings.{i}.weight" for i in range(4))
POINTS_IN_TREE = f"{SAM}.prompt_encoder.point_embed.weight"

GAUSSIAN_PUBLISHED = f"{SAM_PUBLISHED}.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
GAUSSIAN_IN_TREE = (
    f"{SAM}.prompt_encoder.shared_embedding.positional_embedding",
    f"{SAM}.shared_image_embedding.positional_embedding",
)
"""Random Fourier frequencies of the coordinates: a buffer held twice in-tree, and kept in float32."""


@dataclass(frozen=True)
class Source:
    """Where an in-tree tensor comes from: published tensors joined along dim 0, or a part of one."""

    names: tuple[str, ...]
    part: Part | None = None

    def read(self, tensor: Callable[[str], Tensor]) -> Tensor:
        """The in-tree tensor, given a reader of published ones."""
        if self.part:
            return self.part.take(tensor(self.names[0]))
        return tensor(self.names[0]) if len(self.names) == 1 else torch.cat([tensor(name) for name in self.names])

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The in-tree shape, given the published ones."""
        whole = shapes[self.names[0]]
        if self.part:
            return self.part.shape(whole)
        return whole if len(self.names) == 1 else (sum(sum(shapes[name][:1]) for name in self.names), *whole[1:])


def plan(published_names: Iterable[str], family: WeightRules, label: Callable[[str], str] = str) -> dict[str, Source]:
    """In-tree name to its source, for every tensor of a checkpoint of a family with these rules. `label` is how a
    message calls a tensor.

    Raises:
        CheckpointError: a published name has no place in the model, or two have the same; the message names them.
    """
    names, rules, unknown = set(published_names), family | SHARED, []
    sources: dict[str, Source] = {}
    for name in sorted(names - set(POINTS_PUBLISHED)):
        if rules.is_unused(name):
            continue
        found = _sources_of(name, rules)
        if not found:
            unknown.append(label(name))
            continue
        if taken := sorted(set(found) & set(sources)):
            raise CheckpointError(f"{label(name)} and {label(sources[taken[0]].names[0])} are the same tensor")
        sources.update(found)
    if unknown:
        raise CheckpointError(f"unknown tensors: {name_some(unknown)}")
    if names & set(POINTS_PUBLISHED):
        sources[POINTS_IN_TREE] = Source(POINTS_PUBLISHED)
    return sources


def published_name(name: str, family: WeightRules) -> str:
    """What a checkpoint calls an in-tree tensor; one of its parts, where it is made of several."""
    if name == POINTS_IN_TREE:
        return POINTS_PUBLISHED[0]
    if name in GAUSSIAN_IN_TREE:
        return GAUSSIAN_PUBLISHED
    return (family | SHARED).published(name) or name


def to_intree(published: Mapping[str, Tensor], family: WeightRules) -> dict[str, Tensor]:
    """A published state dict under in-tree names."""
    return {name: source.read(published.__getitem__) for name, source in plan(published, family).items()}


def to_published(in_tree: Mapping[str, Tensor], family: WeightRules) -> dict[str, Tensor]:
    """An in-tree state dict under published names: the inverse of `to_intree` for families whose fused tensors are
    equal parts."""
    published: dict[str, Tensor] = {}
    for name, tensor in in_tree.items():
        if name == POINTS_IN_TREE:
            published.update(zip(POINTS_PUBLISHED, tensor.split(1), strict=True))
        elif parts := _fused_with(name, family):
            published[published_name(name, family)] = torch.cat([in_tree[part] for part in parts])
        else:
            published[published_name(name, family)] = tensor
    return published


def _fused_with(name: str, family: WeightRules) -> list[str]:
    """All parts, in their order, of the fused tensor that an in-tree one is a part of."""
    for fused in family.fused:
        for pattern in fused.parts:
            if rename(name, pattern, pattern):
                return [rename(name, pattern, other) or "" for other in fused.parts]
    return []


def _sources_of(name: str, rules: WeightRules) -> dict[str, Source]:
    if name == GAUSSIAN_PUBLISHED:
        return {copy: Source((name,)) for copy in GAUSSIAN_IN_TREE}
    return {in_tree: Source((name,), part) for in_tree, part in rules.in_tree(name).items()}
