"""Convergence of the loss during inversion, dense and sparse, by iterations and by seconds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade
from bench.publish.figures.style import canvas, look

GRID = "table3"
WINDOW = 7  # points of a running mean
RECIPE = "deepinversion"  # losses of other recipes have other terms: their values cannot share an axis


def draw(material: Material) -> Still:
    rows = [row for row in material.rows(GRID, "images") if _recipe(row.records["images"]) == RECIPE]
    if not rows:
        raise NotMade(f"no inversion by {RECIPE} in {GRID}; make it: {material.command(GRID)}")
    rows = list({row.records["images"]["key"]: row for row in rows}.values())  # bit-widths share their images
    material.used[GRID] = rows
    place = rows[0].place("method", "bits", "seed")  # of several models or data sets, the first
    runs: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    stops: set[int] = set()
    for row in rows:
        if row.place("method", "bits", "seed") == place:
            runs[row.cell["method"]].append(row.metrics("images"))
            stops |= set((row.records["images"]["settings"]["stopping"] or {"at": []})["at"])
    figure = canvas(3.6, f"Loss during the inversion of {material.subject(GRID, place)}", material.scale_line)
    by_iteration, by_seconds = figure.subplots(1, 2, sharey=True)
    highest, lowest = 0.0, float("inf")
    for method, metrics in runs.items():
        style = {**look(method, runs), "marker": None, "label": f"{material.title(GRID, method)}"}
        iterations = np.array(metrics[0]["history"]["iteration"])
        losses = np.array([running_mean(one["history"]["loss"]) for one in metrics])
        seconds = np.mean([elapsed(one["stages"], iterations) for one in metrics], axis=0)
        for axes, xs in ((by_iteration, iterations), (by_seconds, seconds)):
            axes.plot(xs, losses.mean(0), **style)
            axes.fill_between(xs, losses.min(0), losses.max(0), color=style["color"], alpha=0.15, linewidth=0)
        highest, lowest = max(highest, losses.max()), min(lowest, losses.min())
    for stop in sorted(stops):
        by_iteration.axvline(stop, color="#999999", linewidth=0.8, linestyle=(0, (1, 2)))
    by_iteration.set(xlabel="iteration (dotted: stops)", ylabel="loss")
    if 0 < lowest < highest / 20:
        by_iteration.set_yscale("log")
        by_iteration.yaxis.set_major_formatter("{x:g}")
    by_seconds.set(xlabel=f"seconds of inversion on {_device(rows)}")
    by_seconds.legend()
    seeds = len({row.cell["seed"] for row in rows})
    images = rows[0].records["images"]["settings"]["count"]
    return Still(
        figure,
        f"Loss of DeepInversion over {images} images: mean and range of {seeds} seeds, each a running mean over "
        f"{WINDOW} of up to 200 points, because every iteration is jittered anew. What an inversion with fewer "
        "patches minimises is the same loss of a smaller input, so a lower curve is not by itself a better image; the "
        "right half shows what stopping buys in time.",
        vector=True,
    )


def running_mean(values: Sequence[float]) -> np.ndarray:
    """Each value's mean with its neighbours, WINDOW in all; at the ends with those there are."""
    window = np.ones(min(WINDOW, len(values)))
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def elapsed(stages: list[Mapping[str, float]], iterations: np.ndarray) -> np.ndarray:
    """Seconds that had passed at each iteration: stages follow one another, each at an even pace."""
    ends = np.cumsum([0, *(stage["iterations"] for stage in stages)])
    clock = np.cumsum([0, *(stage["seconds"] for stage in stages)])
    return np.interp(iterations + 1, ends, clock)


def _recipe(record: Mapping[str, Any]) -> str | None:
    return (record["settings"].get("recipe") or {}).get("name")


def _device(rows) -> str:
    """Every device that the rows ran on."""
    return "; ".join(sorted({row.records["images"]["device"] for row in rows}))


FIGURE = Figure("loss", "Loss during inversion", (GRID,), draw)
