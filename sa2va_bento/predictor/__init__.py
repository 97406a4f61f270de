"""A loaded model that answers requests from any thread."""

from sa2va_bento.predictor.predictor import WARM_UP, Predictor

__all__ = ["WARM_UP", "Predictor"]
