"""Turns what a user brings into what is trained on: chat templates, equal budget, no leaks."""
