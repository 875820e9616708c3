"""Figures: the small parts that decide what is seen, and the command's bad input. Whole ones: tests/end_to_end."""

from __future__ import annotations

import io
from pathlib import Path
from typing import ClassVar

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas
from PIL import Image

from bench.cli.arguments import exit_code
from bench.experiments.cost.figure import shares
from bench.experiments.gallery.loss import WINDOW, elapsed, running_mean
from bench.experiments.gallery.pictures import shown
from bench.publish.figures import all_figures, files, style
from bench.publish.figures.__main__ import main
from bench.publish.figures.kinds import Animation, Still
from bench.publish.figures.material import Row


def test_figures_have_names_of_their_own():
    names = [figure.name for figure in all_figures()]
    assert len(set(names)) == len(names)
    assert all(figure.grids and figure.title for figure in all_figures())


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.data())
def test_stopped_patches_are_black_and_kept_ones_untouched(rows, columns, height, width, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns)))
    channels = data.draw(st.sampled_from([1, 3]))
    pixels = torch.rand(channels, rows * height, columns * width) * 0.9 + 0.1
    axes = Canvas().add_subplot()
    style.show_kept(axes, pixels, torch.tensor(mask), rows, columns)
    shown = axes.images[0].get_array()
    inside = mask.reshape(rows, columns).repeat(height, 0).repeat(width, 1)
    expected = pixels.numpy().transpose(1, 2, 0) if channels == 3 else pixels.numpy()[0]
    assert np.allclose(shown[inside], expected[inside])
    assert (shown[~inside] == 0).all()
    edges = sum(len(line.get_xdata()) > 0 for line in axes.lines)
    framed = np.pad(mask.reshape(rows, columns), 1)
    borders = (framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum()
    assert edges == (0 if mask.all() or channels == 3 else borders)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(1, 12), st.sampled_from([8, 32, 224, 1000]), st.floats(0, 1.5))
def test_picture_grids_fit_their_figure_without_overlap(rows, columns, side, labels):
    figure, axes = style.picture_grid(
        (rows, columns), (side, side), "title", "scale", labels=labels, below=0.3
    )
    boxes = np.array([[one.get_position().extents for one in line] for line in axes])
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert (boxes[:, 1:, 0] >= boxes[:, :-1, 2]).all(), "columns"
    assert (boxes[:-1, :, 1] >= boxes[1:, :, 3]).all(), "rows"
    width, height = (boxes[0, 0, 2:] - boxes[0, 0, :2]) * figure.get_size_inches() * figure.dpi
    assert round(width) == round(height)
    assert round(width) % side == 0 or width < side


def test_seconds_pass_evenly_within_a_stage_and_stages_follow_one_another():
    stages = [{"iterations": 10, "seconds": 5.0}, {"iterations": 20, "seconds": 2.0}]
    seconds = elapsed(stages, np.arange(30))
    assert np.allclose(seconds[[0, 9, 19, 29]], [0.5, 5.0, 6.0, 7.0])


def test_a_running_mean_keeps_constants_and_is_centred():
    assert np.allclose(running_mean([3.0] * 20), 3.0)
    assert np.allclose(running_mean([3.0] * 2), 3.0)
    line = np.arange(30.0)
    assert np.allclose(running_mean(line)[WINDOW:-WINDOW], line[WINDOW:-WINDOW])


@pytest.mark.parametrize("counter", ["gpu_mib", "saved_mib"])
def test_costs_are_shares_of_ones_own_dense_inversion(counter):
    engines = {
        "smi": {"median": 0.5, "memory": {counter: 30.0}},
        "smi_dense": {"median": 2.0},
    }
    cell = {"model": "deit_tiny_patch16_224"}
    sparse = Row(cell, {"cost": {"metrics": {"engines": engines, "paper_gflops": 107.325}}})
    dense = Row(
        cell, {"cost": {"metrics": {"engines": {"smi": {"median": 9.0, "memory": {counter: 120.0}}}}}}
    )
    found = shares(sparse, dense)
    assert found["seconds"] == pytest.approx((25, 100 * 7.33 / 18.82))
    assert found["FLOPs"] == pytest.approx((25.91, 25.91), abs=0.01)
    assert found["memory"] == pytest.approx((25, 100 * 476.32 / 1118.69))


