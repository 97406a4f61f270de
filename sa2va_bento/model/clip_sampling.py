"""How a family reads clips that samples them in a way of its own, instead of showing some frames as they are."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from PIL import Image

from sa2va_bento.types import Picture


@dataclass(frozen=True)
class ClipPlan:
    """What becomes of a clip's frames. `samples` are the places of those that the language model sees, in order, a
    frame perhaps more than once. `parts` says of a frame which of the object's prompts, counted from 0, its mask is
    made by: the mean of their masks where there are several; none where it is followed from frames before. `follows`
    is whether there are such frames."""

    samples: tuple[int, ...]
    parts: Callable[[int], tuple[int, ...]]
    follows: bool = False


@dataclass(frozen=True)
class ClipSampling:
    """`modes` are the names of the ways to sample, the usual one first; `plan` gives a clip's plan by its length, the
    mode, and the places of the frames where somebody else has chosen them. `pictures` turns the sampled frames into
    what the vision tower sees, which `picture` prepares, as `Family.image_processor` does."""

    modes: tuple[str, ...]
    plan: Callable[[int, str, tuple[int, ...]], ClipPlan]
    pictures: Callable[[Iterable[Image.Image]], Iterator[Image.Image]]
    picture: Callable[..., Picture]
