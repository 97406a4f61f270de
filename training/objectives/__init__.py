"""Losses of the stages: those of the model itself, and auxiliary losses."""
