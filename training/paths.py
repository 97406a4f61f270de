"""Where the package keeps what it makes."""

from pathlib import Path

RUNS = Path(__file__).parent / "runs"
"""Shards, the stages' checkpoints and logs, figures. Not in git."""
