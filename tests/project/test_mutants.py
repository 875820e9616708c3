"""The judge of mutants (tools/mutants) tells those that tests notice from the others, in a small project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("mutmut")  # not where only the oldest versions allowed are installed

from tools.mutants.__main__ import Room, affordable, reaching
from tools.mutants.population import draw

ROOT = Path(__file__).resolve().parents[2]
SHOP = """\
import functools


def once(function):
    @functools.wraps(function)
    def wrapped(*given):
        return function(*given)

    return wrapped


@once
def total(prices):
    if not prices:
        raise ValueError("nothing to add up")
    return sum(prices) + 0


def with_tax(price, rate=2):
    return price * rate


def in_a_process(price):
    return price + 1


def untested(price):
    return price - 1
"""
TESTS = """\
import subprocess
import sys

from shop.till import total, with_tax


def test_total():
    assert total([1, 2]) == 3


def test_with_tax():
    assert with_tax(5) == 10


def test_process():
    told = "from shop.till import in_a_process; print(in_a_process(1))"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout == "2\\n"
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A project of one module and its tests, worked on in two copies."""
    room = Room("shop", tmp_path_factory.mktemp("mutants"), jobs=2)
    for name, text in {"shop/__init__.py": "", "shop/till.py": SHOP, "tests/test_till.py": TESTS}.items():
        (room.copies[0].tree / name).parent.mkdir(parents=True, exist_ok=True)
        (room.copies[0].tree / name).write_text(text)
    return room


@pytest.fixture(scope="module")
def verdicts(room):
    """What was said of every mutant: its change -> its verdict."""
    tree = room.copies[0].tree
    shutil.copytree(ROOT / "tools", tree / "tools")
    (tree / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n    slurm\n    browser\n    gpu\n")
    room.spread()
    room.measure(["tests"])
    sample, total = draw(tree, ["shop"], 0, 1000)
    assert len(sample) == total
    room.judge(sample, [])
    assert all((copy.tree / "shop/till.py").read_text() == SHOP for copy in room.copies)
    assert all(copy.verdicts() for copy in room.copies)
    told = room.verdicts()
    return {mutant.change: told[mutant.name]["verdict"] for mutant in sample}


def test_survivors_are_tried_again_on_new_tests_that_pass_without_them(room, verdicts):
    new = "from shop.till import untested\n\n\ndef test_untested():\n    assert untested(3) == 2\n"
    for copy in room.copies:
        (copy.tree / "tests/test_more.py").write_text(
            f"{new}\n\ndef test_unfinished():\n    assert untested(3) == 7\n"
        )
    sample, _ = draw(copy.tree, ["shop"], 0, 1000)
    room.judge(sample, ["tests/test_more.py"])
    told = {mutant.change: room.verdicts()[mutant.name]["verdict"] for mutant in sample}
    assert told["price - 1 -> price + 1"] == "killed"
    assert told["sum(prices) + 0 -> sum(prices) - 0"] == "survived"


def test_what_a_test_notices_is_killed(verdicts):
    assert verdicts["sum(prices) + 0 -> sum(prices) - 0"] == "survived"  # equivalent
    assert verdicts["0 -> 1"] == "killed"
    assert verdicts["not prices -> prices"] == "killed"


def test_a_default_is_exchanged_too(verdicts):
    assert verdicts["2 -> 3"] == "killed"


def test_a_process_that_a_test_starts_runs_the_mutant(verdicts):
    assert verdicts["price + 1 -> price - 1"] == "killed"


def test_what_no_test_reaches_survives(verdicts):
    assert verdicts["price - 1 -> price + 1"] == "survived"


def test_sentences_are_left_alone(verdicts):
    assert not any("NOTHING" in change for change in verdicts)


def test_what_a_killed_run_has_left_is_undone(room):
    for copy in room.copies:
        file = copy.tree / "shop/till.py"
        (copy.work / "sound.json").write_text(json.dumps([str(file), SHOP]))
        file.write_text("mutated")
    room.spread()
    for copy in room.copies:
        assert (copy.tree / "shop/till.py").read_text() == SHOP
        assert not (copy.work / "sound.json").exists()


def test_a_shorter_sample_begins_a_longer_one(room):
    short, total = draw(room.copies[0].tree, ["shop"], 3, 5)
    longer, _ = draw(room.copies[0].tree, ["shop"], 3, 9)
    assert short == longer[:5]
    assert total > 9
    assert short != draw(room.copies[0].tree, ["shop"], 4, 5)[0]


def test_the_quickest_tests_come_first_and_one_is_always_afforded():
    assert affordable(["slow", "quick"], {"slow": 2.0, "quick": 1.0}) == ["quick", "slow"]
    assert affordable(["endless"], {"endless": 1000.0}) == ["endless"]


def test_a_statement_that_no_test_was_seen_on_is_judged_by_those_of_its_file(room):
    [mutant], _ = draw(room.copies[0].tree, ["shop"], 3, 1)
    outside = mutant.function[1] + 1
    assert reaching(mutant, {mutant.file: {"beside": [outside]}}) == ["beside"]
    assert reaching(mutant, {mutant.file: {"beside": [outside], "on it": [mutant.statement[0]]}}) == ["on it"]
    assert reaching(mutant, {}) == []
