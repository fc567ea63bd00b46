"""Chooses a way to run a training, and explains it."""
