"""What a sweep says of its decode cache before it runs anything; and `python -m bench decode_cache DIR`, which reads
every byte of one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from bench.cli.arguments import Parser, exit_code, place
from bench.engine.task import Sources, Task
from bench.errors import MissingData
from bench.text import bytes_text, plural

DAMAGED = 1  # exit code


def look(tasks: Iterable[Task], sources: Sources, prepare: bool) -> str:
    """One line: what the tasks will have decoded into the cache, and the room for it.

    prepare: make the folder and prove that it can be written, where something goes into it. Raises StoreError for a
    folder that is no decode cache of this version, has no room or, prepared, cannot be written."""
    from bench.datasets import open_dataset  # heavy (torch)
    from bench.datasets.decode_cache import DecodeCache
    from bench.datasets.pictures import Pictures
    from bench.tasks.splits import read_whole

    cache = DecodeCache(sources.decode_cache)
    cache.check()
    missing = {}
    for named, config in read_whole(tasks):
        try:
            split = open_dataset(named["name"], named["settings"], sources).split(named["split"], config)
        except MissingData:  # a placeholder stands for it
            continue
        if isinstance(split, Pictures) and not (entry := cache.entry(split, named)).is_there:
            missing[entry.key] = (entry.bytes, f"{named['name']} {named['split']}")
    if not missing:
        return f"decode cache: {cache.root}; nothing to decode"
    needed = sum(size for size, _ in missing.values())
    cache.require_room(needed)
    if prepare:
        cache.prepare()
    names = ", ".join(dict.fromkeys(name for _, name in missing.values()))
    free = bytes_text(cache.free())
    return f"decode cache: {cache.root}; to decode: {names}, {bytes_text(needed)} of {free} free"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, or 1 where something is damaged; raises BenchError."""
    parser = Parser(
        "bench decode_cache",
        "Read every byte of a decode cache; exit code 1 where something is damaged: remove its folder, and the next "
        "sweep decodes it again.",
    )
    parser.add_argument("folder", type=place, metavar="DIR", help="what --decode-cache named")
    options = parser.parse_args(arguments)
    from bench.datasets import decoded
    from bench.datasets.decode_cache import DecodeCache

    damaged = number = 0
    for folder in DecodeCache(options.folder).folders():
        number += 1
        said = decoded.about(folder)
        if said is None or not decoded.is_intact(folder):
            damaged += 1
            print(f"damaged: {folder}")
            continue
        split, size = said["made_of"]["split"], said["made_of"]["fit"]["size"]
        shape = " x ".join(map(str, size))
        print(f"{bytes_text(said['bytes']):>10}  {folder.name}  {split['name']} {split['split']}, {shape}")
    print(f"{plural(number, 'split')} read, {damaged or 'none'} damaged")
    return DAMAGED if damaged else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
