"""`python -m bench store migrate | gc | verify | du`: look after a store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cli.arguments import Parser, exit_code
from bench.engine.store import Store, layout, upkeep
from bench.errors import StoreError
from bench.text import bytes_text, plural

ACTIONS = {
    "migrate": "bring a store of an earlier version to this one's layout; may be stopped and run again",
    "gc": "remove what killed processes left and nothing needs",
    "verify": "read every record and artifact; exit code 1 where one is damaged",
    "du": "how much room the store takes, by kind of task",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 1 where `verify` finds damage; raises BenchError."""
    listed = "; ".join(f"{name}: {purpose}" for name, purpose in ACTIONS.items())
    parser = Parser("bench store", f"Look after a store. {listed}.")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--store", type=Path, default=Path("runs"), metavar="DIR", help="(default: runs)")
    parser.add_argument("--dry-run", action="store_true", help="gc: show what would be removed")
    options = parser.parse_args(arguments)
    store = Store(options.store)
    store.need()
    with store.errors():
        if options.action == "migrate":
            return _migrate(store)
        layout.check(store.root)
        if options.action == "gc":
            return _gc(store, options.dry_run)
        return _verify(store) if options.action == "verify" else _du(store)


def _migrate(store: Store) -> int:
    claim = store.claims.take("migration")
    try:
        running = sorted(set(store.claims.held()) - {"migration"})
        if claim is None or running:
            who = ", ".join(running[:3]) or "another migration"
            raise StoreError(f"the store {store.root} is in use ({who}): migrate it when nothing runs")
        moved = layout.migrate(store.root)
    finally:
        if claim is not None:
            claim.release()
    print(f"{plural(moved, 'move')} made; {store.root} has layout {layout.LAYOUT}")
    return 0


def _gc(store: Store, dry: bool) -> int:
    number = freed = 0
    for found in upkeep.litter(store):
        number, freed = number + 1, freed + upkeep.size(found.path)
        print(f"{found.path}: {found.why}")
        if not dry:
            upkeep.remove(found)
    print(f"{plural(number, 'thing')}, {bytes_text(freed)}" + (" to remove" if dry else " removed"))
    return 0


def _verify(store: Store) -> int:
    found = 0
    for line in upkeep.damages(store):
        found += 1
        print(f"damaged: {line}")
    number = sum(1 for _ in layout.names(store.root, "records"))
    print(f"{plural(number, 'record')} read with all that they vouch for, {found or 'none'} damaged")
    return 1 if found else 0


def _du(store: Store) -> int:
    for name, (files, size) in upkeep.room(store).items():
        print(f"{bytes_text(size):>10}  {plural(files, 'file'):>16}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
