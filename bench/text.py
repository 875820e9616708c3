"""Durations, counts and foreign text in words, the same in every line that the command line prints."""

from __future__ import annotations

UNITS = ("B", "kB", "MB", "GB", "TB")


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`, `4 days 3 h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest and minutes < 10 else "")
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    days, hours = divmod(hours, 24)
    return f"{days} days" + (f" {hours} h" if hours and days < 10 else "")


def estimate(seconds: float, unknown: int) -> str:
    """`about 3 min`, `about 3 min and 2 tasks of unknown length`, `2 tasks of unknown length`."""
    if not unknown:
        return f"about {duration(seconds)}"
    tasks = f"{unknown} task{'s' if unknown > 1 else ''} of unknown length"
    return f"about {duration(seconds)} and {tasks}" if seconds else tasks


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def one_line(text: str, limit: int = 400) -> str:
    """Text with line ends and control characters made visible, cut at `limit` characters."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def bytes_text(number: float) -> str:
    """`17 B`, `1.2 kB`, `7.5 GB`: of 1000 each."""
    for unit in UNITS[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} {UNITS[-1]}"
