"""Numbers that upstream publishes of its checkpoints, as their cards have them, and what may tell ours from them."""

from collections.abc import Mapping

COLUMNS = ("refcoco", "refcoco+", "refcocog", "mevis", "ref-davis")
"""cIoU of the `val` splits; J&F of MeViS' `valid_u` and of Ref-DAVIS17's `valid`."""
NUMBERS: Mapping[str, tuple[float, ...]] = {
    "Sa2VA-1B": (79.6, 73.6, 77.7, 53.4, 69.5),
    "Sa2VA-4B": (82.4, 77.6, 79.7, 55.9, 73.7),
    "Sa2VA-8B": (82.6, 78.0, 80.3, 58.9, 75.9),
    "Sa2VA-26B": (82.9, 79.3, 81.2, 61.8, 78.6),
    "Sa2VA-InternVL3-2B": (81.4, 75.7, 80.3, 53.9, 74.5),
    "Sa2VA-InternVL3-8B": (83.3, 78.9, 81.8, 56.4, 76.3),
    "Sa2VA-InternVL3-14B": (83.6, 79.9, 83.6, 59.2, 76.6),
    "Sa2VA-Qwen2_5-VL-3B": (79.6, 74.0, 77.1, 51.6, 73.4),
}
SPLITS = {"refcoco": "val", "refcoco+": "val", "refcocog": "val", "mevis": "valid_u", "ref-davis": "valid"}
DIFFERENCES = (
    "all masks of an answer count together for a picture, the first alone for a clip (--masks), as upstream has it",
    "a mask is cut at a probability of 0.5 (--threshold), logits at 0 upstream",
    "bfloat16 on a GPU, as upstream; float32 on a CPU moves single answers",
    "prompts are upstream's, their leading blank with them",
)
"""What is the same or not, for whoever looks for the cause of a gap."""


def published(model: str, dataset: str, split: str) -> float | None:
    """The number of a checkpoint, in percent, by the last part of its name."""
    row = NUMBERS.get(model.rstrip("/").rpartition("/")[2])
    return row[COLUMNS.index(dataset)] if row and SPLITS.get(dataset) == split else None
