"""An ordered list of picture files as a clip."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sa2va_bento.clips import ClipFrame
from sa2va_bento.errors import BadRequestError
from sa2va_bento.media.images import decode_image
from sa2va_bento.media.videos.limits import VideoInfo
from sa2va_bento.media.videos.selection import EVERY_FRAME, Selection, select


@dataclass
class PictureSequence:
    """Pictures of one size, decoded one at a time; they have no times. `info` says how large they are, once the first
    was decoded.

    Raises:
        As `decode_image`; BadRequestError where their sizes differ.
    """

    paths: tuple[Path, ...]
    max_pixels: int
    selection: Selection = EVERY_FRAME
    info: VideoInfo | None = None
    damaged: int = 0

    def frames(self) -> Iterator[ClipFrame]:
        """As `sa2va_bento.clips.Clip`."""
        size: tuple[int, int] | None = None
        for taken in select(((None, place) for place in range(len(self.paths))), self.selection):
            image = self._decode(taken.picture)
            if size is None:
                size, self.info = image.size, VideoInfo(*image.size, codec="pictures", frames=len(self.paths))
            if image.size != size:
                found, first = ("{}x{}".format(*pair) for pair in (image.size, size))
                raise BadRequestError(f"frames[{taken.picture}]: {found} pixels, the first has {first}")
            yield ClipFrame(taken.index, taken.source_index, None, image)

    def count(self) -> int:
        """As `sa2va_bento.clips.Clip`."""
        return sum(1 for _ in select(((None, place) for place in range(len(self.paths))), self.selection))

    def _decode(self, place: int) -> Image.Image:
        return decode_image(self.paths[place].read_bytes(), self.max_pixels, f"frames[{place}]")
