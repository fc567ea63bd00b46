"""Knows a model's dimensions without loading it."""
