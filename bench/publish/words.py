"""Text that users wrote, on its way into a page: it stands there as it is, whatever it holds."""

from __future__ import annotations

import re

# What markdown takes for its own. An underscore within a word is none of it; & only where an entity follows.
_SPECIAL = re.compile(r"[\\`*\[\]|~]|<(?=[A-Za-z/!?])|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


class Markup(str):
    """A cell that is markdown: a link, or code. Any other text is shown as it is."""


def plain(text: str) -> str:
    """Any text as one line of markdown that shows it; pipes are escaped for tables too."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def shown(markdown: str) -> str:
    """What a line of markdown without markup shows: the inverse of `plain`."""
    return _ESCAPED.sub(r"\1", markdown)


def code(text: str) -> Markup:
    """Text as code, one line: between more backticks than it holds in a row."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{fence}{gap}{line}{gap}{fence}")


def cell(text: str) -> str:
    """Text of a table's cell: in one line, pipes escaped. Raw text is made plain, `Markup` stays what it is."""
    if not isinstance(text, Markup):
        return plain(text)
    return " ".join(re.sub(r"\\*\|", r"\\|", text).split())
