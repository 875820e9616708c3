"""Two results folders held against each other: what agrees, what lies outside, what cannot be told, what is refused."""

import shutil
from pathlib import Path

import published_files
import pytest

from bench.__main__ import main
from bench.publish import comparing
from bench.publish.comparing import OUTSIDE, UNTOLD, WITHIN

RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture
def copied(tmp_path):
    """A copy of the digits scale's published Table 3, and a function that changes one figure of its records."""
    folder = tmp_path / "mine"
    (folder / "digits/records").mkdir(parents=True)
    path = folder / "digits/records/table3.jsonl"
    shutil.copy(RESULTS / "digits/records/table3.jsonl", path)
    _, cells, _ = published_files.lines(path)

    def change(by, figure="top1", **cell):
        seeds = {
            entry["tasks"]["quantize"]: entry["cell"]["seed"]
            for entry in cells
            if "quantize" in entry["tasks"]
            and all(entry["cell"][axis] == value for axis, value in cell.items())
        }

        def changed(record):
            name = f"{record['kind']}-{record['key']}"
            if name in seeds:
                record["metrics"][figure] += by(seeds[name])
            return record

        published_files.change_records(path, changed)

    return folder, change


def verdicts(found):
    return {
        verdict: [line for line in found.lines if line.verdict == verdict]
        for verdict in (WITHIN, OUTSIDE, UNTOLD)
    }


def test_a_folder_agrees_with_itself(copied, capsys):
    folder, _ = copied
    assert main(["compare", str(RESULTS), str(folder), "--grid", "table3"]) == 0
    said = capsys.readouterr().out
    assert "only in A: cifar/table3" in said and " 0 outside, 0 cannot be told" in said
    assert "hardware" in said and "commit" in said and "versions" in said
    assert main(["compare", str(folder), str(folder), "--all"]) == 0
    assert "within spread" in capsys.readouterr().out


def test_a_method_that_lost_its_accuracy_lies_outside(copied, capsys):
    folder, change = copied
    change(lambda seed: -20 - 0.01 * seed, method="deepinversion_sparse", bits="W8/A8")
    found = verdicts(comparing.compare(RESULTS, folder, "table3"))
    (line,) = found[OUTSIDE]
    assert dict(line.cell)["method"] == "deepinversion_sparse" and line.figure == "quantize top1"
    assert line.difference == pytest.approx(-20.01) and line.shared == [0, 1, 2]
    assert main(["compare", str(RESULTS), str(folder), "--grid", "table3"]) == 1
    said = capsys.readouterr().out
    assert "deepinversion_sparse" in said and "-20.010" in said and " 1 outside" in said


def test_what_seeds_scatter_around_stays_within(copied):
    folder, change = copied
    change(lambda seed: (-0.4, 0.5, 0.1)[seed], method="deepinversion_sparse")
    found = verdicts(comparing.compare(RESULTS, folder, "table3"))
    assert not found[OUTSIDE] and not found[UNTOLD]


def test_many_lines_do_not_find_a_difference_by_their_number(copied):
    """A p value of 1.3% in one of many lines is what chance gives; of a single line it would be a difference."""
    folder, change = copied
    change(lambda seed: (1.0, 1.2, 0.8)[seed], "logit_error", method="real", bits="W8/A8")
    lines = comparing.compare(RESULTS, folder, "table3").lines
    (line,) = (line for line in lines if line.p is not None and line.p < 0.05)
    assert line.figure == "quantize logit_error" and line.p < comparing.LEVEL < line.adjusted
    assert line.verdict == WITHIN


def test_one_seed_says_nothing_of_spread():
    line = comparing.Line("digits", "table3", (), "quantize top1", {0: 97.0}, {0: 96.0}, p=None)
    assert line.verdict == UNTOLD and line.difference == -1
    same = comparing.Line("digits", "table3", (), "quantize top1", {0: 97.0}, {1: 97.0}, p=None)
    assert same.verdict == WITHIN


def test_other_seeds_are_compared_by_their_means():
    near, far = ({3: 97.1, 4: 96.9, 5: 97.0}, {3: 70.1, 4: 69.9, 5: 70.0})
    assert comparing._p_value({0: 97.0, 1: 96.8, 2: 97.2}, near) > 0.5
    assert comparing._p_value({0: 97.0, 1: 96.8, 2: 97.2}, far) < 1e-4
    assert comparing._p_value({0: 97.0}, near) is None


def test_a_page_shows_both_figures_their_difference_and_where_they_were_made(copied, tmp_path, capsys):
    folder, change = copied
    change(lambda seed: -20 - 0.01 * seed, method="deepinversion_sparse", bits="W8/A8")
    page = tmp_path / "page.html"
    assert main(["compare", str(RESULTS), str(folder), "--grid", "table3", "--page", str(page)]) == 1
    said, text = capsys.readouterr().out, page.read_text(encoding="utf-8")
    assert f"{page} (" in said and "They do not agree: 1 of" in text and "-20.010" in text
    assert "A is results, B is mine." in text and str(tmp_path) not in text
    assert "all the same" in text and "only in A: cifar/table3" in text
    assert main(["compare", str(folder), str(folder), "--page", str(page)]) == 0
    assert "They agree: none of" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_one_line(copied, tmp_path, capsys):
    folder, _ = copied
    (tmp_path / "taken").mkdir()
    assert main(["compare", str(folder), str(folder), "--page", str(tmp_path / "taken")]) == 2
    error = capsys.readouterr().err
    assert "taken cannot be written: " in error and error.count("\n") == 1


def test_unfinished_cells_are_counted(copied, capsys):
    folder, _ = copied
    names = iter(["quantize"])  # the first of them

    def failed(record):
        first = record["kind"] == "quantize" and next(names, None)
        return {**record, "status": "failed", "metrics": {}} if first else record

    published_files.change_records(folder / "digits/records/table3.jsonl", failed)
    main(["compare", str(RESULTS), str(folder), "--grid", "table3"])
    assert "finished on one side alone: 1 cell" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "options", "said"),
    [
        ("absent", [], "is no folder"),
        ("empty", [], "holds no published records"),
        ("four", [], "nothing to compare"),
        ("mine", ["--grid", "nothing"], "holds no published records of the grid nothing"),
    ],
)
def test_what_cannot_be_compared_is_one_line(copied, tmp_path, capsys, other, options, said):
    folder, _ = copied
    (tmp_path / "empty").mkdir()
    (tmp_path / "four/digits/records").mkdir(parents=True)
    shutil.copy(RESULTS / "digits/records/four_bits.jsonl", tmp_path / "four/digits/records")
    assert main(["compare", str(folder), str(tmp_path / other), *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
