"""The published checkpoints, all of which are served."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A checkpoint on the Hub: its parts and its size in billions of parameters."""

    model: str
    vision: str
    language: str
    billions: float

    @property
    def weights_gib(self) -> float:
        """Its weights in bfloat16."""
        return self.billions * 1e9 * 2 / 2**30


ZOO = (
    Published("ByteDance/Sa2VA-1B", "InternViT-300M", "Qwen2.5-0.5B", 1.16),
    Published("ByteDance/Sa2VA-4B", "InternViT-300M", "Qwen2.5-3B", 3.94),
    Published("ByteDance/Sa2VA-8B", "InternViT-300M", "InternLM2.5-7B", 8.32),
    Published("ByteDance/Sa2VA-26B", "InternViT-6B", "InternLM2.5-20B", 25.78),
    Published("ByteDance/Sa2VA-InternVL3-2B", "InternViT-300M", "Qwen2.5-1.5B", 2.32),
    Published("ByteDance/Sa2VA-InternVL3-8B", "InternViT-300M", "Qwen2.5-7B", 8.18),
    Published("ByteDance/Sa2VA-InternVL3-14B", "InternViT-300M", "Qwen2.5-14B", 15.37),
    Published("ByteDance/Sa2VA-Qwen2_5-VL-3B", "Qwen2.5-VL", "Qwen2.5-3B", 4.29),
    Published("ByteDance/Sa2VA-Qwen2_5-VL-7B", "Qwen2.5-VL", "Qwen2.5-7B", 8.52),
    Published("ByteDance/Sa2VA-Qwen3-VL-2B", "Qwen3-VL", "Qwen3-1.7B", 2.4),
    Published("ByteDance/Sa2VA-Qwen3-VL-4B", "Qwen3-VL", "Qwen3-4B", 4.66),
    Published("kumuji/Sa2VA-i-1B", "InternViT-300M", "Qwen2.5-0.5B", 1.16),
    Published("kumuji/Sa2VA-i-4B", "InternViT-300M", "Qwen2.5-3B", 3.94),
    Published("kumuji/Sa2VA-i-8B", "InternViT-300M", "InternLM2.5-7B", 8.32),
    Published("kumuji/Sa2VA-i-26B", "InternViT-6B", "InternLM2.5-20B", 25.78),
)
"""Sizes include SAM 2.0 Hiera-L (0.22 billion), which all of them carry. Those of kumuji are Sa2VA-i: the same models
with SAM2's original mask decoder beside the tuned one."""
