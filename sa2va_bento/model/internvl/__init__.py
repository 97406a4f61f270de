"""The InternVL layout: InternViT, a projector, one of several language models, SAM2."""

from sa2va_bento.model.base import Family
from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.internvl.image_processor import process_image
from sa2va_bento.model.internvl.language_models import LANGUAGE_MODELS
from sa2va_bento.model.internvl.model import InternVLSa2VA

FAMILY = Family(
    architecture="Sa2VAChatModel",
    language_models=tuple(LANGUAGE_MODELS),
    config=InternVLConfig.from_dict,
    model=InternVLSa2VA,
    image_processor=process_image,
)
