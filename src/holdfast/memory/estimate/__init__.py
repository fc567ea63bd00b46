"""Estimates the bytes that a training takes."""
