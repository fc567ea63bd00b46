"""Keeps what was done: the run folder, its stages, its records."""