def test_every_method_has_a_look_of_its_own_whatever_it_is_called():
    methods = [*style.LOOKS, "one_more", "another", "a_third"]
    looks = {tuple(sorted(style.look(method, methods).items())) for method in methods}
    assert len(looks) == len(methods)


def test_a_still_is_written_as_png_and_svg_the_same_each_time(tmp_path: Path):
    def draw() -> Still:
        with matplotlib.rc_context(style.SETTINGS):
            figure = style.canvas(2.0, "title", "scale")
            figure.subplots().plot([1, 2, 3])
        return Still(figure, "a line", vector=True)

    contents = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        with matplotlib.rc_context(style.SETTINGS):
            assert files.save(draw(), folder, "line") == ["line.svg", "line.png"]
        contents.append([(folder / file).read_bytes() for file in ("line.svg", "line.png")])
    assert contents[0] == contents[1]
    assert Image.open(io.BytesIO(contents[0][1])).width == style.WIDTH * style.DPI


def test_a_moving_picture_keeps_its_frames_times_and_white_paper(tmp_path: Path):
    frames = [Image.new("RGB", (40, 30), "white") for _ in range(3)]
    for place, frame in enumerate(frames):
        frame.paste((10 * place, 0, 90), (0, 0, 10, 10 + place))
    files.save(Animation(frames, [100, 200, 300], ""), tmp_path, "moving")
    with Image.open(tmp_path / "moving.gif") as image:
        assert image.n_frames == 3 and image.info["loop"] == 0
        times = []
        for frame in range(3):
            image.seek(frame)
            times.append(image.info["duration"])
            assert image.convert("RGB").getpixel((39, 29)) == (255, 255, 255)
    assert times == [100, 200, 300]


def test_a_new_drawing_takes_the_place_of_all_files_of_the_old(tmp_path: Path):
    for suffix in (".svg", ".gif"):
        (tmp_path / f"line{suffix}").write_bytes(b"old")
    files.save(Still(Canvas(), ""), tmp_path, "line")
    assert [path.name for path in tmp_path.iterdir()] == ["line.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "holds no records to draw from"),
        (["--grid", "experiments/nothing.yaml"], "no figure draws from the grid 'nothing'"),
        (["--scale", "huge"], "holds no records to draw from"),
        (["--figures"], "--help"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, arguments, said, capsys):
    assert exit_code(lambda: main([*arguments, "--results", str(tmp_path)])) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def a_row(model, dataset, method, seed=0):
    return Row({"model": model, "dataset": dataset, "method": method, "seed": seed}, {"images": {}})


class OnlyRows:
    """Material of some rows."""

    used: ClassVar[dict] = {}

    def __init__(self, rows):
        self.found = rows

    def rows(self, grid, *columns):
        return self.found


def test_pictures_of_two_data_sets_never_stand_in_one_figure():
    rows = [a_row("m", d, s, seed) for d in ("x", "y") for s in ("a", "b") for seed in (0, 1)]
    assert [run.row for run in shown(OnlyRows(rows))] == [rows[0], rows[2]]
    assert [run.row for run in shown(OnlyRows([*rows, a_row("n", "y", "a")]))] == [
        *(rows[0], rows[2]),
        a_row("n", "y", "a"),
    ]


def test_any_text_is_drawn_as_it_stands():
    for text, drawn in (("a\nb", "a b"), ("$x$", r"\$x\$"), ("_a", " _a"), ("plain (x)", "plain (x)")):
        assert style.drawn(text) == drawn
