"""Videos made for tests: shapes that move, as files of every kind."""

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
from av.video.stream import VideoStream
from PIL import Image, ImageDraw

SIZE = (96, 64)
RED, BLUE = (220, 40, 40), (40, 80, 220)


@cache
def frames(count: int, size: tuple[int, int] = SIZE, objects: int = 1) -> tuple[Image.Image, ...]:
    """A red circle that moves to the right, and a blue square that moves the other way."""
    return tuple(_frame(number, count, size, objects) for number in range(count))


def _frame(number: int, count: int, size: tuple[int, int], objects: int) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, (236, 232, 224))
    draw, radius = ImageDraw.Draw(image), height // 5
    along = radius + (width - 2 * radius) * number / max(1, count - 1)
    draw.ellipse((along - radius, height / 3 - radius, along + radius, height / 3 + radius), fill=RED)
    if objects > 1:
        back = width - along
        draw.rectangle((back - radius, height * 0.75 - radius, back + radius, height * 0.75 + radius), fill=BLUE)
    return image


def film(
    path: Path,
    images: Sequence[Image.Image],
    codec: str = "libx264",
    rate: int = 10,
    times_ms: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video whose container its name tells. `times_ms` are the frames' own times, `aspect` that of a pixel."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = images[0].size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times_ms:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_image(image)
            frame.pts = times_ms[number] if times_ms else number
            frame.time_base = Fraction(1, 1000) if times_ms else Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def animation(path: Path, images: Sequence[Image.Image], duration_ms: int = 100) -> Path:
    """An animated GIF, WebP or PNG."""
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    images[0].save(path, None, save_all=True, append_images=images[1:], duration=duration_ms, loop=0, **lossless)
    return path


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
