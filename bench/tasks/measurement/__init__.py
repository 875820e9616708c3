"""Timing in a process of its own, beside the published way of doing it."""
