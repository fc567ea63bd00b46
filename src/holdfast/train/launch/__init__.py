"""Starts training where it belongs: this process, or torchrun."""
