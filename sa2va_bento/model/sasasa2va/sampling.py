"""SaSaSa2VA's sampling modes: which hundred frames of a clip the language model sees, and by which part of the answer a
frame is masked.

A hundred samples in their order are ten parts of ten. `uniform` spreads them over the clip, `wrap_around` goes through
it again from its start, `q_frame` takes those that somebody has chosen. The modes with `plus` are the evaluation's: a
frame that was sampled several times gets the mean of its masks, and nothing is followed. Source: SaSaSa2VA's
`predict_forward`; that `q_frame` prompts the first hundred frames of a longer clip, and not the chosen ones, is its
way, too.
"""

from collections.abc import Callable

from sa2va_bento.errors import BadRequestError
from sa2va_bento.model.clip_sampling import ClipPlan
from sa2va_bento.model.sasasa2va.config import PART_FRAMES, PARTS

SAMPLES = PARTS * PART_FRAMES
UNIFORM, UNIFORM_PLUS, Q_FRAME = "uniform", "uniform_plus", "q_frame"
WRAP_AROUND, WRAP_AROUND_PLUS = "wrap_around", "wrap_around_plus"
MODES = (UNIFORM, UNIFORM_PLUS, WRAP_AROUND, WRAP_AROUND_PLUS, Q_FRAME)

PartsOf = Callable[[int], tuple[int, ...]]


def plan(frames: int, mode: str, selected: tuple[int, ...]) -> ClipPlan:
    """The plan for a clip of so many frames.

    Raises:
        BadRequestError: chosen frames that are not a hundred of the clip's, or where nobody should choose.
    """
    samples = _samples(frames, mode, selected)
    if frames == SAMPLES:
        return ClipPlan(samples, _by_tens)
    if frames > SAMPLES:
        follows = mode in (WRAP_AROUND, Q_FRAME)
        return ClipPlan(samples, _first_hundred if follows else _spread(frames), follows)
    if mode in (UNIFORM_PLUS, Q_FRAME):
        return ClipPlan(samples, _all_parts(samples))
    return ClipPlan(samples, _spread(frames) if mode == UNIFORM else _first_part(samples))


def _samples(frames: int, mode: str, selected: tuple[int, ...]) -> tuple[int, ...]:
    if mode == Q_FRAME:
        return _checked(frames, selected)
    if selected:
        raise BadRequestError(f"selected: goes with mode {Q_FRAME} alone")
    if mode == WRAP_AROUND or (mode == WRAP_AROUND_PLUS and frames <= SAMPLES):
        return tuple(sorted(place % frames for place in range(SAMPLES)))
    return tuple(place * frames // SAMPLES for place in range(SAMPLES))


def _checked(frames: int, selected: tuple[int, ...]) -> tuple[int, ...]:
    if len(selected) != SAMPLES:
        raise BadRequestError(f"selected: mode {Q_FRAME} takes {SAMPLES} frames, there are {len(selected)}")
    if beyond := [place for place in selected if not 0 <= place < frames]:
        raise BadRequestError(f"selected: the clip has {frames} frames, none at {beyond[0]}")
    return tuple(sorted(selected))


def _by_tens(frame: int) -> tuple[int, ...]:
    return (frame // PART_FRAMES,)


def _first_hundred(frame: int) -> tuple[int, ...]:
    return _by_tens(frame) if frame < SAMPLES else ()


def _spread(frames: int) -> PartsOf:
    return lambda frame: (min(frame * PARTS // frames, PARTS - 1),)


def _all_parts(samples: tuple[int, ...]) -> PartsOf:
    """Those of all of a frame's samples; of the nearest sample where it has none."""

    def parts(frame: int) -> tuple[int, ...]:
        found = tuple(place // PART_FRAMES for place, sample in enumerate(samples) if sample == frame)
        nearest = min(range(SAMPLES), key=lambda place: abs(samples[place] - frame))
        return found or (nearest // PART_FRAMES,)

    return parts


def _first_part(samples: tuple[int, ...]) -> PartsOf:
    everything = _all_parts(samples)
    return lambda frame: everything(frame)[:1]
