"""Sa2VA behind BentoML: a picture and a prompt go in, text and masks come out.

In Python, without HTTP:

    from PIL import Image
    from sa2va_bento import Predictor, PredictRequest, load_settings

    predictor = Predictor.load(load_settings())
    picture = Image.open("docs/shapes.png").convert("RGB")
    prediction = predictor.predict(PredictRequest("Please segment the red circle.", picture))
    predictor.close()
"""

from typing import TYPE_CHECKING, Any

from sa2va_bento.errors import Sa2VAError
from sa2va_bento.settings import Settings, load_settings
from sa2va_bento.types import Prediction, PredictRequest, Sampling, Segment, SegmentReady, TextDelta, Turn, Usage

if TYPE_CHECKING:
    from sa2va_bento.predictor import Predictor

__version__ = "0.1.0"

__all__ = [
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
        from sa2va_bento.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
