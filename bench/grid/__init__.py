"""The grid: what a table is made of, as data. One YAML file, one table, several scales inside.

`load` reads and checks a file; `Grid.cells` expands a scale's axes with the semantics of GitHub's job matrix.
What the settings of an experiment may be is known to its pipeline, which checks them through `Grid.section`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
)

from bench.errors import BenchError
from bench.grid.validation import M, validate
from bench.grid.yaml_file import Document, Location, read

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Cell = dict[str, Any]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=60)]
Text = Annotated[str, Field(min_length=1, max_length=4000)]
READING = "{pictures}, {step}, {error}"
DEFAULT_SCALE, PAPER_SCALE = "digits", "paper"
MAX_CELLS = 100_000
BITS = re.compile(r"^W([0-9]+)/A([0-9]+)$")
MIN_BITS, MAX_BITS = 2, 8
# Axes of names.
NAMES = ("model", "cost_model", "dataset", "method", "pool", "student", "precision", "engine")


class Strict(BaseModel):
    """Base of everything read from a grid: unknown keys are refused, values never change, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


PositiveFloat = Annotated[float, Field(gt=0)]


class Resources(Strict):
    """What a SLURM job of one task kind asks for; the local executors read `gpus` only."""

    gpus: Annotated[int, Field(ge=0, le=16)] = 0
    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    memory_gb: PositiveFloat = 4.0
    minutes: Annotated[int, Field(ge=1, le=60 * 24 * 30)] = 60  # time limit; work goes on in a requeued job
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = Field(
        default=(), strict=False
    )  # shell lines run before Python: modules, environment
    wckey: str | None = None
    array_parallelism: Annotated[int, Field(ge=1)] | None = None
    tasks_per_job: Annotated[int, Field(ge=1, le=10_000)] = 1  # one process runs so many, one after the other


class Expect(Strict):
    """Seconds that one task of a kind takes, for estimates before any record exists."""

    cpu: dict[str, PositiveFloat] = {}
    gpu: dict[str, PositiveFloat] = {}


class About(Strict):
    """What a scale is, in words, for every page that is made from it.

    subject: what is inverted, and its data. shows: what the scale can show and what it cannot. reading: how to read the
    table; {pictures} (of test), {step} (points that one of them is worth) and {error} (standard error of full
    precision's top-1, in points) are filled in. pictures: what to know when looking at its images.
    guide: a page on how its settings were chosen, from the project's root.
    judged: its figures can tell whether the paper's claims hold.
    """

    subject: Text | None = None
    shows: Text | None = None
    reading: Text | None = None
    pictures: Text | None = None
    guide: Text | None = None
    judged: StrictBool = False

    @field_validator("reading")
    @classmethod
    def _placeholders(cls, text: str | None) -> str | None:
        try:
            (text or "").format(pictures=1, step=1.0, error=1.0)
        except (LookupError, ValueError) as error:
            raise ValueError(f"a placeholder that is not known ({error}); allowed: {READING}") from None
        return text


class Scale(Strict):
    """One size of the experiment: what it is, its axes, its settings, and what its tasks need from a machine."""

    about: About = About()
    axes: Annotated[dict[Name, Annotated[list[Scalar], Field(min_length=1)]], Field(min_length=1)]
    include: list[dict[Name, Scalar]] = []
    exclude: list[dict[Name, Scalar]] = []
    settings: dict[str, Any] = {}
    resources: dict[str, Resources] = {}
    expect: Expect = Expect()


class Grid(Strict):
    """A whole grid file. `methods` are shared by the scales; each scale expands to cells on its own."""

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=300)]
    experiment: Name
    table: Name | None = None  # stem of the table's file, where that is not the grid's name
    include: list[
        Text
    ] = []  # folders of Python modules of one's own, from the grid's folder (bench/register.py)
    methods: dict[Name, dict[str, Any]] = {}
    scales: Annotated[dict[Name, Scale], Field(min_length=1)]

    _document: Document = PrivateAttr()

    @property
    def path(self) -> Path:
        return self._document.path

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders under `include`. Raises BenchError for one that is not there."""
        found = tuple(self.beside(folder) for folder in self.include)
        for index, folder in enumerate(found):
            if not folder.is_dir():
                allowed = ["a folder of Python modules, its path from the grid's folder"]
                raise self.error(("include", index), f"{folder} is no folder", allowed)
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        """The files or folders of pictures that methods name, there or not."""
        named = (method.get("files") for method in self.methods.values())
        return tuple(self.beside(path) for path in named if isinstance(path, str))

    def beside(self, path: str) -> Path:
        """A path that the grid names: from the grid's own folder, or absolute."""
        return (self.path.parent / Path(path).expanduser()).resolve()

    def scale(self, name: str) -> Scale:
        """The scale called `name`. Raises BenchError with the scales that the file has."""
        if name not in self.scales:
            raise BenchError(f"{self.path}: unknown scale {name!r}; allowed: {', '.join(self.scales)}")
        return self.scales[name]

    def cells(self, scale: str) -> list[Cell]:
        """Every combination of the scale's axes, less `exclude`, with `include` added; in the order of the file."""
        spec = self.scale(scale)
        count = 1
        for values in spec.axes.values():
            count *= len(values)
        if count > MAX_CELLS:
            raise self.error(("scales", scale, "axes"), f"{count} cells; at most {MAX_CELLS} are allowed")
        cells = expand(spec.axes, spec.include, spec.exclude)
        if not cells:
            raise self.error(("scales", scale, "exclude"), "every cell is excluded; leave at least one")
        return cells

    def error(self, location: Location, message: str, allowed: Iterable[Any] | None = None) -> BenchError:
        """A BenchError naming file, line and key of `location` (path from the file's root), and what is allowed."""
        if allowed is not None:
            message += "; allowed: " + ", ".join(str(value) for value in allowed)
        return self._document.error(location, message)

    def section(self, model: type[M], *location: str | int) -> M:
        """The part of the file at `location` (absent: empty) read by another schema, errors pointing at its lines."""
        value: Any = self._document.value
        for part in location:
            value = value.get(part, {}) if isinstance(value, dict) else value[part]
        return validate(model, {} if value is None else value, self._document, location)


