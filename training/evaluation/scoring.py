"""What answers are marked by: overlap of masks, and the words and numbers in a reply."""

import re
from collections.abc import Sequence

import numpy as np

from sa2va_bento.types import Prediction

PLACE_WORDS = ("top", "bottom", "left", "right", "middle")
NUMBER_WORDS = {"no": 0, "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of masks (H, W); 1 where both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0


def united(got: Prediction) -> np.ndarray:
    return np.logical_or.reduce([segment.mask for segment in got.segments])


def matched(masks: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> list[float]:
    """IoU of each truth with the mask that it is matched to, best pairs first; 0 for those that none is left for."""
    pairs = sorted(
        ((mask_iou(mask, truth), i, j) for i, mask in enumerate(masks) for j, truth in enumerate(truths)), reverse=True
    )
    found: dict[int, float] = {}
    used: set[int] = set()
    for iou, i, j in pairs:
        if i not in used and j not in found:
            used.add(i)
            found[j] = iou
    return [found.get(j, 0.0) for j in range(len(truths))]


def words_in(text: str, words: Sequence[str]) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text.lower()) if word in words}


def numbers_in(text: str) -> set[int]:
    """Every number that a reply names, in digits or words."""
    words = re.findall(r"[a-z]+|\d+", text.lower())
    return {
        int(word) if word.isdigit() else NUMBER_WORDS[word] for word in words if word.isdigit() or word in NUMBER_WORDS
    }
