"""What sparsity saves, measured here and as the paper reports it, each as a share of its own dense inversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from bench.experiments import paper
from bench.experiments.cost.goals import RESOLUTION
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade, Row
from bench.publish.figures.style import BLUE, GREY, ORANGE, VERMILION, canvas
from bench.publish.parts import model_title

GRID = "cost"
TABLE = "table3"
DENSE, SPARSE = "deepinversion_dense", "deepinversion_sparse"
# The engines of one measurement that took turns in it, slowest first: name, colour.
ENGINES = {
    "reference_dense": ("published way, dense", GREY),
    "reference": ("published way, sparse", ORANGE),
    "smi_dense": ("this project, dense", BLUE),
    "smi": ("this project, sparse", VERMILION),
}
MODELS = ("deit_tiny_patch16_224", "deit_base_patch16_224")

CAPTION = (
    "Left: sparse (46 of 196 patches) as a share of dense, for this project (batch {batch}, {precision}, medians) and "
    "for the paper (on a GPU, its batch not named). FLOPs follow the paper's convention, which is of the last stage "
    "alone. Memory is the peak on a GPU; on a CPU it is what an iteration saves for its backward pass, which is "
    "not the same quantity as the paper's. Right: seconds of an iteration of four ways that took turns in one "
    "process, as a share of the slowest. The published way keeps weights' gradients, materialises attention "
    "and embeds all patches."
)


def draw(material: Material) -> Still:
    pairs = _pairs(material)
    rows = [sparse for sparse, _ in pairs]
    figure = canvas(3.9, "Cost of an iteration at the last stage: DeiT/16 at 224×224", _line(rows))
    figure.get_layout_engine().set(wspace=0.06)
    shares, engines = figure.subplots(1, 2)
    _draw_shares(shares, pairs)
    _draw_engines(engines, rows)
    first = rows[0].records["cost"]["settings"]
    return Still(
        figure,
        CAPTION.format(batch=first["batch"], precision=first["precision"]),
        vector=True,
    )


def _pairs(material: Material) -> list[tuple[Row, Row]]:
    """(sparse, dense) measurements in single precision of one batch size, for each model that the paper has.

    Engines took turns within the sparse one; its dense partner was measured by itself, for its memory.
    """
    found: dict[tuple[str, int], dict[str, Row]] = {}
    for row in material.rows(GRID, "cost"):
        settings, method = row.records["cost"]["settings"], row.cell["method"]
        plain = settings["precision"] == "fp32" and "engine" not in settings  # eager
        plain &= settings.get("resolution", RESOLUTION) == RESOLUTION
        if plain and row.cell["model"] in MODELS and method in (SPARSE, DENSE):
            found.setdefault((row.cell["model"], settings["batch"]), {})[method] = row
    chosen: dict[str, tuple[Row, Row]] = {}
    for (model, _), pair in sorted(found.items()):  # the smallest batch first
        if len(pair) == 2 and set(ENGINES) <= set(pair[SPARSE].metrics("cost")["engines"]):
            chosen.setdefault(model, (pair[SPARSE], pair[DENSE]))
    if not chosen:
        raise NotMade(
            f"no measured sparse inversion beside a dense one in {GRID}; measure: {material.command(GRID)}"
        )
    pairs = [chosen[model] for model in MODELS if model in chosen]
    material.used[GRID] = [row for pair in pairs for row in pair]
    return pairs


def shares(sparse: Row, dense: Row) -> dict[str, tuple[float, float]]:
    """What: (ours, the paper's) of sparse as a share of dense, in %."""
    model, engines = sparse.cell["model"], sparse.metrics("cost")["engines"]

    def reported(column: str, method: str) -> float:
        return float(paper.figure(TABLE, column, model=model, method=method))

    seconds = (
        engines["smi"]["median"] / engines["smi_dense"]["median"],
        reported("iterations_per_second", DENSE) / reported("iterations_per_second", SPARSE),
    )
    memory = (
        _memory(engines["smi"]) / _memory(dense.metrics("cost")["engines"]["smi"]),
        reported("gpu_mb", SPARSE) / reported("gpu_mb", DENSE),
    )
    flops = reported("gflops", SPARSE) / reported("gflops", DENSE)
    ours = sparse.metrics("cost")["paper_gflops"] / reported("gflops", DENSE)
    return {
        "seconds": tuple(100 * share for share in seconds),
        "FLOPs": (100 * ours, 100 * flops),
        "memory": tuple(100 * share for share in memory),
    }


def _memory(engine: Mapping[str, Any]) -> float:
    """MiB: the peak on a GPU, what is saved for the backward pass on a CPU."""
    memory = engine["memory"]
    return float(memory.get("gpu_mib", memory.get("saved_mib", 0.0)))


def _draw_shares(axes: Axes, pairs: Sequence[tuple[Row, Row]]) -> None:
    ticks, names = [], []
    for group, (row, dense) in enumerate(pairs):
        for place, (what, (ours, theirs)) in enumerate(shares(row, dense).items()):
            x = group * 3.6 + place
            for shift, value, colour, hatch in ((-0.2, ours, VERMILION, ""), (0.2, theirs, "white", "////")):
                axes.bar(x + shift, value, 0.4, color=colour, edgecolor="black", linewidth=0.6, hatch=hatch)
                axes.text(x + shift, value + 1, f"{value:.0f}", ha="center", fontsize=7)
            ticks.append(x)
            names.append(what)
        axes.text(
            group * 3.6 + 1,
            -0.2,
            model_title(row.cell["model"]),
            ha="center",
            transform=axes.get_xaxis_transform(),
        )
    axes.set_xticks(ticks, names)
    axes.grid(False, axis="x")
    axes.set_ylabel("sparse as a share of dense (%)")
    axes.set_ylim(0, 1.25 * max(text.get_position()[1] for text in axes.texts))
    axes.bar(0, 0, color=VERMILION, edgecolor="black", label="measured here")
    axes.bar(0, 0, color="white", edgecolor="black", hatch="////", label="the paper")
    axes.legend(loc="upper left", ncols=2)


def _draw_engines(axes: Axes, rows: Sequence[Row]) -> None:
    width = 0.2
    for group, row in enumerate(rows):
        engines = row.metrics("cost")["engines"]
        slowest = engines["reference_dense"]["median"]
        for place, (engine, (name, colour)) in enumerate(ENGINES.items()):
            x = group + (place - 1.5) * width
            share = 100 * engines[engine]["median"] / slowest
            label = name if group == 0 else None
            axes.bar(x, share, width, color=colour, edgecolor="black", linewidth=0.6, label=label)
            axes.text(x, share + 1, f"×{100 / share:.1f}", ha="center", fontsize=7)
    axes.set_xticks(range(len(rows)), [model_title(row.cell["model"]) for row in rows])
    axes.grid(False, axis="x")
    axes.set_ylabel("seconds of an iteration (% of the slowest)")
    axes.set_ylim(0, 150)
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="upper right", ncols=2)


def _line(rows: Sequence[Row]) -> str:
    """The device stands where other figures name their scale: costs are of the real models at every scale."""
    devices = "; ".join(sorted({row.records["cost"]["device"] for row in rows}))
    return f"Real models with random weights, measured on {devices}, at every scale alike"


FIGURE = Figure("cost", "Cost of an iteration", (GRID,), draw)
