"""The published checkpoints, all of which are served."""

from dataclasses import dataclass

from sa2va_bento.model.config import Sam2Shape
from sa2va_bento.model.grounding_encoder import GroundingShape
from sa2va_bento.model.loading.memory import Measures
from sa2va_bento.model.sam3 import Sam3Shape


@dataclass(frozen=True)
class Language:
    """A language model: layers, heads of queries and of keys and values, a head's width, the width between an MLP's
    two halves, and the parameters that are quantised, in billions: those of the layers' projections."""

    name: str
    layers: int
    heads: int
    kv_heads: int
    width: int
    intermediate: int
    hidden: int
    positions: int = 32768

    @property
    def kv(self) -> int:
        """Numbers that the cache holds for a token."""
        return 2 * self.layers * self.kv_heads * self.width

    @property
    def projections(self) -> int:
        """Parameters of the layers' projections."""
        attention = 2 * self.hidden * self.width * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)


QWEN2_05B = Language("Qwen2.5-0.5B", 24, 14, 2, 64, 4864, 896)
QWEN2_15B = Language("Qwen2.5-1.5B", 28, 12, 2, 128, 8960, 1536)
QWEN2_3B = Language("Qwen2.5-3B", 36, 16, 2, 128, 11008, 2048)
QWEN2_7B = Language("Qwen2.5-7B", 28, 28, 4, 128, 18944, 3584)
QWEN2_14B = Language("Qwen2.5-14B", 48, 40, 8, 128, 13824, 5120)
INTERNLM2_7B = Language("InternLM2.5-7B", 32, 32, 8, 128, 14336, 4096)
INTERNLM2_20B = Language("InternLM2.5-20B", 48, 48, 8, 128, 16384, 6144)
QWEN3_17B = Language("Qwen3-1.7B", 28, 16, 8, 128, 6144, 2048)
QWEN3_4B = Language("Qwen3-4B", 36, 32, 8, 128, 9728, 2560)
VICUNA_7B = Language("Vicuna-7B", 32, 32, 32, 128, 11008, 4096, positions=4096)


@dataclass(frozen=True)
class Vision:
    """A vision tower: the numbers of its widest tensor for a tile, and the tiles and image tokens of the largest
    picture, which may be those of every picture."""

    name: str
    tile: int
    tiles: int
    picture_tokens: int
    is_fixed: bool = False


INTERNVIT_300M = Vision("InternViT-300M", 32**2 * 4096, 13, 3328)
INTERNVIT_6B = Vision("InternViT-6B", 32**2 * 12800, 13, 3328)
CLIP_PARTS = Vision("InternViT-300M", 32**2 * 4096, 20, 5120, is_fixed=True)
CLIP_PARTS_6B = Vision("InternViT-6B", 32**2 * 12800, 20, 5120, is_fixed=True)
"""As SaSaSa2VA shows whatever it is shown: ten parts of two pictures."""
CLIP_L = Vision("CLIP-L/14-336", 24**2 * 4096, 1, 576, is_fixed=True)
QWEN2_VL = Vision("Qwen2.5-VL", 32**2 * 3840, 8, 2048)
QWEN3_VL = Vision("Qwen3-VL", 28**2 * 4096, 8, 1568)


SAM2, SAM3 = Sam2Shape(), Sam3Shape()


@dataclass(frozen=True)
class Published:
    """A checkpoint on the Hub: its parts, and its size in billions of parameters."""

    model: str
    vision: Vision
    language: Language
    billions: float
    grounding: GroundingShape = SAM2

    @property
    def weights_gib(self) -> float:
        """Its weights in bfloat16."""
        return self.weights(2) / 2**30

    def weights(self, element: int) -> int:
        """Bytes of its weights, in numbers of so many."""
        return int(self.billions * 1e9) * element

    @property
    def kv_kib(self) -> float:
        """What its cache takes for a token in bfloat16."""
        return self.language.kv * 2 / 2**10

    @property
    def measures(self) -> Measures:
        """What the memory of its computations depends on."""
        return Measures(
            tile=self.vision.tile,
            intermediate=self.language.intermediate,
            layers=self.language.layers,
            kv=self.language.kv,
            sharing=self.language.heads // self.language.kv_heads,
            tiles=self.vision.tiles,
            picture_tokens=self.vision.picture_tokens,
            positions=self.language.positions,
            sam2_side=self.grounding.mask_side,
            sam2_embed=self.grounding.peak_width,
            sam2_model=self.grounding.d_model,
        )


PUBLISHED = (
    Published("ByteDance/Sa2VA-1B", INTERNVIT_300M, QWEN2_05B, 1.16),
    Published("ByteDance/Sa2VA-4B", INTERNVIT_300M, QWEN2_3B, 3.94),
    Published("ByteDance/Sa2VA-8B", INTERNVIT_300M, INTERNLM2_7B, 8.32),
    Published("ByteDance/Sa2VA-26B", INTERNVIT_6B, INTERNLM2_20B, 25.78),
    Published("ByteDance/Sa2VA-InternVL3-2B", INTERNVIT_300M, QWEN2_15B, 2.32),
    Published("ByteDance/Sa2VA-InternVL3-8B", INTERNVIT_300M, QWEN2_7B, 8.18),
    Published("ByteDance/Sa2VA-InternVL3-14B", INTERNVIT_300M, QWEN2_14B, 15.37),
    Published("ByteDance/Sa2VA-Qwen2_5-VL-3B", QWEN2_VL, QWEN2_3B, 4.29),
    Published("ByteDance/Sa2VA-Qwen2_5-VL-7B", QWEN2_VL, QWEN2_7B, 8.52),
    Published("ByteDance/Sa2VA-Qwen3-VL-2B", QWEN3_VL, QWEN3_17B, 2.4),
    Published("ByteDance/Sa2VA-Qwen3-VL-4B", QWEN3_VL, QWEN3_4B, 4.66),
    Published("ByteDance/Sa2VA-Qwen3-VL-4B-SAM3", QWEN3_VL, QWEN3_4B, 5.30, SAM3),
    Published("ByteDance/Sa2VA-LLaVA-1.5-7B", CLIP_L, VICUNA_7B, 7.31),
    Published("QuanzhuNiu/SaSaSa2VA-4B", CLIP_PARTS, QWEN2_3B, 3.94),
    Published("QuanzhuNiu/SaSaSa2VA-26B", CLIP_PARTS_6B, INTERNLM2_20B, 25.78),
    Published("kumuji/Sa2VA-i-1B", INTERNVIT_300M, QWEN2_05B, 1.16),
    Published("kumuji/Sa2VA-i-4B", INTERNVIT_300M, QWEN2_3B, 3.94),
    Published("kumuji/Sa2VA-i-8B", INTERNVIT_300M, INTERNLM2_7B, 8.32),
    Published("kumuji/Sa2VA-i-26B", INTERNVIT_6B, INTERNLM2_20B, 25.78),
)
"""Sizes include SAM 2.0 Hiera-L (0.22 billion) or, where the name says so, SAM3's tracker (0.47 billion). Those of
kumuji are Sa2VA-i: the same models with SAM2's original mask decoder beside the tuned one."""
