"""Frames to an MP4 that browsers play: H.264 in 4:2:0, its index in front."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.video.stream import VideoStream
from PIL import Image

CLOCK = 1000
"""Ticks of a second."""
FRAME_S = 0.1
"""Of a frame whose time nobody knows."""


class VideoWriter:
    """Frames of one size, each shown from its time until the next one's."""

    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: VideoStream | None = None
        self._last = -1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self._stream and kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def add(self, image: Image.Image, time_s: float | None) -> None:
        """The next frame, RGB. Odd sides lose a pixel: the format has none."""
        width, height = max(2, image.width // 2 * 2), max(2, image.height // 2 * 2)
        if self._stream is None:
            self._stream = self._begin(width, height)
        frame = av.VideoFrame.from_image(image.crop((0, 0, self._stream.width, self._stream.height)))
        moment = self._last + round(FRAME_S * CLOCK) if time_s is None else round(time_s * CLOCK)
        self._last = max(self._last + 1, moment, 0)
        frame.pts, frame.time_base = self._last, Fraction(1, CLOCK)
        self._container.mux(self._stream.encode(frame))

    def _begin(self, width: int, height: int) -> VideoStream:
        stream = self._container.add_stream("libx264", rate=CLOCK // 40, options={"crf": "20", "preset": "veryfast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK)
        stream.codec_context.thread_count = 1
        return stream
