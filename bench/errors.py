"""Errors that are the user's to mend: one line that says what is wrong, where, and what is allowed."""


class BenchError(Exception):
    """Bad input. The command line prints it as one line and ends with exit code 2."""
