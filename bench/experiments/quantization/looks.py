"""What inverted images look like: some of each model, recipe and sparsity, below one another."""

from __future__ import annotations

import torch

from bench.experiments.quantization.selected import SOURCES
from bench.publish import scale_notes
from bench.publish.figures.kinds import Figure, Still
from bench.publish.figures.material import Material, NotMade, Row
from bench.publish.figures.style import picture_grid, row_label, show_kept
from bench.publish.parts import model_title

COLUMNS = 10  # images of a row: the first ones, none picked
MOST = 24  # rows


def draw(material: Material) -> Still:
    chosen = _rows(material)
    sets = [material.images(row.records["images"]) for _, row in chosen]
    columns = min(COLUMNS, *(images.count for images in sets))
    models = [str(row.cell["model"]) for _, row in chosen]
    figure, axes = picture_grid(
        (len(chosen), columns),
        sets[0].pixels.shape[2:],
        "Inverted images by model, recipe and sparsity",
        material.scale_line,
        labels=1.75,
        heads=0,
        breaks=[place for place in range(1, len(models)) if models[place] != models[place - 1]],
    )
    data = []
    for line, ((grid, row), images) in enumerate(zip(chosen, sets, strict=True)):
        grown = images.grid
        for column in range(columns):
            whole = torch.ones(grown.patches, dtype=torch.bool)
            mask = whole if images.kept is None else images.mask()[column]
            show_kept(axes[line][column], images.pixels[column], mask, grown.rows, grown.columns)
        kept = grown.patches if images.kept is None else images.kept.shape[1]
        title = material.title(grid, row.cell["method"])
        row_label(axes[line][0], f"{model_title(models[line])}\n{title}\n{kept} of {grown.patches} patches")
        recipe = row.records["images"]["settings"]["recipe"]
        place = {
            "row": line + 1,
            "model": models[line],
            "method": row.cell["method"],
            "recipe": recipe["name"],
        }
        sizes = {"iterations": recipe["iterations"], "patches": grown.patches, "kept": kept}
        data.append({**place, **sizes, "sparsity": 1 - kept / grown.patches, "seed": row.cell["seed"]})
    words = scale_notes.pictures(material.sheet(chosen[0][0]))
    return Still(
        figure,
        f"The first {columns} images of each inversion of the first seed, as they came: none was picked. Stopped "
        f"patches are black. {words}".rstrip(),
        data=data,
    )


def _rows(material: Material) -> list[tuple[str, Row]]:
    """(grid, row) of the first seed's inversions, each once: by model, as recipes follow each other, densest first."""
    found: dict[str, tuple[str, Row]] = {}
    used: dict[str, list[Row]] = {}
    for grid in [name for name in SOURCES if name in material.sheets] or SOURCES[:1]:
        rows = [row for row in material.rows(grid, "images") if "images" in row.records]
        for row in rows:
            record = row.records["images"]
            inverted = record["settings"]["source"] == "inversion"
            if inverted and row.cell["seed"] == rows[0].cell["seed"] and record["key"] not in found:
                found[record["key"]] = grid, row
                used.setdefault(grid, []).append(row)
    material.used.clear()
    material.used.update(used)
    if not found:
        raise NotMade(f"no finished inversion; make one: {material.command(SOURCES[0])}")
    models = list(dict.fromkeys(row.cell["model"] for _, row in found.values()))

    def order(entry: tuple[str, Row]) -> tuple:
        settings = entry[1].records["images"]["settings"]
        place = models.index(entry[1].cell["model"])
        by_chance = settings["score"] == "random"
        return place, settings["recipe"]["name"], by_chance, entry[1].metrics("images")["sparsity"]

    return sorted(found.values(), key=order)[:MOST]


FIGURE = Figure("looks", "Inverted images by model, recipe and sparsity", SOURCES, draw)
