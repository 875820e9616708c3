"""The options of the sweep's command line, and what they say about where data and weights lie."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from bench.cli.arguments import Parser, place
from bench.engine import executors
from bench.engine.provenance import ROOT
from bench.engine.task import Sources
from bench.errors import BenchError
from bench.grid import DEFAULT_SCALE


def sources_of(options: argparse.Namespace) -> Sources:
    """The folders of data and weights that were given. Raises BenchError for one that is not there."""
    data: dict[str, Path] = {}
    for entry in options.data:
        name, equals, path = entry.partition("=")
        if not equals or not name or not path:
            raise BenchError(f"--data {entry!r}: give NAME=PATH, e.g. cifar10=/data/cifar10")
        if name in data:
            raise BenchError(f"--data {name}= is given twice: {data[name]} and {path}; give one folder")
        try:
            data[name] = place(path)
        except argparse.ArgumentTypeError as error:
            raise BenchError(f"--data {name}: {error}") from None
    if options.imagenet is not None:
        if "imagenet" in data:
            raise BenchError("--imagenet and --data imagenet= are the same option: give one of them")
        data["imagenet"] = options.imagenet
    given = {
        **{f"data set {name}": path for name, path in data.items()},
        "--checkpoints": options.checkpoints,
    }
    for what, path in given.items():
        if path is not None and not path.is_dir():
            raise BenchError(f"{what}: {path} is no folder")
    looking = getattr(options, "dry_run", False) or getattr(options, "status", False)
    return Sources(
        data=data,
        checkpoints=options.checkpoints,
        download=not looking,
        decode_cache=getattr(options, "decode_cache", None),
        retrain=getattr(options, "retrain", False),
        include=tuple(folder.resolve() for folder in getattr(options, "include", ())),
        placeholders={} if looking else None,
    )


def command_line(options: argparse.Namespace, scale: str) -> str:
    """The command that makes a grid's table again, for pages that anybody may read: its grid as it was given, from the
    project's root where it lies there. Folders of data and weights, and those that lie elsewhere on the machine,
    are nobody's business: NAME=DIR and DIR stand for them."""
    words = ["python", "-m", "bench.sweep", "--grid", shlex.quote(_named(options.grid)), "--scale", scale]
    for entry in options.data:
        words += ["--data", shlex.quote(entry.partition("=")[0] + "=DIR")]
    if options.imagenet is not None:
        words += ["--imagenet", "DIR"]
    if options.checkpoints is not None:
        words += ["--checkpoints", "DIR"]
    for folder in options.include:
        words += ["--include", shlex.quote(_named(folder))]
    if options.only:
        words += ["--only", shlex.quote(options.only)]
    if options.allow_cpu:
        words += ["--allow-cpu"]
    if options.retrain:
        words += ["--retrain"]
    return " ".join(words)


def _named(path: Path) -> str:
    """A path as pages name it."""
    place = path.parent.resolve() / path.name
    for root in (ROOT, Path.cwd().resolve()):
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return (Path("DIR", path.name) if path.is_absolute() else path).as_posix()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line. Raises BenchError."""
    parser = Parser("bench.sweep", "Run a grid and make its table.")
    add = parser.add_argument
    add("--grid", type=place, required=True, metavar="FILE", help="the grid, e.g. experiments/table3.yaml")
    add("--scale", help=f"which of the grid's scales to run (default: {DEFAULT_SCALE})")
    parser.add_places()
    parser.add_include()
    add(
        "--decode-cache",
        type=place,
        metavar="DIR",
        help="decode pictures once, into DIR, for all tasks (docs/imagenet.md says the room; default: each time anew)",
    )
    add("--device", help="torch device (default: the GPU if there is one, else cpu)")
    add(
        "--executor",
        type=_executor,
        metavar="NAME",
        help=f"how to run tasks: {', '.join(executors.NAMES)} or module:Class (default: chosen, and said)",
    )
    add("--jobs", type=_positive, metavar="N", help="run N tasks at a time on this machine")
    add("--only", metavar="PATTERN", help="only tasks whose label, kind or key fits, and what they need")
    add("--retry-failed", action="store_true", help="try tasks again that failed in an earlier run")
    add("--allow-cpu", action="store_true", help="run the paper's scale without a GPU")
    add("--quiet", action="store_true", help="print problems only")
    add("--watch", action="store_true", help="with --status: show it again and again until all is settled")
    add(
        "--tensorboard",
        type=place,
        metavar="DIR",
        help="log inversions and trainings for TensorBoard below DIR",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="show what would be done, and how long it takes")
    mode.add_argument("--status", action="store_true", help="show how a sweep stands, from any terminal")
    mode.add_argument("--detach", action="store_true", help="SLURM: submit and end")
    mode.add_argument("--cancel", action="store_true", help="cancel what runs of this grid")
    options = parser.parse_args(arguments)
    if options.watch and not options.status:
        raise BenchError("--watch belongs to --status: give both")
    looking = next(
        (name for name in ("dry_run", "status", "detach", "cancel") if getattr(options, name)), None
    )
    if options.tensorboard is not None and looking:
        raise BenchError(
            f"--tensorboard logs a sweep that runs here; it does not go with --{looking.replace('_', '-')}"
        )
    return options


def _executor(text: str) -> str:
    if text not in executors.NAMES and ":" not in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is unknown; allowed: {', '.join(executors.NAMES)}, or module:Class"
        )
    return text


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1024")
    return number
