"""The Qwen-VL layout: Qwen2.5-VL or Qwen3-VL, and SAM2."""

from sa2va_bento.model.base import Family
from sa2va_bento.model.qwen_vl.config import KINDS, QwenVLConfig
from sa2va_bento.model.qwen_vl.image_processor import process_image
from sa2va_bento.model.qwen_vl.model import QwenVLSa2VA

FAMILY = Family(
    architecture="Sa2VAChatModelQwen",
    language_models=tuple(KINDS),
    config=QwenVLConfig.from_dict,
    model=QwenVLSa2VA,
    image_processor=process_image,
)
