"""Extension of griffe: the docstrings' lines "name: what it is" become lists, which Markdown would run together."""

from __future__ import annotations

import re
from typing import Any

import griffe

ITEM = re.compile(r"([\w, ]+?): ")


class Arguments(griffe.Extension):
    """Rewrites the docstring of every function and class when it has been read."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        _rewrite(func, {parameter.name for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        _rewrite(cls, set(cls.attributes))


def _rewrite(thing: griffe.Object, names: set[str]) -> None:
    if thing.docstring is not None:
        thing.docstring.value = as_list(thing.docstring.value, names)


def as_list(text: str, names: set[str]) -> str:
    """The text with each line that begins with some of these names and a colon as an item, its further lines in it.

    Further lines are indented, or go on with a sentence. "Returns" and "Raises" begin a paragraph.
    """
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        match = ITEM.match(line)
        if match and set(match[1].split(", ")) <= names:
            lines += [] if inside else [""]
            told = ", ".join(f"`{name}`" for name in match[1].split(", "))
            lines.append(f"- {told}: {line[match.end() :]}")
            inside = True
        elif inside and line.strip() and (line[0] == " " or not _begins(line, lines[-1])):
            lines.append(f"    {line.strip()}")
        else:
            starts = inside or re.match(r"(Returns|Raises) ", line)
            lines += ["", line] if starts and line.strip() else [line]
            inside = False
    return "\n".join(lines)


def _begins(line: str, before: str) -> bool:
    """Whether a line begins a paragraph: with a capital letter, after the end of a sentence."""
    return line[:1].isupper() and before.rstrip().endswith((".", ":"))
