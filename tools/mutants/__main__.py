"""`python -m tools.mutants`: draw mutants of smi and bench/engine, and say how many of them the fast tests notice.

Works on copies of the project under `.nox/mutants`, `--jobs` of them for each room: the code as it was when the
first was made, until `--fresh` makes them anew. Stopped half-way it goes on. `--again TESTS` tries tests written since
on the survivors.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tools.mutants.population import Mutant, draw

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".nox" / "mutants"
NOTICED = ("killed", "timed out")
FAST = "not slow and not slurm and not browser and not gpu"
END_TO_END = [f"tests/end_to_end/test_{name}.py" for name in ("sweep", "full_disk", "kill", "smoke")]
# tests/laws/test_planted_faults.py changes source text itself, and fails whenever that text is another.
ROOMS = {  # what is mutated -> the tests that may notice
    "smi": ["tests/smi", "tests/laws/test_laws.py", "tests/golden"],
    "bench/engine": [
        "tests/bench/engine",
        "tests/bench/test_doctor.py",
        "tests/bench/test_register.py",
        *END_TO_END,
    ],
}
PATIENCE = 30  # seconds of tests, as measured, that may be spent on one mutant


@dataclass
class Copy:
    """A copy of the project that mutants are put into, one after the other."""

    code: str
    work: Path

    @property
    def tree(self) -> Path:
        return self.work / "tree"

    def take(self, *parts: str) -> None:
        """The files under these paths that git knows or would take, as they are now."""
        listed = [
            "git",
            "-C",
            str(ROOT),
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            *parts,
        ]
        for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
            if name and (ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name)

    def pytest(self, what: str, share: str, tests: list[str]) -> subprocess.Popen:
        """Start pytest in the copy with the plugin that measures or judges."""
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPATH": os.pathsep.join([str(self.tree), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
            "MUTANTS": what,
            "MUTANTS_SHARE": share,
            "MUTANTS_ROOMS": self.code,
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "tools.mutants.plugin",
        ]
        return subprocess.Popen([*command, "-m", FAST, *tests], cwd=self.tree, env=environment)

    def restore(self) -> None:
        """Undo the mutant that a killed run has left in the copy."""
        left = self.work / "sound.json"
        if left.exists():
            path, text = json.loads(left.read_text())
            Path(path).write_text(text, encoding="utf-8")
            left.unlink()

    def verdicts(self) -> list[dict]:
        path = self.work / "verdicts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class Room:
    """What is mutated, and the folder of the copies that it is mutated in."""

    code: str
    work: Path
    jobs: int

    @property
    def copies(self) -> list[Copy]:
        return [Copy(self.code, self.work / str(number)) for number in range(self.jobs)]

    def prepare(self) -> None:
        """Make the copies, and measure which tests reach which lines, unless that is done."""
        measured = (self.work / "measured.json").exists()
        if not measured:
            shutil.rmtree(self.work, ignore_errors=True)
            self.copies[0].take(".")
        self.spread()
        if not measured:
            self.measure(ROOMS[self.code])

    def spread(self) -> None:
        """Make the other copies from the first, as far as they are missing."""
        first, *others = self.copies
        first.restore()
        for copy in others:
            copy.restore()
            if not copy.tree.exists():
                unfinished = copy.work / "unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                shutil.copytree(first.tree, unfinished)
                unfinished.rename(copy.tree)

    def measure(self, tests: list[str]) -> None:
        """Run all tests once, each copy its share of the files."""
        wait([copy.pytest("measure", f"{i}/{self.jobs}", tests) for i, copy in enumerate(self.copies)])
        seconds: dict[str, float] = {}
        reached: dict[str, dict[str, list[int]]] = {}
        for copy in self.copies:
            part = json.loads((copy.work / "measured.json").read_text())
            seconds |= part["seconds"]
            for file, by_test in part["reached"].items():
                reached.setdefault(file, {}).update(by_test)
        unfinished = self.work / "measured.unfinished"
        unfinished.write_text(json.dumps({"seconds": seconds, "reached": reached}))
        unfinished.rename(self.work / "measured.json")

    def verdicts(self) -> dict[str, dict]:
        """The last verdict on each mutant, by name; also those of a run with more jobs."""
        every = [Copy(self.code, folder) for folder in sorted(self.work.glob("[0-9]*"))]
        lines = [line for copy in every for line in copy.verdicts()]
        return {line["name"]: line for line in sorted(lines, key=lambda line: line["at"])}

    def judge(self, mutants: list[Mutant], again: list[str]) -> None:
        """Judge those that have no verdict yet; or, by the tests `again` alone, those that survived."""
        known = self.verdicts()
        measured = json.loads((self.work / "measured.json").read_text())
        orders = []
        for mutant in mutants:
            order = {"name": mutant.name, "file": mutant.file, "source": mutant.source}
            if again and known.get(mutant.name, {}).get("verdict") == "survived":
                orders.append({**order, "tests": None})
            elif not again and mutant.name not in known:
                orders.append(
                    {**order, "tests": affordable(reaching(mutant, measured["reached"]), measured["seconds"])}
                )
        started = []
        for number, copy in enumerate(self.copies):
            if share := orders[number :: self.jobs]:
                (copy.work / "orders.json").write_text(json.dumps(share))
                files = sorted({test.partition("::")[0] for order in share for test in order["tests"] or []})
                started.append(copy.pytest("judge", "0/1", again or files))
        wait(started)


def wait(started: list[subprocess.Popen]) -> None:
    """Until all have ended; 1 is a test that failed, 5 a share without tests."""
    codes = [process.wait() for process in started]
    if wrong := [code for code in codes if code not in (0, 1, 5)]:
        sys.exit(f"pytest ended with {wrong[0]}")


def reaching(mutant: Mutant, reached: dict[str, dict[str, list[int]]]) -> list[str]:
    """Tests that run the changed statement; where none was seen to, those of its function, else of its file.

    A process that a test kills leaves no word of the lines that it ran.
    """
    by_test = reached.get(mutant.file, {})
    whole_file = (1, sys.maxsize)
    for first, last in (mutant.statement, mutant.function, whole_file):
        tests = [test for test, lines in by_test.items() if any(first <= line <= last for line in lines)]
        if tests:
            return tests
    return []


def affordable(tests: list[str], seconds: dict[str, float]) -> list[str]:
    """The quickest of them, as many as PATIENCE allows, and always one."""
    tests = sorted(tests, key=seconds.__getitem__)
    spent = itertools.accumulate(seconds[test] for test in tests)
    return [
        test
        for number, (test, until) in enumerate(zip(tests, spent, strict=True))
        if until < PATIENCE or not number
    ]


def report(sample: list[Mutant], verdicts: dict[str, dict], title: str) -> str:
    """The figure, and a line for each mutant that was not noticed."""
    judged = [(mutant, verdicts[mutant.name]) for mutant in sample if mutant.name in verdicts]
    unnoticed = [(mutant, verdict) for mutant, verdict in judged if verdict["verdict"] not in NOTICED]
    figure = f"{title}: {len(judged) - len(unnoticed)} noticed of {len(judged)} judged, {len(sample)} drawn"
    return "\n".join(
        [
            figure,
            *(f"  {verdict['verdict']}  {mutant.name}  {mutant.change}" for mutant, verdict in unnoticed),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200, help="mutants in the sample of all rooms together")
    parser.add_argument("--room", choices=ROOMS, action="append", help="judge this room's part only")
    parser.add_argument(
        "--fresh", action="store_true", help="from the code as it is now, forgetting all verdicts"
    )
    parser.add_argument(
        "--again", nargs="+", metavar="TESTS", default=[], help="try these tests on survivors"
    )
    parser.add_argument("--jobs", type=int, default=1, help="copies to work in at a time (default: 1)")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}: at least 1")

    rooms = [Room(code, FOLDER / code.rpartition("/")[2], options.jobs) for code in ROOMS]
    if options.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    for room in rooms:
        room.prepare()
    sample, total = draw(rooms[0].copies[0].tree, ROOMS, options.seed, options.count)
    for room in rooms:
        of_room = [mutant for mutant in sample if mutant.file.startswith(f"{room.code}/")]
        if room.code in (options.room or ROOMS):
            if options.again:
                for copy in room.copies:
                    copy.take(*(test.partition("::")[0] for test in options.again))
            room.judge(of_room, options.again)
        print(report(of_room, room.verdicts(), room.code))
    print(
        report(
            sample,
            {k: v for room in rooms for k, v in room.verdicts().items()},
            f"seed {options.seed}, {total} mutants",
        )
    )


if __name__ == "__main__":
    main()
