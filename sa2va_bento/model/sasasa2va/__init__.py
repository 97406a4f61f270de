"""SaSaSa2VA: the InternVL layout, asked about whole clips. A clip is ten parts, and so is the answer: one object with a
`[SEG]` for each part."""

from sa2va_bento.model import internvl
from sa2va_bento.model.base import Family
from sa2va_bento.model.clip_sampling import ClipSampling
from sa2va_bento.model.sasasa2va.config import SaSaSa2VAConfig
from sa2va_bento.model.sasasa2va.image_processor import clip_pictures, process_image
from sa2va_bento.model.sasasa2va.model import SaSaSa2VA
from sa2va_bento.model.sasasa2va.sampling import MODES, plan

FAMILY = Family(
    architecture="SaSaSa2VAChatModel",
    language_models=internvl.FAMILY.language_models,
    config=SaSaSa2VAConfig.from_dict,
    model=SaSaSa2VA,
    image_processor=process_image,
    clips=ClipSampling(MODES, plan, clip_pictures, internvl.FAMILY.image_processor),
)
