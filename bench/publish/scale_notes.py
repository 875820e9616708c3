"""What a scale is, in the words of its grid (`about:`, bench.grid.About): for tables, figures, claims and reports."""

from __future__ import annotations

import statistics

from bench.grid import PAPER_SCALE
from bench.publish.manifest import Sheet

UNKNOWN = "models and data of its own"
NOT_THE_PAPERS = "Not the scale of the paper."


def subject(*sheets: Sheet) -> str:
    """What is inverted and its data, a line of plain text, with the data's form where records say it is no original."""
    given = next((sheet.about["subject"] for sheet in sheets if sheet.about.get("subject")), UNKNOWN)
    text = " ".join(given.split())
    forms = {
        form
        for sheet in sheets
        for record in sheet.records.values()
        for key in ("test", "train")
        if isinstance(named := record.get("settings", {}).get(key), dict) and (form := named.get("form"))
    }
    return f"{text} as {' and '.join(sorted(forms))}" if forms else text


def shows(*sheets: Sheet) -> str:
    """What the scale can show and what it cannot; each grid's words once."""
    said = dict.fromkeys(sheet.about["shows"] for sheet in sheets if sheet.about.get("shows"))
    return " ".join(said) or NOT_THE_PAPERS


def reading(sheet: Sheet) -> list[str]:
    """How to read the sheet's table, as a paragraph or none; what its placeholders (bench.grid.About) stand for comes
    from the records, and where those say nothing yet, the paragraph is left out."""
    text = str(sheet.about.get("reading") or "").rstrip()
    done = [record for record in sheet.records.values() if record["status"] == "done"]
    pictures = next((n for record in done if (n := record["metrics"].get("pictures"))), None)
    right = [record["metrics"]["top1"] / 100 for record in done if record.get("kind") == "evaluate"]
    figures: dict[str, float] = {} if pictures is None else {"pictures": pictures, "step": 100 / pictures}
    if right and pictures is not None:
        mean = statistics.fmean(right)
        figures["error"] = 100 * (mean * (1 - mean) / pictures) ** 0.5
    try:
        return [text.format(**figures)] if text else []
    except KeyError:
        return []


def pictures(sheet: Sheet) -> str:
    """What to know when looking at the sheet's images, or nothing."""
    return str(sheet.about.get("pictures") or "").rstrip()


def line(scale: str, *sheets: Sheet) -> str:
    """`Scale: digits (...; not the paper's models or data)`."""
    other = "" if scale == PAPER_SCALE else "; not the paper's models or data"
    return f"Scale: {scale} ({subject(*sheets)}{other})"
