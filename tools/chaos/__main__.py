"""`python -m tools.chaos`: sweeps under random faults, and whether every task is done once, whole, in the same table.

Rounds on the local pool, and on a SLURM of two made-up nodes where its programs are installed. A round is a new store,
a grid of 20 small tasks, and a fault every few seconds until all are done. Exit code 1 if anything went wrong; the
folder of a bad round is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.chaos.arena import SUITE, Arena, at_once, scratch
from tools.chaos.faults import FAULTS, failing_squeue

PAUSE = {"local": 1.5, "slurm": 3.0}  # mean seconds between two faults
PATIENCE = 300.0  # seconds that a round may take to end once faults have ceased
BAD = (
    "tasks lost",
    "done twice",
    "at once in two processes",
    "stores damaged",
    "other tables",
    "never ended",
)


@dataclass
class Count:
    """What was seen under one executor."""

    faults: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    tasks: int = 0
    starts: int = 0


class Watch:
    """The records seen so far: none may ever change or go."""

    def __init__(self, arena: Arena) -> None:
        self.arena, self.seen, self.changed = arena, dict[str, bytes](), set[str]()

    def look(self) -> int:
        """The number of tasks done."""
        now = self.arena.done()
        self.changed |= {name for name, record in self.seen.items() if now.get(name) != record}
        self.seen |= now
        return len(now)


def play(arena: Arena, expected: tuple[int, bytes], chance: random.Random, ends: float, count: Count) -> bool:
    """One round; whether all went well. After `ends` (by time.monotonic) there are no more faults."""
    tasks, table = expected
    watch, before = Watch(arena), count.bad.total()
    last = ends + PATIENCE
    while True:
        if not arena.running():
            finished = any(process.returncode == 0 for process in arena.sweeps)
            if finished or time.monotonic() > last:
                break
            count.starts += 1
            arena.start()
        time.sleep(chance.uniform(0, 2 * PAUSE[arena.executor]))
        if watch.look() < tasks and time.monotonic() < ends:
            order = chance.sample(list(FAULTS), len(FAULTS))
            count.faults.update(itertools.islice((name for name in order if FAULTS[name](arena, chance)), 1))
        if time.monotonic() > last:
            break
    count.bad["never ended"] += not finished_well(arena)
    count.bad["tasks lost"] += max(0, tasks - watch.look())
    count.bad["done twice"] += len(watch.changed)
    count.bad["at once in two processes"] += at_once(arena.entries())
    count.bad["stores damaged"] += not arena.verify()
    count.bad["other tables"] += not (arena.table.exists() and arena.table.read_bytes() == table)
    count.rounds, count.tasks = count.rounds + 1, count.tasks + tasks
    return count.bad.total() == before


def finished_well(arena: Arena) -> bool:
    return any(process.returncode == 0 for process in arena.sweeps)


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str] | None]:
    """The environment of a cluster that is there as long as this lasts; None where its programs are not installed."""
    sys.path.insert(0, str(SUITE))
    from cluster import Cluster, missing_programs

    if missing_programs():
        yield None
        return
    cluster = Cluster(folder / "cluster")
    cluster.start()
    try:
        yield cluster.environment
    finally:
        cluster.stop()


def rounds(folder: Path, executor: str, environment: dict[str, str], options: argparse.Namespace) -> Count:
    """As many rounds as there is time for."""
    count, chance = Count(), random.Random(options.seed)
    reference = Arena(folder / "undisturbed", executor, environment, mount=False)
    if reference.run("--executor", "serial") != 0:
        raise SystemExit(f"error: the undisturbed sweep failed; see {reference.said}")
    expected = (len(reference.done()), reference.table.read_bytes())
    ends = time.monotonic() + 60 * options.minutes_each
    while time.monotonic() < ends:
        arena = Arena(folder / f"round{count.rounds}", executor, environment)
        well = False
        try:
            well = play(arena, expected, chance, ends, count)
        finally:
            if not well:
                shutil.copytree(arena.disk, arena.folder / "kept", dirs_exist_ok=True)
            arena.close()
        if well:
            shutil.rmtree(arena.folder)
        print(f"{executor}: round {count.rounds}, {count.faults.total()} faults", flush=True)
    return count


def table(counts: dict[str, Count]) -> str:
    """A Markdown table, a column an executor."""
    lines = ["| | " + " | ".join(counts) + " |", "|---|" + "---|" * len(counts)]

    def row(name: str, values: list[int]) -> None:
        lines.append(f"| {name} | " + " | ".join(map(str, values)) + " |")

    every = list(counts.values())
    row("rounds", [count.rounds for count in every])
    row("tasks", [count.tasks for count in every])
    row("sweeps started", [count.starts + count.faults["second sweep"] for count in every])
    for name in FAULTS:
        row(name, [count.faults[name] for count in every])
    for name in BAD:
        row(f"**{name}**", [count.bad[name] for count in every])
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser("tools.chaos", description="Sweeps under random faults.")
    parser.add_argument("--minutes", type=float, default=60.0, help="of faults, in all (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults' order (default: 0)")
    parser.add_argument("--only", choices=("local", "slurm"), help="(default: both, half the time each)")
    options = parser.parse_args()
    folder = scratch()
    counts: dict[str, Count] = {}
    print(f"in {folder}", flush=True)
    chosen = [options.only] if options.only else ["local", "slurm"]
    with contextlib.ExitStack() as stack:
        places: dict[str, dict[str, str]] = {}
        if "local" in chosen:
            places["local"] = dict(os.environ)
        if "slurm" in chosen:
            environment = stack.enter_context(slurm(folder))
            if environment is None:
                print("no SLURM here: its programs are not installed", flush=True)
            else:
                squeue = shutil.which("squeue", path=environment["PATH"])
                (folder / "slurm").mkdir()
                # One folder for all rounds: jobs inherit this PATH.
                tools = failing_squeue(folder / "slurm", str(squeue))
                path = f"{tools}{os.pathsep}{environment['PATH']}"
                places["slurm"] = {**environment, "PATH": path}
        options.minutes_each = options.minutes / max(1, len(places))
        for executor, environment in places.items():
            counts[executor] = rounds(folder / executor, executor, environment, options)
    print(table(counts))
    bad = sum(count.bad.total() for count in counts.values())
    if not bad:
        shutil.rmtree(folder)
    return 1 if bad or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
