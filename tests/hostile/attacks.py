"""What strangers send: small files that cost much, bodies that blow up, connections that hold on."""

import gzip
import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.hostile.server import Server, question
from tests.pictures import b64, encode

JSON = {"Content-Type": "application/json"}


def ask(server: Server, body: Any, path: str = "/process", timeout: float = 90) -> httpx.Response:
    """A request with a body that compresses well, as gzip."""
    data = gzip.compress(body if isinstance(body, bytes) else json.dumps(body).encode(), 1)
    return httpx.post(server.url + path, content=data, headers={**JSON, "Content-Encoding": "gzip"}, timeout=timeout)


def about(picture: bytes, **fields: Any) -> dict[str, Any]:
    return {"base64Image": b64(picture), "prompt": "What is this?", **fields}


def progressive_jpeg(scans: int, side: int = 4000) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    plain = encode(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    last = plain.rindex(b"\xff\xda")
    return plain[:last] + plain[last:-2] * scans + plain[-2:]


def tiff_of_strips(count: int) -> bytes:
    """A TIFF that names so many strips."""
    entries = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, count, 200), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, 200 + 4 * count)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = b"II*\0" + struct.pack("<I", 8) + directory
    return head.ljust(200, b"\0") + bytes(8 * count)


def png_of_chunks(count: int) -> bytes:
    """A PNG with so many empty chunks."""
    plain = encode(Image.new("L", (8, 8)))
    return plain[:33] + b"\0\0\0\0teSt\xc9\x3d\x8f\xcc" * count + plain[33:]


def white(side: int) -> bytes:
    return encode(Image.new("L", (side, side), 255))


def photograph(width: int, height: int, seed: int = 0) -> bytes:
    """A JPEG that takes its time to decode."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return encode(Image.fromarray(noise).resize((width, height)), "JPEG", quality=90)


def zigzag(points: int, width: int, height: int) -> list[list[int]]:
    return [[x % width, (x % 2) * height] for x in range(points)]


def several(count: int, work: Any) -> list[Any]:
    """What `work(number)` returns, all at once."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def statuses(responses: list[httpx.Response]) -> set[int]:
    return {response.status_code for response in responses}


def question_with(**fields: Any) -> dict[str, Any]:
    return {**question(), **fields}


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
