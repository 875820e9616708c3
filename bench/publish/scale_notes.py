"""What a scale is, in the words of its grid (`about:`, bench.grid.About): for tables, figures, claims and reports."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bench.grid import PAPER_SCALE
from bench.publish.manifest import Sheet
from bench.publish.words import plain

UNKNOWN = "models and data of its own"
NOT_THE_PAPERS = "Not the scale of the paper."
OTHER_MODELS, OTHER_SETTINGS = (
    "not the paper's models or data",
    "not all of the paper's models and data, nor its settings",
)


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
    text = f"{text} as {' and '.join(sorted(forms))}" if forms else text
    return text if (drawn := subset(*sheets)) is None else f"{text}, {drawn}"


def subset(*sheets: Sheet) -> str | None:
    """`5,000 validation pictures`, where a data set's settings name a subset; as many as were scored, where known."""
    wanted = [n for sheet in sheets for one in _datasets(sheet) if (n := one.get("subset")) is not None]
    if not wanted:
        return None
    scored = [count for sheet in sheets for record in sheet.records.values() if (count := _scored(record))]
    return f"{scored[0]:,} validation pictures" if scored else f"up to {wanted[0]:,} validation pictures"


def _datasets(sheet: Sheet) -> list[dict[str, Any]]:
    return list(sheet.settings.get("datasets", {}).values())


def _scored(record: Mapping[str, Any]) -> int | None:
    return record["metrics"].get("pictures") if record["status"] == "done" else None


def named(sheet: Sheet) -> str:
    """`digits scale`, for titles: with the subset that it is scored on, if it is."""
    drawn = subset(sheet)
    return f"{sheet.scale} scale" if drawn is None else f"{sheet.scale} scale, {drawn}"


def apart(*sheets: Sheet) -> str:
    """What tells a scale other than the paper's from it: models and data, or settings alone."""
    return OTHER_SETTINGS if any(map(_of_the_papers, sheets)) else OTHER_MODELS


def _of_the_papers(sheet: Sheet) -> bool:
    """Whether a model of the paper's scale is scored here on that scale's data, or on a subset of it."""
    models, data = (sheet.paper.get("axes", {}).get(axis, ()) for axis in ("model", "dataset"))
    cells = [entry["cell"] for entry in sheet.cells]
    return any(cell.get("model") in models and cell.get("dataset") in data for cell in cells)


def disclaimer(sheet: Sheet) -> str:
    """`**Scale: digits** (...). Not the paper's models or data, and not its figures.`: for the top of a page."""
    said = apart(sheet).capitalize()
    return f"**Scale: {sheet.scale}** ({plain(subject(sheet))}). {said}, and not its figures."


def shows(*sheets: Sheet) -> str:
    """What the scale can show and what it cannot; each grid's words once."""
    said = dict.fromkeys(sheet.about["shows"] for sheet in sheets if sheet.about.get("shows"))
    return " ".join(said) or NOT_THE_PAPERS


def reading(sheet: Sheet) -> list[str]:
    """How to read the sheet's table, as a paragraph or none; what its placeholders (bench.grid.About) stand for comes
    from the records, and where those say nothing yet, the paragraph is left out."""
    text = str(sheet.about.get("reading") or "").rstrip()
    if not text:
        return []
    done = [record for record in sheet.records.values() if record["status"] == "done"]
    pictures = next((n for record in done if (n := record["metrics"].get("pictures"))), None)
    right = [found / 100 for record in done if (found := _full_precision(record)) is not None]
    figures: dict[str, float] = {} if pictures is None else {"pictures": pictures, "step": 100 / pictures}
    if right and pictures is not None:
        mean = statistics.fmean(right)
        figures["error"] = 100 * (mean * (1 - mean) / pictures) ** 0.5
    try:
        return [text.format(**figures)]
    except KeyError:
        return []


def _full_precision(record: Mapping[str, Any]) -> float | None:
    """Top-1 (%) of the full-precision model, where the record has it."""
    if record.get("kind") == "deploy":
        return record["metrics"].get("top1", {}).get("full_precision")
    return record["metrics"]["top1"] if record.get("kind") == "evaluate" else None


def pictures(sheet: Sheet) -> str:
    """What to know when looking at the sheet's images, or nothing."""
    return str(sheet.about.get("pictures") or "").rstrip()


def line(scale: str, *sheets: Sheet) -> str:
    """`Scale: digits (...; not the paper's models or data)`."""
    other = "" if scale == PAPER_SCALE else f"; {apart(*sheets)}"
    return f"Scale: {scale} ({subject(*sheets)}{other})"
