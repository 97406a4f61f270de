"""The published checkpoints, all of which are served."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A checkpoint on the Hub: its parts, its size in billions of parameters, and how many KiB its cache takes for a
    token in bfloat16."""

    model: str
    vision: str
    language: str
    billions: float
    kv_kib: int

    @property
    def weights_gib(self) -> float:
        """Its weights in bfloat16."""
        return self.billions * 1e9 * 2 / 2**30

    def cache_gib(self, tokens: int) -> float:
        """Its cache of keys and values for that many tokens, in bfloat16."""
        return self.kv_kib * tokens / 2**20


PUBLISHED = (
    Published("ByteDance/Sa2VA-1B", "InternViT-300M", "Qwen2.5-0.5B", 1.16, 12),
    Published("ByteDance/Sa2VA-4B", "InternViT-300M", "Qwen2.5-3B", 3.94, 36),
    Published("ByteDance/Sa2VA-8B", "InternViT-300M", "InternLM2.5-7B", 8.32, 128),
    Published("ByteDance/Sa2VA-26B", "InternViT-6B", "InternLM2.5-20B", 25.78, 192),
    Published("ByteDance/Sa2VA-InternVL3-2B", "InternViT-300M", "Qwen2.5-1.5B", 2.32, 28),
    Published("ByteDance/Sa2VA-InternVL3-8B", "InternViT-300M", "Qwen2.5-7B", 8.18, 56),
    Published("ByteDance/Sa2VA-InternVL3-14B", "InternViT-300M", "Qwen2.5-14B", 15.37, 192),
    Published("ByteDance/Sa2VA-Qwen2_5-VL-3B", "Qwen2.5-VL", "Qwen2.5-3B", 4.29, 36),
    Published("ByteDance/Sa2VA-Qwen2_5-VL-7B", "Qwen2.5-VL", "Qwen2.5-7B", 8.52, 56),
    Published("ByteDance/Sa2VA-Qwen3-VL-2B", "Qwen3-VL", "Qwen3-1.7B", 2.4, 112),
    Published("ByteDance/Sa2VA-Qwen3-VL-4B", "Qwen3-VL", "Qwen3-4B", 4.66, 144),
    Published("kumuji/Sa2VA-i-1B", "InternViT-300M", "Qwen2.5-0.5B", 1.16, 12),
    Published("kumuji/Sa2VA-i-4B", "InternViT-300M", "Qwen2.5-3B", 3.94, 36),
    Published("kumuji/Sa2VA-i-8B", "InternViT-300M", "InternLM2.5-7B", 8.32, 128),
    Published("kumuji/Sa2VA-i-26B", "InternViT-6B", "InternLM2.5-20B", 25.78, 192),
)
"""Sizes include SAM 2.0 Hiera-L (0.22 billion), which all of them carry. Those of kumuji are Sa2VA-i: the same models
with SAM2's original mask decoder beside the tuned one."""
