"""Quality against the length of an inversion."""
