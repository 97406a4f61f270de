"""What a checkpoint gets on common GPUs, told without one."""

from collections.abc import Callable

from sa2va_bento.engine.fit import Device, Fit, fit
from sa2va_bento.errors import CheckpointError
from sa2va_bento.model.loading.memory import GIB, Measures
from sa2va_bento.model.loading.quantization import Quantization
from sa2va_bento.settings import Settings

CARDS_GB = (12, 16, 24, 40, 48, 80, 141)
USABLE = 0.985
"""Of a card's nominal GiB: what its driver shows."""
RUNTIME = GIB // 2
"""What CUDA and its libraries take of a card."""
BFLOAT16 = 2


def budget(card_gb: int, share: float) -> int:
    """Bytes that a model may take of a card that it has to itself."""
    total = int(USABLE * card_gb * GIB)
    return total - RUNTIME - int((1 - share) * total)


def fit_on(
    card_gb: int,
    settings: Settings,
    measures: Callable[[int | None], Measures],
    weights: Callable[[Quantization], int],
) -> Fit | CheckpointError:
    """What a model gets on a card, in bfloat16, or why it gets nothing."""
    device = Device(budget(card_gb, settings.memory_share), BFLOAT16, gathers=True, name=f"a card of {card_gb} GB")
    try:
        return fit(settings, measures, weights, device)
    except CheckpointError as error:
        return error
