"""Segments as the labels of other tools: each module writes one format, of which its docstring says who reads it."""
