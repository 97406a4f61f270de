"""Sa2VA behind BentoML: a picture and a prompt go in, text and masks come out.

In Python, without HTTP:

    from sa2va_bento import Predictor

    predictor = Predictor.load()  # or a Hub id: Predictor.load("ByteDance/Sa2VA-4B")
    answer = predictor.predict("docs/shapes.png", "Please segment the red circle.")
    print(answer.text, answer.segments[0].box, answer.segments[0].mask.sum())
"""

from typing import TYPE_CHECKING, Any

from sa2va_bento.errors import Sa2VAError
from sa2va_bento.settings import Settings, load_settings
from sa2va_bento.types import Prediction, PredictRequest, Sampling, Segment, SegmentReady, TextDelta, Turn, Usage

if TYPE_CHECKING:
    from sa2va_bento.local.answer import Answer
    from sa2va_bento.local.predictor import Predictor

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "PredictRequest",
    "Prediction",
    "Predictor",
    "Sa2VAError",
    "Sampling",
    "Segment",
    "SegmentReady",
    "Settings",
    "TextDelta",
    "Turn",
    "Usage",
    "load_settings",
]


def __getattr__(name: str) -> Any:
    """`Predictor`, and torch with it, only where it is asked for: most processes need neither."""
    if name == "Predictor":
        from sa2va_bento.local.predictor import Predictor

        return Predictor
    if name == "Answer":
        from sa2va_bento.local.answer import Answer

        return Answer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