def load(path: Path | str) -> Grid:
    """Read and check a grid file. Raises BenchError, one line with file, line, key and what is allowed."""
    document = read(Path(path))
    grid = validate(Grid, document.value, document, ())
    grid._document = document
    if grid.name != Path(path).stem:
        raise document.error(("name",), f"{grid.name!r} must be the file's name, {Path(path).stem!r}")
    for scale in grid.scales:
        _check_scale(grid, scale)
    return grid


def expand(
    axes: Mapping[str, Sequence[Any]],
    include: Sequence[Mapping[str, Any]],
    exclude: Sequence[Mapping[str, Any]],
) -> list[Cell]:
    """GitHub's matrix: product of the axes, less what an `exclude` entry matches; then each `include` entry is added
    to every cell whose axis values it does not contradict, or becomes a cell of its own if there is none."""
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    cells = [cell for cell in cells if not any(_matches(cell, entry, entry) for entry in exclude)]
    originals = list(cells)
    for entry in include:
        shared = [key for key in entry if key in axes]
        hosts = [cell for cell in originals if _matches(cell, entry, shared)]
        if hosts and len(shared) < len(entry):
            for cell in hosts:
                cell.update(entry)
        elif not hosts:
            cells.append(dict(entry))
    return cells


def parse_bits(text: str) -> tuple[int, int]:
    """`"W4/A8"` -> (4, 8): weight and activation bits. Raises ValueError outside 2..8."""
    match = BITS.match(text) if isinstance(text, str) else None
    widths = tuple(int(width) for width in match.groups()) if match else ()
    if len(widths) != 2 or not all(MIN_BITS <= width <= MAX_BITS for width in widths):
        allowed = f"W<k>/A<k> with k from {MIN_BITS} to {MAX_BITS}, e.g. W4/A8"
        raise ValueError(f"{text!r} is no bit-width; allowed: {allowed}")
    return widths


def _matches(cell: Mapping[str, Any], entry: Mapping[str, Any], keys: Iterable[str]) -> bool:
    return all(key in cell and _same(cell[key], entry[key]) for key in keys)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def _check_scale(grid: Grid, name: str) -> None:
    """What the schema alone cannot say: values repeated, entries about axes or values that do not exist."""
    scale, here = grid.scales[name], ("scales", name)
    place: Location
    for axis, values in scale.axes.items():
        seen: set[tuple[type, Any]] = set()
        for index, value in enumerate(values):
            place = (*here, "axes", axis, index)
            if (type(value), value) in seen:
                raise grid.error(place, f"{value!r} appears twice")
            seen.add((type(value), value))
            _check_value(grid, place, axis, value)
    for index, entry in enumerate(scale.exclude):
        place = (*here, "exclude", index)
        if not entry:
            raise grid.error(place, "an empty entry would exclude every cell", scale.axes)
        for key, value in entry.items():
            if key not in scale.axes:
                raise grid.error((*place, key), f"{key!r} is no axis", scale.axes)
            if not any(_same(value, known) for known in scale.axes[key]):
                raise grid.error((*place, key), f"{value!r} is not on the axis {key}", scale.axes[key])
    for index, entry in enumerate(scale.include):
        place = (*here, "include", index)
        for key, value in entry.items():
            _check_value(grid, (*place, key), key, value)
    for index, cell in enumerate(grid.cells(name)):
        missing = [axis for axis in scale.axes if axis not in cell]
        if missing:
            raise grid.error(
                (*here, "include"),
                f"an entry that fits no cell becomes a cell of its own and must name every axis; missing in cell "
                f"{index + 1}: {', '.join(missing)}",
            )


def _check_value(grid: Grid, place: Location, axis: str, value: Any) -> None:
    """The axes that mean the same in every experiment."""
    if axis in NAMES and type(value) is not str:
        raise grid.error(place, f"{value!r} is no name", ["text (in quotes if it looks like a number)"])
    if axis == "method" and value not in grid.methods:
        raise grid.error(place, f"unknown method {value!r}", grid.methods)
    if axis == "seed" and (type(value) is not int or not 0 <= value < 2**31):
        raise grid.error(place, f"{value!r} is no seed", ["whole numbers from 0 to 2147483647"])
    if axis == "bits":
        try:
            parse_bits(value)
        except ValueError as error:
            raise grid.error(place, str(error)) from None
