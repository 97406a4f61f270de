"""What a file of frames is, told by how it begins; its name and what a client calls it do not count."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sa2va_bento.errors import BadRequestError, UnsupportedMediaError

HEAD = 4096
"""Bytes that are looked at."""


@dataclass(frozen=True)
class Kind:
    """A container. `demuxer` is FFmpeg's name for it; without one Pillow reads it, as `name`."""

    name: str
    demuxer: str | None = None


MP4 = Kind("MP4", "mov,mp4,m4a,3gp,3g2,mj2")
MATROSKA = Kind("Matroska", "matroska,webm")
AVI = Kind("AVI", "avi")

_KINDS: Mapping[Kind, bytes] = {
    MP4: rb"....(ftyp|moov|mdat|wide|free|skip|pnot)",
    MATROSKA: rb"\x1aE\xdf\xa3",
    AVI: rb"RIFF....AVI ",
    Kind("GIF"): rb"GIF8[79]a",
    Kind("WEBP"): rb"RIFF....WEBP",
    Kind("PNG"): rb"\x89PNG\r\n\x1a\n",
}
_PICTURES = rb"....ftyp(avif|avis|hei|mif1|msf1)"
_OTHERS: Mapping[str, bytes] = {
    "AVIF or HEIF": _PICTURES,
    "MPEG transport stream": rb"G.{187}G",
    "MPEG program stream": rb"\x00\x00\x01[\xba\xb3]",
    "Flash video": rb"FLV\x01",
    "Ogg": rb"OggS",
    "Windows Media": rb"0&\xb2u\x8ef\xcf\x11",
    "JPEG": rb"\xff\xd8\xff",
    "HLS playlist": rb"#EXTM3U",
    "ZIP": rb"PK\x03\x04",
    "PDF": rb"%PDF",
}
SUPPORTED = "MP4, MOV, WebM, MKV, AVI, or an animated GIF, WebP or PNG"


def kind_of(head: bytes, field: str = "video") -> Kind:
    """The kind of a file that begins with `head`.

    Raises:
        UnsupportedMediaError: frames in a container that is not read, or no frames.
        BadRequestError: nothing that is known.
    """
    for name, magic in _OTHERS.items():
        if re.match(magic, head, re.DOTALL):
            raise UnsupportedMediaError(f"{field}: {name} is not supported (expected {SUPPORTED})")
    for kind, magic in _KINDS.items():
        if re.match(magic, head, re.DOTALL):
            return kind
    raise BadRequestError(f"{field}: not a video (expected {SUPPORTED})")
