"""`python -m bench`: lists the commands; `python -m bench COMMAND ...` runs one."""

from __future__ import annotations

import sys
from importlib import import_module

from bench.cli.arguments import BAD_INPUT, exit_code

COMMANDS = {  # name -> (module with `main`, what it does)
    "sweep": ("bench.sweep", "run a grid and make its table"),
    "doctor": ("bench.doctor", "what this machine can run, and what to do about each lack"),
    "tables": ("bench.publish.__main__", "make the tables again from the published records"),
    "figures": ("bench.publish.figures.__main__", "draw the figures from records and images"),
    "report": ("bench.publish.report.__main__", "make one HTML page of a results folder"),
    "gallery": ("bench.publish.gallery", "make the documents' page of inverted images"),
    "publish_weights": ("bench.cli.publish_weights", "take weights trained in a store into the project"),
    "compare": ("bench.cli.compare", "do two results folders agree? Cell by cell, within spread or not"),
    "store": ("bench.cli.store", "look after a store: migrate, gc, verify, du"),
    "decode_cache": ("bench.cli.decode_cache", "read every byte of a decode cache"),
    "merge": ("bench.cli.merge", "bring what one store has done into another"),
    "self_benchmark": ("bench.cli.self_benchmark", "how bench itself scales, against its goals"),
}


def main(arguments: list[str]) -> int:
    """Run the command named first with the other arguments; without any, list the commands."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m bench COMMAND [options]; COMMAND --help lists its options\n")
        for name, (_, purpose) in COMMANDS.items():
            print(f"  {name:<16}{purpose}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
        return BAD_INPUT
    command = import_module(COMMANDS[name][0]).main
    return exit_code(lambda: command(rest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
