"""Videos by FFmpeg (PyAV): frames upright, of square pixels, with the time at which each is shown.

Only in a reading process (`reading`): a library that parses what strangers send may hang, or take its process down.
"""

from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from sa2va_bento.errors import BadRequestError, UnsupportedMediaError
from sa2va_bento.media.videos.limits import VideoInfo, check_size

CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "mpeg1video", "mpeg2video", "h263", "theora", "prores"}
    | {"msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "flv1", "rawvideo", "ffv1", "huffyuv", "qtrle", "cinepak", "png"}
    | {"libdav1d", "libvpx", "libvpx-vp9", "dnxhd", "svq1", "svq3", "dvvideo", "utvideo", "v210"}
)
"""Of those that the containers may hold: what cameras, phones, browsers and data sets write."""
MOST_DAMAGED = 200
"""Packets in a row that can't be decoded, after which a file counts as damaged."""
MOST_STRETCHED = 16
"""Width to height of a pixel, at most, or the other way round."""


class Video:
    """An opened file. `info` says what is in it; `damaged` counts packets that could not be decoded.

    Raises:
        BadRequestError: the file can't be read, or there is no picture in it.
        UnsupportedMediaError: its pictures are in a codec that is not read.
        PayloadTooLargeError: they are too large.
    """

    def __init__(self, path: str, demuxer: str, max_pixels: int) -> None:
        self._max_pixels, self.damaged = max_pixels, 0
        self._file = open(path, "rb")  # noqa: SIM115 - kept open; given as a file, so that no protocol is ever opened
        try:
            container = av.open(self._file, format=demuxer, metadata_errors="replace")
        except (FFmpegError, ValueError, UnicodeError) as error:
            raise BadRequestError("video: damaged, or not what it seems to be") from error
        assert isinstance(container, InputContainer)
        self._container, self._stream = container, _picture_stream(container)
        self.info = self._describe()

    def frames(self) -> Iterator[tuple[float | None, Image.Image]]:
        """Each frame as it is displayed, and when; all of the size of the first."""
        size, before = None, 0.0
        for frame in self._decoded():
            check_size((frame.width, frame.height), self._max_pixels)
            size = size or _displayed_size(frame, self._stream)
            time_s = self._time_of(frame)
            if time_s is not None:  # never back in time, whatever the file says
                before = time_s = max(before, time_s)
            yield time_s, _upright(frame, size)

    def count(self) -> Iterator[tuple[float | None, None]]:
        """The times of `frames`, without their pictures."""
        before = 0.0
        for frame in self._decoded():
            time_s = self._time_of(frame)
            if time_s is not None:
                before = time_s = max(before, time_s)
            yield time_s, None

    def _describe(self) -> VideoInfo:
        stream, context = self._stream, self._stream.codec_context
        check_size((context.width, context.height), self._max_pixels)
        rate, duration = stream.average_rate or stream.guessed_rate, self._duration()
        frames = stream.frames or (int(duration * rate) if duration and rate else None)
        return VideoInfo(
            width=context.width,
            height=context.height,
            codec=context.name,
            frames=frames or None,
            fps=float(rate) if rate else None,
            duration_s=duration,
        )

    def _duration(self) -> float | None:
        stream = self._stream
        if stream.duration is not None and stream.time_base:
            return float(stream.duration * stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None

    def _decoded(self) -> Iterator[VideoFrame]:
        """Every frame that can be decoded.

        Raises:
            BadRequestError: none can.
        """
        found, in_a_row = 0, 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = packet.decode()
            except FFmpegError:
                self.damaged += 1
                in_a_row += 1
                if in_a_row > MOST_DAMAGED:
                    break
                continue
            in_a_row = 0 if frames else in_a_row
            for frame in frames:
                if isinstance(frame, VideoFrame):
                    found += 1
                    yield frame
        if not found:
            raise BadRequestError("video: damaged: no frame of it can be decoded")

    def _time_of(self, frame: VideoFrame) -> float | None:
        """Seconds after the start of the file, which players call 0."""
        if frame.time is None:
            return None
        start = self._container.start_time
        return max(0.0, frame.time - (start / av.time_base if start else 0.0))


def _picture_stream(container: InputContainer) -> VideoStream:
    """The stream that players show: the first that is no cover picture.

    Raises:
        BadRequestError: there is none.
        UnsupportedMediaError: its codec is not read.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise BadRequestError("video: there are no pictures in it")
    stream = container.streams.best("video") if len(streams) == len(container.streams.video) else streams[0]
    assert isinstance(stream, VideoStream)
    context = stream.codec_context
    if context is None or context.name not in CODECS:
        name = context.name if context is not None else "its codec"
        raise UnsupportedMediaError(f"video: {name} is not supported")
    if not context.width or not context.height:
        raise BadRequestError("video: damaged: its frames have no size")
    context.thread_count = 1  # the other processors have other work, and each thread holds frames
    return stream


def _displayed_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height with square pixels, upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width, height = frame.width, frame.height
    if aspect > 0 and aspect != 1 and max(aspect, 1 / aspect) <= MOST_STRETCHED:
        width = max(1, round(width * aspect)) if aspect > 1 else width
        height = max(1, round(height / aspect)) if aspect < 1 else height
    return (height, width) if round(frame.rotation / 90) % 2 else (width, height)


_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


def _upright(frame: VideoFrame, size: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = _TURNS.get(round(frame.rotation / 90) % 4)
    image = image.transpose(turn) if turn is not None else image
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
