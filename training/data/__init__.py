"""Synthetic pictures and clips with their ground truth, their shards on disk, data augmentation, and batches."""
