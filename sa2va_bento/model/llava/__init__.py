"""The LLaVA-1.5 layout: CLIP, a projector, Llama, and SAM2."""

from sa2va_bento.model.base import Family
from sa2va_bento.model.llava.config import LlavaConfig
from sa2va_bento.model.llava.image_processor import process_image
from sa2va_bento.model.llava.model import LlavaSa2VA

FAMILY = Family(
    architecture="Sa2VAChatModelLlava",
    language_models=("LlamaForCausalLM",),
    config=LlavaConfig.from_dict,
    model=LlavaSa2VA,
    image_processor=process_image,
)
