"""placeholder until the engine lands; the signature is final"""

from concurrent.futures import Future

from sa2va_bento.result import Prediction, PredictRequest
from sa2va_bento.settings import Settings


class Predictor:
    """Loads a model and answers requests; see docstrings in the final file."""

    @classmethod
    def load(cls, settings: Settings) -> "Predictor":
        """Loads the model and starts its thread. Raises StartupError / CheckpointError."""
        raise NotImplementedError

    def submit(self, request: PredictRequest) -> "Future[Prediction]":
        """Queues the request; raises OverloadedError at once when the queue is full. The future raises Sa2VAError."""
        raise NotImplementedError

    def predict(self, request: PredictRequest) -> Prediction:
        """Blocking form of `submit`."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        raise NotImplementedError

    @property
    def is_alive(self) -> bool:
        raise NotImplementedError

    @property
    def queue_depth(self) -> int:
        raise NotImplementedError

    @property
    def info(self) -> dict[str, str]:
        """family, device, dtype."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
