"""Runs a model's own code under fake tensors and counts what it keeps."""
