"""When patches stop, come back or leave: what a schedule of a grid becomes, and which ones are refused."""

from pathlib import Path

import pytest
import yaml_text

from bench import experiments
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.grid import Grid, load

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


def with_schedule(tmp_path, name, schedule, **digits_axes) -> Grid:
    """The project's grid of that name, with this schedule for sparse77 at every scale."""
    grid = yaml_text.read(EXPERIMENTS / f"{name}.yaml")
    for scale in grid["scales"].values():
        scale["settings"]["schedules"]["sparse77"] = schedule
    if digits_axes:
        grid["scales"]["digits"]["axes"] |= digits_axes
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml_text.dump(grid), encoding="utf-8")
    return load(path)


def test_every_length_is_an_inversion_of_its_own():
    grid = load(EXPERIMENTS / "ablation_iterations.yaml")
    cells = experiments.build(grid, "digits", Sources())
    for cell in cells:
        settings = cell.tasks["images"].settings
        length, stopping = cell.cell["iterations"], settings["stopping"]
        assert settings["recipe"]["iterations"] == length
        reached = [at for at in (20, 40, 60, 80) if at < length and cell.cell["method"].endswith("sparse")]
        assert (stopping or {"at": []})["at"] == reached
    # up to the first stop sparse is dense: lengths 1, 5, 10 and 20
    assert len({cell.tasks["images"].key for cell in cells}) == 3 * (8 + 4)


def test_rebirths_of_many_lengths_leave_at_equal_distances(tmp_path):
    def built(schedule, *lengths):
        axes = {"iterations": list(lengths), "quantizer": ["psaq"]}
        grid = with_schedule(tmp_path, "ablation_iterations", schedule, **axes)
        return experiments.build(grid, "digits", Sources())

    with pytest.raises(BenchError, match=r"sparse77.*at.*equal distances; drop at; allowed: rebirth alone"):
        built({"rebirth": 2, "at": [50]}, 200)
    with pytest.raises(BenchError, match="iterations: 1: rebirth.parts is 2, more than the 1 iterations"):
        built({"rebirth": 2}, 1)
    stoppings = [cell.tasks["images"].settings["stopping"] for cell in built({"rebirth": 2}, 20, 200)]
    assert [stopping["at"] for stopping in stoppings if stopping] == 3 * [[10]] + 3 * [[100]]


def test_inversions_of_many_lengths_let_patches_come_back_alike(tmp_path):
    schedule = {"at": [20, 40, 60, 80], "drop": 0.3, "reenter_every": 5}
    axes = {"iterations": [30, 200], "quantizer": ["psaq"], "seed": [0]}
    grid = with_schedule(tmp_path, "ablation_iterations", schedule, **axes)
    cells = experiments.build(grid, "digits", Sources())
    stoppings = [stop for cell in cells if (stop := cell.tasks["images"].settings["stopping"])]
    assert [(stop["at"], stop["reenter_every"]) for stop in stoppings] == [
        ([20], 5),
        ([20, 40, 60, 80], 5),
    ]


@pytest.mark.parametrize("schedule", [{"rebirth": 2, "reenter_every": 2}, {"at": [2], "reenter_every": 2}])
def test_patches_come_back_only_where_a_fraction_stops(tmp_path, schedule):
    with pytest.raises(BenchError, match="at and drop, with or without reenter_every, or rebirth"):
        experiments.build(with_schedule(tmp_path, "table3", schedule), "digits", Sources())


def test_a_schedule_whose_rankings_are_not_timed_has_no_cost(tmp_path):
    schedule = {"at": [50], "drop": 0.5, "reenter_every": 10}
    grid = with_schedule(tmp_path, "cost", schedule)
    with pytest.raises(
        BenchError, match="sparse77.reenter_every: what ranking .* anew costs is not measured"
    ):
        experiments.build(grid, next(iter(grid.scales)), Sources())
