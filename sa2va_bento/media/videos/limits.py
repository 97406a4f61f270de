"""What is known of a video before its frames, and how large these may be."""

from dataclasses import asdict, dataclass
from typing import Any

from sa2va_bento.errors import PayloadTooLargeError

MAX_SIDE = 65_535
"""Longest side in pixels, as of a picture."""


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels as displayed; what the file says of its length and rate, which need not be true."""

    width: int
    height: int
    codec: str
    frames: int | None = None
    fps: float | None = None
    duration_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Raises PayloadTooLargeError where frames of `size` (W, H) are larger than pictures may be."""
    if size[0] * size[1] > max_pixels or max(size) > MAX_SIDE:
        raise PayloadTooLargeError(
            f"video: its frames have {size[0]}x{size[1]} pixels, at most {max_pixels / 1e6:g} million are taken"
        )
