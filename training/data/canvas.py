"""What characters are put on, and the ink that they are written in."""

import numpy as np
from PIL import Image

from training.data.backgrounds import background_of, finish, picture_size

MIN_CONTRAST = 110.0  # distance in RGB between ink and what is behind it
BUSY = 32.0  # standard deviation of what is behind, from which on a sign is put up

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""


class Canvas:
    """A background that characters are put on."""

    def __init__(self, rng: np.random.Generator, held_out: bool, longest: int) -> None:
        self.rng = rng
        self.width, self.height = picture_size(rng, longest)
        _, pixels = background_of(rng, self.width, self.height, held_out)
        self.pixels = pixels.copy()  # (H, W, 3) float32 of 0 to 255
        self.ink = np.zeros((self.height, self.width), np.float32)

    def ink_for(self, box: Box) -> np.ndarray:
        """A colour that stands out from what is in the box."""
        behind = self._part(box).reshape(-1, 3).mean(0)
        for _ in range(40):
            shade = self.rng.random()
            ink = np.full(3, 0.0 if shade < 0.35 else 255.0) if shade < 0.6 else self.rng.uniform(0, 255, 3)
            if np.linalg.norm(ink - behind) > MIN_CONTRAST:
                return ink
        return np.full(3, 0.0 if behind.mean() > 127 else 255.0)

    def is_busy(self, box: Box) -> bool:
        """Whether what is in the box varies too much to be written on."""
        return float(self._part(box).std(axis=(0, 1)).max()) > BUSY

    def write(self, cover: np.ndarray, x: int, y: int, ink: np.ndarray) -> None:
        """Paints a character's `cover` (h, w), 0 to 1, with its corner at (x, y); what sticks out is cut."""
        self._blend(self.pixels, cover[..., None], x, y, ink)
        self._blend(self.ink, cover, x, y, np.ones(1, np.float32))

    def _blend(self, layer: np.ndarray, cover: np.ndarray, x: int, y: int, color: np.ndarray) -> None:
        top, left = max(0, -y), max(0, -x)
        cover = cover[top : max(top, self.height - y), left : max(left, self.width - x)]
        part = layer[y + top : y + top + cover.shape[0], x + left : x + left + cover.shape[1]]
        part[:] = part * (1 - cover) + color * cover

    def sign(self, box: Box) -> None:
        """A plain board behind the box."""
        x0, y0, x1, y1 = box
        margin = 0.25 * (y1 - y0)
        color = self.ink_for(box)
        x0, y0, x1, y1 = (round(v) for v in (x0 - margin, y0 - margin, x1 + margin, y1 + margin))
        board = np.ones((max(1, y1 - y0), max(1, x1 - x0), 1), np.float32)
        self._blend(self.pixels, board, x0, y0, color)

    def finished(self) -> Image.Image:
        return finish(self.rng, self.pixels)

    def _part(self, box: Box) -> np.ndarray:
        x0, y0, x1, y1 = (int(v) for v in box)
        part = self.pixels[max(0, y0) : max(1, y1), max(0, x0) : max(1, x1)]
        return part if part.size else self.pixels[:1, :1]
