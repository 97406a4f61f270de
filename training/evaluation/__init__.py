"""Measures a checkpoint through the serving code on pictures that training never saw."""
