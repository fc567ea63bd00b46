"""Turns readings into figures, caveats, costs and a decision."""
