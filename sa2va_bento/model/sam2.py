"""SAM2 as Sa2VA's checkpoints carry it: one mask decoder, or two (Sa2VA-i).

Sa2VA tunes SAM2's mask decoder without its memory and then asks it to follow objects with that memory. Sa2VA-i
(https://github.com/kumuji/sa2va-i) keeps both: the tuned decoder reads `[SEG]` prompts, the original one follows what
the tuned one found. In its checkpoints (`tools/modify_sa2va_weights.py` there writes them) the original is
`sam_mask_decoder`, as in SAM2's own, and the tuned one `sam_mask_decoder_modified`.
"""

from transformers import Sam2VideoConfig, Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMaskDecoder

HIDES_ABSENT, CUTS_PROMPTED = "hides_absent", "cuts_prompted"
"""Fields of a configuration beside the in-tree ones: whether there is no mask of an object that is scored absent, and
whether a prompted mask is cut before it is remembered. Sa2VA's own SAM2 does neither."""
TUNED_DECODER = "tuned_mask_decoder"
"""Name of the tuned decoder beside the in-tree modules."""


class Sam2(Sam2VideoModel):
    """The in-tree model, and a tuned mask decoder where `config.has_tuned_decoder` is set."""

    def __init__(self, config: Sam2VideoConfig) -> None:
        super().__init__(config)
        if getattr(config, "has_tuned_decoder", False):
            self.tuned_mask_decoder = type(self.mask_decoder)(self.mask_decoder.config)


def has_tuned_decoder(sam: Sam2VideoModel) -> bool:
    """Whether this is a Sa2VA-i checkpoint's."""
    return hasattr(sam, TUNED_DECODER)


def hides_absent(sam: Sam2VideoModel) -> bool:
    """Whether an object that is scored absent has no mask."""
    return bool(getattr(sam.config, HIDES_ABSENT, False))


def cuts_prompted(sam: Sam2VideoModel) -> bool:
    """Whether a prompted mask is remembered as zeros and ones, not as probabilities."""
    return bool(getattr(sam.config, CUTS_PROMPTED, False))


def prompt_decoder(sam: Sam2VideoModel) -> Sam2VideoMaskDecoder:
    """The mask decoder that reads `[SEG]` prompts."""
    return getattr(sam, TUNED_DECODER, sam.mask_decoder)
