"""Knows GPUs: those that are there and those that a user names."""
