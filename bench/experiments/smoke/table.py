"""What a smoke test ran, and where: one row per task. No figure in it says anything about any method."""

from __future__ import annotations

from bench.publish.manifest import Sheet
from bench.publish.parts import NOT_RUN, NOTHING, figure, footer, heading, markdown

NOTE = (
    "Models are hardly trained and images hardly inverted: this shows that tasks run here, and nothing else."
)


def text(sheet: Sheet) -> str:
    """The whole page, markdown."""
    rows = {}
    for entry in sheet.cells:
        for name in entry["tasks"].values():
            record = sheet.records.get(name, {})
            error = record.get("error") or {}
            state = f"failed: {error['cause']}" if error else record.get("status", NOT_RUN)
            rows[name] = {
                "kind": name.partition("-")[0],
                "task": record.get("label") or name,
                "state": state,
                "seconds": figure(record.get("seconds"), 1),
                "device": record.get("device", NOTHING),
            }
    ordered = sorted(rows.values(), key=lambda row: (row["kind"], row["task"]))
    head = f"# Smoke test, {sheet.scale} scale: {heading(sheet.title)}"
    return "\n\n".join([head, markdown(ordered), NOTE, "## How this was made", footer(sheet)]) + "\n"
