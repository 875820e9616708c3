"""Inverted images to look at, and the figures that show them."""
