"""What modules of an included folder (`--include FOLDER`, or a grid's `include:`) call to take part by name.

    from bench import register

    @register.score
    def contrast(model, image, kept, generator): ...

Each refuses a name that is taken. Outside such a folder there is nothing to register with: what is not named by the
user is not imported. docs/adding.md shows each.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from bench.engine import include
from bench.errors import BenchError

F = TypeVar("F", bound=Callable[..., Any])
TERM_NEEDS = ("attention_outputs", "batchnorm", "student_logits")  # fields of smi.objectives.Step
DATASET = ("classes", "splits", "fingerprint", "count", "split")


def score(function: F) -> F:
    """A selection score under the function's name: (model, image, kept, generator) -> importance [B, K]."""
    import smi

    name = function.__name__
    file = _add(smi.SCORES, "score", name)

    @functools.wraps(function)
    def checked(model: Any, image: Any, kept: Any, generator: Any) -> Any:
        values = function(model, image, kept, generator)
        if getattr(values, "shape", None) != kept.shape:
            allowed = f"a tensor [B, K] = {list(kept.shape)}, like `kept`"
            raise BenchError(f"{file}: score {name} returned {_what(values)}; allowed: {allowed}")
        return values

    smi.SCORES[name] = checked
    return function


def term(*needs: str, pixels: bool = False, batch_mean: bool = False) -> Callable[[F], F]:
    """A loss term under the function's name: (step, *, parameters) -> scalar.

    needs: fields of smi.objectives.Step that it reads besides logits and targets. pixels: it reads the image or the
    view and nothing else. batch_mean: it is a mean of what each image alone gives, and so works in micro-batches.
    """
    from smi import objectives

    def add(function: F) -> F:
        name = function.__name__
        for need in needs:
            if need not in TERM_NEEDS:
                raise BenchError(f"term {name}: unknown need {need!r}; allowed: {', '.join(TERM_NEEDS)}")
        typing.get_type_hints(
            function
        )  # read again wherever the term is used: what is wrong in them shows here
        if next(iter(inspect.signature(function).parameters), None) != "step":
            raise BenchError(f"term {name}: its first parameter must be called `step`")
        file = _add(objectives.TERMS, "term", name)

        @functools.wraps(function)
        def checked(step: Any, **parameters: Any) -> Any:
            value = function(step, **parameters)
            if getattr(value, "shape", None) != () or not value.is_floating_point():
                allowed = "a tensor of one floating-point number, []"
                raise BenchError(f"{file}: term {name} returned {_what(value)}; allowed: {allowed}")
            return value

        objectives.TERMS[name] = checked
        objectives.NEEDS[name] = frozenset(needs)
        if pixels:
            objectives.PIXEL_TERMS.add(name)
        if batch_mean:
            objectives.BATCH_MEANS.add(name)
        return function

    return add


def recipe(made: Any) -> None:
    """A recipe (smi.Recipe) under its own name. Its values stand in keys whole."""
    import smi

    if not isinstance(made, smi.Recipe):
        raise BenchError(f"recipe: got {_what(made)}; allowed: a smi.Recipe")
    _add(smi.RECIPES, "recipe", made.name)
    smi.RECIPES[made.name] = made


def dataset(name: str) -> Callable[[F], F]:
    """A data set: a class like bench.datasets.digits.Digits, made with (settings, sources)."""
    from bench import datasets

    def add(factory: F) -> F:
        file = _add(datasets.DATASETS, "dataset", name)

        @functools.wraps(factory, updated=())
        def checked(settings: Mapping[str, Any], sources: Any) -> Any:
            made = factory(settings, sources)
            missing = [part for part in DATASET if not hasattr(made, part)]
            if missing:
                raise BenchError(f"{file}: data set {name} has no {missing[0]}; needed: {', '.join(DATASET)}")
            if not isinstance(made.classes, int) or made.classes < 2:
                raise BenchError(f"{file}: data set {name}: classes is {made.classes!r}; allowed: 2 or more")
            return made

        datasets.DATASETS[name] = checked
        return factory

    return add


def architecture(name: str, **arguments: Any) -> None:
    """A small model trained on first use: arguments of timm's VisionTransformer; a data set's classes replace its
    num_classes. They stand in keys whole."""
    from timm.models.vision_transformer import VisionTransformer

    from bench import models

    try:
        VisionTransformer(**arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise BenchError(f"architecture {name}: timm's VisionTransformer refuses it: {error}") from None
    _add(models.ARCHITECTURES, "architecture", name)
    models.ARCHITECTURES[name] = {"num_classes": 10, **arguments}


def kind(name: str, version: int = 1, resumable: bool = True) -> Callable[[F], F]:
    """A kind of task: run(job) -> metrics. resumable: saves its state when told to stop, and goes on from there; one
    that does not fails at its SLURM job's time limit instead of beginning again and again."""
    from bench.tasks import KINDS, Kind

    def add(run: F) -> F:
        _add(KINDS, "kind", name)
        KINDS[name] = Kind(version, run, resumable)
        return run

    return add


def experiment(name: str, **parts: Any) -> None:
    """An experiment: the fields of bench.experiments.Experiment, `build` and `table` at least."""
    from bench import experiments

    try:
        made = experiments.Experiment(**parts)
    except TypeError as error:
        raise BenchError(f"experiment {name}: {error}") from None
    _add(experiments.EXPERIMENTS, "experiment", name)
    experiments.register(name, made)


def figure(name: str, title: str, grids: tuple[str, ...], experiment: str) -> Callable[[F], F]:
    """A figure of an experiment: draw(material) -> Still or Animation (bench.publish.figures.kinds)."""
    from bench.publish.figures import all_figures
    from bench.publish.figures.kinds import Figure

    def add(draw: F) -> F:
        _add({known.name for known in all_figures()}, "figure", name)
        _extend(experiment, "figures", Figure(name, title, tuple(grids), draw))
        return draw

    return add


def claim(made: Any, experiment: str) -> None:
    """A claim (bench.publish.claims.Claim) to be judged by an experiment's records."""
    from bench.publish.claims import Claim, all_claims

    if not isinstance(made, Claim):
        raise BenchError(f"claim: got {_what(made)}; allowed: a bench.publish.claims.Claim")
    _add({known.statement for known in all_claims()}, "claim", made.statement)
    _extend(experiment, "claims", made)


def _extend(name: str, field: str, value: Any) -> None:
    from bench.experiments import EXPERIMENTS, part

    if name not in EXPERIMENTS:
        raise BenchError(f"unknown experiment {name!r}; allowed: {', '.join(EXPERIMENTS)}")
    known = EXPERIMENTS[name]
    EXPERIMENTS[name] = replace(known, **{field: (*part(getattr(known, field)), value)})


def _add(taken: Any, what: str, name: str) -> str:
    """Refuse a name that is taken; returns the file that registers it."""
    if name in taken and include.code(f"{what} {name}") is None:
        raise BenchError(f"the {what} {name!r} is the project's own; give yours another name")
    return include.note(f"{what} {name}")


def _what(value: Any) -> str:
    """`a tensor [3, 4] of torch.int64`, `a list`."""
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"a tensor {list(shape)} of {value.dtype}"
