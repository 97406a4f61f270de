"""SaSaSa2VA: Sa2VA in the InternVL layout, whose `[SEG]`s are the parts of one answer."""

from torch import Tensor

from sa2va_bento.model.internvl.model import InternVLSa2VA
from sa2va_bento.model.sasasa2va.config import PARTS


class SaSaSa2VA(InternVLSa2VA):
    """The modules of a checkpoint."""

    def clip_prompts(self, prompts: Tensor) -> Tensor:
        """(N, d) to the one object's (1, parts, d): what is beyond the last part is dropped, and where there are fewer
        the last one goes on."""
        if not len(prompts):
            return prompts.new_zeros(0, PARTS, prompts.shape[-1])
        places = [min(part, len(prompts) - 1) for part in range(PARTS)]
        return prompts[places][None]
