"""Every mutant of the code, made by mutmut's operators, and the sample of them that a seed draws.

A mutant is one small change inside one function. Two departures from mutmut's own choice: functions with decorators
are mutated too (code objects are exchanged, so nothing stands between a decorator and its function), and sentences
are not (a test that repeats a message word by word holds no behaviour; strings without a blank are keys and names,
and stay).
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import Mutation, MutationVisitor, OuterFunctionProvider
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode

Lines = tuple[int, int]  # first and last, from 1


@dataclass(frozen=True)
class Mutant:
    """One change of one file; `statement` and `function` are the lines that run when it is called."""

    name: str
    file: str
    statement: Lines
    function: Lines
    change: str
    source: str


class Visitor(MutationVisitor):
    """mutmut's, into decorated functions and past sentences; knows the statement that each mutation is in."""

    METADATA_DEPENDENCIES = (PositionProvider, OuterFunctionProvider)

    def __init__(self) -> None:
        super().__init__(mutation_operators, IgnoredCode(set(), set(), set()))
        self.statement: cst.CSTNode | None = None
        self.found: list[tuple[Mutation, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.SimpleStatementLine):
            self.statement = node
        known = len(self.mutations)
        into = super().on_visit(node)
        self.found += [(mutation, self.statement or node) for mutation in self.mutations[known:]]
        return into

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if original_node is self.statement:
            self.statement = None

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.SimpleString | cst.ConcatenatedString):
            text = node.evaluated_value
            if isinstance(text, str) and any(map(str.isspace, text)):
                return True
        if isinstance(node, cst.FunctionDef):
            node = node.with_changes(decorators=())
        return super()._skip_node_and_children(node)


def mutants_of(root: Path, file: str) -> list[Callable[[], Mutant]]:
    """What makes each mutant of a file, `file` being its path from the root, in the order of the source."""
    wrapper = MetadataWrapper(cst.parse_module((root / file).read_text(encoding="utf-8")))
    visitor = Visitor()
    module = wrapper.visit(visitor)
    positions = wrapper.resolve(PositionProvider)

    def lines(node: cst.CSTNode) -> Lines:
        return positions[node].start.line, positions[node].end.line

    def mutant(number: int, mutation: Mutation, statement: cst.CSTNode) -> Mutant:
        old, new = mutation.original_node, mutation.mutated_node
        function = mutation.contained_by_top_level_function
        body = lines(function.body.body[0])[0], lines(function)[1]  # without the head, which runs at import
        before, after = (" ".join(module.code_for_node(node).split()) for node in (old, new))
        return Mutant(
            name=f"{file}:{lines(old)[0]}#{number}",
            file=file,
            statement=body if lines(statement)[0] < body[0] else lines(statement),
            function=body,
            change=f"{before} -> {after}",
            source=module.deep_replace(old, new).code,
        )

    return [
        functools.partial(mutant, number, mutation, statement)
        for number, (mutation, statement) in enumerate(visitor.found)
        # Else of a class's or a module's own lines, which run once, at import.
        if isinstance(mutation.contained_by_top_level_function, cst.FunctionDef)
    ]


def draw(root: Path, rooms: Iterable[str], seed: int, count: int) -> tuple[list[Mutant], int]:
    """`count` mutants of the Python files under these folders, in the order drawn, and how many there are in all.

    A shorter draw with the same seed is the beginning of a longer one.
    """
    files = sorted(
        path.relative_to(root).as_posix() for room in rooms for path in (root / room).rglob("*.py")
    )
    everything = [mutant for file in files for mutant in mutants_of(root, file)]
    random.Random(seed).shuffle(everything)
    return [make() for make in everything[:count]], len(everything)
