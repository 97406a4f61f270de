"""What is known of a grounding encoder: the model that makes masks of `[SEG]` prompts and follows them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sa2va_bento.model.weight_rules import WeightRules

NO_RULES = WeightRules()


class GroundingShape(Protocol):
    """The sizes of a grounding encoder that others ask for."""

    @property
    def image_size(self) -> int:
        """Side of the square that it sees, in pixels."""
        ...

    @property
    def d_model(self) -> int:
        """Width of its prompts."""
        ...

    @property
    def mask_side(self) -> int:
        """Side of its masks, before they are scaled to the picture."""
        ...

    @property
    def peak_width(self) -> int:
        """What the memory of encoding a picture depends on, beside the number of a mask's cells: the width of Hiera's
        first stage, or what takes as much."""
        ...

    @property
    def summary(self) -> str:
        """For people."""
        ...


@dataclass(frozen=True)
class GroundingEncoder:
    """All that the project knows of a grounding encoder; adding one is writing this, in a file of its own, and a line
    in `sa2va_bento.model.registry`.

    `marker` is how those names of a checkpoint's tensors begin that tell that it has this one: `config.json` does not.
    `configure` reads a `sa2va_native` block, which may be empty; `model` builds the modules without weights, which
    have the sub-modules and the methods of `Sam2VideoModel`; `weight_rules` are those of its own tensors, before
    SAM2's.
    """

    name: str
    marker: str
    configure: Callable[[Mapping[str, Any]], tuple[Any, GroundingShape]]
    model: Callable[[Any], Any]
    weight_rules: WeightRules = NO_RULES
    licence: str | None = None
    """Of its weights, where a checkpoint's card may not name it."""
