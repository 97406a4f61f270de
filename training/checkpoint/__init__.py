"""Weights: how they start, what the stages have saved, the export, and going on from it."""
