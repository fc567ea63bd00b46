"""Asks, judges and grades: from an item to a reading."""
