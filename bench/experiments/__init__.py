"""The one registry of experiments: what turns cells into tasks, and records into a table, figures and claims.

An experiment is one folder here and one entry in EXPERIMENTS. Its parts are named ("module:attribute") and imported
when they are first asked for, since torch, pandas and matplotlib take seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from bench.engine.plan import CellTasks
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.grid import Grid

Part = str | Callable[..., Any]  # "module:attribute", or the function itself


@dataclass(frozen=True)
class Experiment:
    """build: (grid, scale, sources) -> list[CellTasks]. table: (sheet) -> the page, markdown.

    pages: (sheet) -> {path below results/: text}, further pages. figures: each a bench.publish.figures.kinds.Figure.
    claims: a tuple of bench.publish.claims.Claim. quotes: an experiment whose finished records, from whatever
    published grid, the table shows too (`Sheet.quoted`). pictures: the table only lists what figures are drawn from,
    and stands last in a report. summaries: (sheet) -> list[bench.publish.summary.Summary], for the report.
    """

    build: Part
    table: Part
    pages: Part | None = None
    figures: tuple[Any, ...] = ()
    claims: Any = ()
    quotes: str | None = None
    pictures: bool = False
    summaries: Part | None = None


def _at(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{__name__}.{folder}.{name}" for name in names)


EXPERIMENTS: dict[str, Experiment] = {
    "quantization": Experiment(
        *_at("quantization", "plan:build", "table:text"),
        claims=f"{__name__}.quantization.claims:CLAIMS",
        quotes="cost",
        summaries=f"{__name__}.quantization.summary:summaries",
        figures=_at("quantization", "looks:FIGURE", "selected:MAPS", "selected:AGREEMENT"),
    ),
    "four_bits": Experiment(*_at("four_bits", "plan:build", "table:text")),
    "gallery": Experiment(
        *_at("gallery", "plan:build", "table:text"),
        figures=_at(
            "gallery",
            "trajectory:MOVING",
            "trajectory:STRIP",
            "importance:FIGURE",
            "classes:FIGURE",
            "patch_sizes:FIGURE",
            "loss:FIGURE",
        ),
        pictures=True,
    ),
    "deviations": Experiment(*_at("deviations", "plan:build", "table:text")),
    "iterations": Experiment(
        *_at("iterations", "plan:build", "table:text"),
        figures=_at("iterations", "figure:SPARSITY", "figure:SECONDS"),
    ),
    "transfer": Experiment(
        *_at("transfer", "plan:build", "table:text"),
        figures=_at("transfer", "figure:FIGURE"),
        claims=f"{__name__}.transfer.claims:CLAIMS",
        summaries=f"{__name__}.transfer.summary:summaries",
    ),
    "equal_seconds": Experiment(
        f"{__name__}.transfer.plan:build",  # Table 4's tasks
        *_at("equal_seconds", "table:text"),
        figures=_at("equal_seconds", "figure:FIGURE"),
        claims=f"{__name__}.equal_seconds.claims:CLAIMS",
    ),
    "background": Experiment(
        *_at("background", "plan:build", "table:text"), claims=f"{__name__}.background.claims:CLAIMS"
    ),
    "choices": Experiment(*_at("choices", "plan:build", "table:text")),
    "cost": Experiment(
        *_at("cost", "plan:build", "table:text", "table:pages"), figures=_at("cost", "figure:FIGURE")
    ),
    "inefficiency": Experiment(*_at("cost", "plan:build", "inefficiency:text")),  # Table 1: cost's tasks
    "deploy": Experiment(
        *_at("deploy", "plan:build", "table:text"),
        figures=_at("deploy", "figure:FIGURE", "figure:QUALITY_FIGURE"),
    ),
    "smoke": Experiment(*_at("smoke", "plan:build", "table:text")),
}


def register(name: str, experiment: Experiment) -> None:
    """Add an experiment of one's own. Raises BenchError where the name is taken."""
    if name in EXPERIMENTS:
        raise BenchError(f"the experiment {name!r} is there already; give yours another name")
    EXPERIMENTS[name] = experiment


def part(named: Any) -> Any:
    """A part of an experiment, imported if it is only named."""
    return resolve_name(named) if isinstance(named, str) else named


def build(grid: Grid, scale: str, sources: Sources) -> list[CellTasks]:
    """Every cell of a scale with its tasks. Raises BenchError (or SmiError) for whatever the grid or its sources
    get wrong, missing data and weights included: nothing has been done by then."""
    if grid.experiment not in EXPERIMENTS:
        raise grid.error(("experiment",), f"unknown experiment {grid.experiment!r}", EXPERIMENTS)
    return part(EXPERIMENTS[grid.experiment].build)(grid, scale, sources)
