"""`config.json` of a published SaSaSa2VA checkpoint: the InternVL layout's, and fields of SAMURAI's memory, which is
off in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from sa2va_bento.model.internvl.config import InternVLConfig
from sa2va_bento.model.sam2 import HIDES_ABSENT

PARTS = 10
"""Of a clip, and of an answer."""
PART_FRAMES = 10
"""Samples in a part."""
PICTURES = 2 * PARTS
"""That the language model sees of a clip: of each part the first sample, and the others as a mosaic."""


@dataclass(frozen=True)
class SaSaSa2VAConfig(InternVLConfig):
    """A checkpoint of SaSaSa2VA."""

    takes_regions: ClassVar = False
    is_one_object: ClassVar = True

    @property
    def family(self) -> str:
        return super().family.replace("internvl", "sasasa2va", 1)

    def largest_picture(self, max_tiles: int | None = None) -> tuple[int, int]:
        """Whatever is shown has as many pictures as a clip."""
        return PICTURES, PICTURES * self.tokens_per_tile

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "InternVLConfig":
        """As `InternVLConfig.from_dict`. An object that is scored absent has no mask in this family."""
        config = super().from_dict(raw)
        setattr(config.sam2, HIDES_ABSENT, True)
        return config
