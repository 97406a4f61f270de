"""Animated GIF, WebP and PNG by Pillow: frames with the time at which each is shown."""

from collections.abc import Iterator

from PIL import Image, ImageSequence

from sa2va_bento.errors import BadRequestError
from sa2va_bento.media.color import to_rgb
from sa2va_bento.media.videos.limits import VideoInfo, check_size

LEAST_S = 0.01
"""Of a frame: browsers, too, show none for less."""


class Animation:
    """An opened file. `info` says what is in it."""

    def __init__(self, path: str, name: str, max_pixels: int) -> None:
        self._image = Image.open(path, formats=[name])
        check_size(self._image.size, max_pixels)
        frames = getattr(self._image, "n_frames", 1)
        self.info = VideoInfo(*self._image.size, codec=name.lower(), frames=frames)
        self.damaged = 0

    def frames(self) -> Iterator[tuple[float | None, Image.Image]]:
        """Each frame as it is seen, and when.

        Raises:
            BadRequestError: the first frame is damaged; a later one ends the animation.
        """
        time_s = 0.0
        frames = iter(ImageSequence.Iterator(self._image))
        while True:
            try:
                frame = next(frames, None)
                if frame is None:
                    return
                image = to_rgb(frame.convert("RGBA"), False, None)
            except MemoryError:
                raise
            except Exception:  # Pillow's decoders raise whatever their parsers run into
                self.damaged += 1
                if time_s == 0.0:
                    raise BadRequestError("video: damaged") from None
                return
            yield time_s, image
            time_s += max(LEAST_S, float(frame.info.get("duration") or 100) / 1000)
