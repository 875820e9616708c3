"""`python -m bench merge FROM INTO`: bring what one store has done into another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from bench.cli.arguments import Parser, exit_code, place
from bench.engine import atomic
from bench.engine.store import Store, merging
from bench.engine.store.merging import BROUGHT, BUSY, Outlook
from bench.errors import StoreError
from bench.text import bytes_text, plural

INCOMPLETE = 1  # exit code: the stores contradict each other, or something could not be brought
SHOWN = 20  # conflicts listed


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 where INTO has all that FROM has done, else 1; raises BenchError."""
    parser = Parser(
        "bench merge", "Bring what one store has done into another, each file checked on the way."
    )
    parser.add_argument("source", type=place, metavar="FROM", help="a store; nothing in it is changed")
    parser.add_argument("target", type=place, metavar="INTO", help="the store that is to have it too")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be brought")
    options = parser.parse_args(arguments)
    source, target = _store(options.source), _store(options.target)
    if source.root.resolve() == target.root.resolve():
        raise StoreError(f"{options.source} and {options.target} are one store: give two")
    from bench.tasks import KINDS  # heavy (torch): not before both stores are found to be some

    versions = {name: kind.version for name, kind in KINDS.items()}
    found = merging.look(source, target, versions, [name for name, kind in KINDS.items() if kind.measures])
    for line in found.damaged:
        print(f"damaged: {line}")
    if found.conflicts:
        return _refuse(found, target)
    said = f"{plural(len(found.bring), 'task')} to bring ({bytes_text(found.size)}), {found.same} in both"
    if options.dry_run:
        print(said)
        return INCOMPLETE if found.damaged else 0
    print(said, flush=True)
    return _bring(source, target, found)


def _store(root: Path) -> Store:
    store = Store(root)
    store.need()
    store.check()
    return store


def _refuse(found: Outlook, target: Store) -> int:
    for line in found.conflicts[:SHOWN]:
        print(f"conflict: {line}")
    if len(found.conflicts) > SHOWN:
        print(f"and {len(found.conflicts) - SHOWN} more")
    print(
        f"{plural(len(found.conflicts), 'task')} done in both with other results, as processors of two makes may give; "
        f"{target.root} keeps its own: nothing was merged"
    )
    return INCOMPLETE


def _bring(source: Store, target: Store, found: Outlook) -> int:
    target.prepare()
    free = atomic.free(target.root)
    if found.size + atomic.SPARE > free:
        raise StoreError(
            f"the disk of {target.root} has {bytes_text(free)} free, {bytes_text(found.size)} are to be brought; "
            f"nothing was merged"
        )
    brought, busy, damaged = 0, 0, len(found.damaged)
    with target.errors(), tqdm(total=found.size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        # In any order: nothing reads a task before its own record is there.
        for record in found.bring:
            outcome = merging.bring(source, target, record, bar.update)
            brought += outcome == BROUGHT
            busy += outcome == BUSY
            if outcome not in (BROUGHT, BUSY):
                damaged += 1
                print(f"damaged: {outcome}")
    left = [f"{busy} run in {target.root} now"] if busy else []
    left += [f"{damaged} damaged in {source.root}"] if damaged else []
    rest = f"; not brought: {', '.join(left)}" if left else ""
    print(f"{plural(brought, 'task')} brought into {target.root}, {found.same} were there{rest}")
    return INCOMPLETE if left else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
