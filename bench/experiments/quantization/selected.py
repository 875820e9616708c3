"""Which patches stay: how often each place of a picture is kept, and how far two scores choose the same patches.

Both are of the indices of kept patches that finished inversions left in the store.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from torch import Tensor

import smi
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade, Row
from bench.publish.figures.style import bare, canvas, spare

SOURCES = ("table3", "ablation_sparsity")  # grids whose inversions are looked at, where they were run
MAP = "cividis"  # perceptually even, and the same to colour-blind eyes
ACROSS = 4  # maps beside each other
NAMES = {"cls_attention": "CLS attention", "random": "random selection", "least_attention": "least attention"}


@dataclass(frozen=True)
class Chosen:
    """A finished sparse inversion: its cell, what ranked its patches, how they stopped, and which were kept."""

    grid: str
    row: Row
    score: str
    stopping: str
    images: smi.SyntheticImages

    @property
    def mask(self) -> Tensor:
        """Bool [B, P]: the patches that were inverted to the end."""
        return self.images.mask()


def share_kept(masks: Sequence[Tensor]) -> Tensor:
    """Share of all pictures [P] in which each patch is kept, from masks bool [B, P]."""
    return torch.cat(list(masks)).double().mean(0)


def agreement(first: Tensor, other: Tensor) -> tuple[float, float]:
    """(share of one's kept patches that the other keeps too, what chance would give), of bool [B, P] that keep as many.

    Picture by picture, then the mean. Chance: two independent even choices of k of P patches share k/P of them.
    """
    kept = first.sum(1).double()
    return float(((first & other).sum(1) / kept).mean()), float((kept / first.shape[1]).mean())


def draw_maps(material: Material) -> Still:
    found = _chosen(material, SOURCES[:1])
    methods = list(dict.fromkeys((one.row.cell["model"], one.row.cell["method"]) for one in found))
    lines = -(-len(methods) // ACROSS)
    figure = canvas(0.7 + 2.3 * lines, "How often each patch is kept", material.scale_line)
    axes = figure.subplots(lines, min(ACROSS, len(methods)), squeeze=False).flatten()
    shares, rows = {}, []
    for key in methods:
        own = [one for one in found if (one.row.cell["model"], one.row.cell["method"]) == key]
        grid = own[0].images.grid
        shares[key] = (share_kept([one.mask for one in own]).reshape(grid.rows, grid.columns), own)
    norm = Normalize(0, max(float(share.max()) for share, _ in shares.values()))
    for one, (model, method) in zip(axes, methods, strict=False):
        share, own = shares[model, method]
        count = sum(each.images.count for each in own)
        one.pcolormesh(share.numpy(), cmap=MAP, norm=norm)
        one.set_aspect("equal", anchor="W")
        one.invert_yaxis()
        bare(one)
        one.set_title(f"{material.title(own[0].grid, method)}\n{model}, {count} pictures", fontsize=8)
        for row, column in itertools.product(range(share.shape[0]), range(share.shape[1])):
            place = {"model": model, "method": method, "row": row, "column": column}
            rows.append({**place, "share": float(share[row, column]), "pictures": count})
    for one in axes[len(methods) :]:
        one.set_axis_off()
    figure.colorbar(
        ScalarMappable(norm, MAP), ax=list(axes), shrink=0.8, label="share of pictures that keep it"
    )
    return Still(
        figure,
        "For each place of a picture, the share of all inverted pictures (all seeds) in which its patch is kept to the "
        "end. Chance is even: what differs between places under random selection is chance alone.",
        vector=True,
        data=rows,
    )


def draw_agreement(material: Material) -> Still:
    found = _chosen(material, SOURCES)
    points: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pair, kept, shared in _pairs(found):
        points[pair][kept].append(shared)
    if not points:
        raise NotMade("no two scores have chosen among the patches of one model by one schedule")
    figure = canvas(3.6, "How far selection scores agree", material.scale_line)
    axes = figure.subplots()
    rows = []
    for number, (pair, by_kept) in enumerate(points.items()):
        name = " and ".join(NAMES.get(score, score.replace("_", " ")) for score in pair)
        places = sorted(by_kept)
        means = [statistics.fmean(by_kept[place]) for place in places]
        spread = [statistics.stdev(by_kept[place]) if len(by_kept[place]) > 1 else 0.0 for place in places]
        axes.errorbar(
            [100 * place for place in places], [100 * mean for mean in means], [100 * one for one in spread],
            **spare(number), capsize=2, label=name,
        )  # fmt: skip
        for place, mean, one in zip(places, means, spread, strict=True):
            first = {"scores": name, "kept (%)": 100 * place, "shared (%)": 100 * mean}
            rows.append({**first, "standard deviation": 100 * one, "inversions": len(by_kept[place])})
    axes.plot([0, 100], [0, 100], color="#000000", linestyle=(0, (1, 2)), linewidth=1, label="chance")
    axes.set(xlabel="patches kept (%)", ylabel="of those, kept by both (%)", xlim=(0, 100), ylim=(0, 100))
    axes.legend(loc="upper left")
    return Still(
        figure,
        "Two inversions that differ in the score alone: how many of the patches that one keeps the other keeps too, "
        "picture by picture, mean ± standard deviation over seeds and models. On the dotted line two choices share "
        "no more than chance makes them.",
        vector=True,
        data=rows,
    )


def _pairs(found: Sequence[Chosen]) -> Iterator[tuple[tuple[str, str], float, float]]:
    """(two scores, share kept, share of those that both keep) of inversions alike in all but the score."""
    alike: dict[tuple, dict[str, Chosen]] = defaultdict(dict)
    for one in found:
        settings = one.row.records["images"]["settings"]
        recipe = settings["recipe"]["name"]
        place = (one.row.cell["model"], one.row.cell["dataset"], one.row.cell["seed"], recipe, one.stopping)
        alike[place].setdefault(one.score, one)
    for by_score in alike.values():
        for first, other in itertools.combinations(sorted(by_score), 2):
            masks = by_score[first].mask, by_score[other].mask
            if masks[0].shape == masks[1].shape:
                shared, chance = agreement(*masks)
                yield (first, other), chance, shared


def _chosen(material: Material, grids: Sequence[str]) -> list[Chosen]:
    """The sparse inversions of the grids that were run, each once. Raises NotMade if there are none."""
    found, seen = [], set()
    for grid in [name for name in grids if name in material.sheets] or grids[:1]:
        used = []
        for row in material.rows(grid, "images"):
            record = row.records["images"]
            settings = record["settings"]
            if settings["source"] != "inversion" or not settings["stopping"]:
                continue
            used.append(row)
            if record["key"] not in seen:
                seen.add(record["key"])
                how = str(settings["stopping"])
                found.append(Chosen(grid, row, str(settings["score"]), how, material.images(record)))
        material.used[grid] = used
    if not found:
        raise NotMade(f"no finished sparse inversion; make one: {material.command(grids[0])}")
    return found


MAPS = Figure("kept", "How often each patch is kept", SOURCES[:1], draw_maps)
AGREEMENT = Figure("agreement", "How far selection scores agree", SOURCES, draw_agreement)
