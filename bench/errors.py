"""Errors that are the user's to mend: one line that says what is wrong, where, and what is allowed."""

from collections.abc import Iterator


class BenchError(Exception):
    """Bad input. The command line prints it as one line and ends with exit code 2."""


class MissingData(BenchError):
    """A data set, or weights, are not on this machine; the message says what to fetch and where to put it."""


class RefusedSetting(BenchError):
    """A setting of a data set that it does not know, or of a value that makes no sense."""


class StoreError(BenchError):
    """The store, or the decode cache, cannot be used: full disk, read-only, no permission. Nothing is half-written; run
    again after."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it was raised from, outermost first; each once, as a chain may close on itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
