"""What experiments share: the tasks for teachers and images.

Two grids that ask for the same teacher or the same images get the same task, and so one result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import smi
from bench import datasets, models
from bench.engine.task import Sources, Task
from bench.errors import BenchError, MissingData, RefusedSetting
from bench.experiments.builders import outside, seeds
from bench.experiments.builders.schemas import Method, Settings
from bench.grid import Grid
from bench.grid.spelling import one_spelling
from bench.models import training
from bench.tasks import KINDS
from smi.errors import InvalidSetting, SmiError
from smi.rebirth import Schedule as AnySchedule
from smi.vit import TokenModel, adapt

OF_READING = 1.0  # seconds: weights that are there already


@dataclass
class TaskBuilder:
    """Makes the tasks of one scale of a grid, checking names and values as it goes; each thing is made once."""

    grid: Grid
    scale: str
    sources: Sources
    # An experiment with more settings subclasses these two.
    settings_schema: ClassVar[type[Settings]] = Settings
    method_schema: ClassVar[type[Method]] = Method
    _teachers: dict[tuple[str, str], Task] = field(default_factory=dict)
    _outlines: dict[str, TokenModel] = field(default_factory=dict)
    _datasets: dict[str, datasets.Dataset] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)  # of training pictures
    _splits: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _inversions: dict[str, dict[str, Any]] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)

    @cached_property
    def settings(self) -> Settings:
        settings = self.grid.section(self.settings_schema, *self.here, "settings")
        for key, known in (("recipes", smi.RECIPES), ("datasets", [*datasets.DATASETS, *self.sources.data])):
            for name in getattr(settings, key):
                if name not in known:
                    what = f"unknown {key.removesuffix('s')} {name!r}"
                    raise self.grid.error((*self.here, "settings", key, name), what, known)
        return settings

    @cached_property
    def methods(self) -> dict[str, Method]:
        return {name: self._method(name) for name in self.grid.methods}

    @property
    def here(self) -> tuple[str, str]:
        return ("scales", self.scale)

    def need_axes(self, *names: str, optional: Sequence[str] = ()) -> None:
        """Refuse a grid that lacks an axis of the experiment, or has one that it does not know."""
        axes = self.grid.scale(self.scale).axes
        for name in axes:  # first: a misspelt axis is also a missing one
            if name not in (*names, *optional):
                allowed = (*names, *optional)
                raise self.grid.error((*self.here, "axes", name), f"unknown axis {name!r}", allowed)
        for index, entry in enumerate(self.grid.scale(self.scale).include):
            for name in entry:
                if name not in (*names, *optional):
                    place = (*self.here, "include", index, name)
                    raise self.grid.error(place, f"{name!r} is no axis", (*names, *optional))
        for name in names:
            if name not in axes:
                raise self.grid.error((*self.here, "axes"), f"the axis {name!r} is missing")

    def values_of(self, axis: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """(place in the grid, value) of each value that the scale gives an axis, in its list or in `include`."""
        spec = self.grid.scale(self.scale)
        for index, value in enumerate(spec.axes[axis]):
            yield (*self.here, "axes", axis, index), value
        for index, entry in enumerate(spec.include):
            if axis in entry:
                yield (*self.here, "include", index, axis), entry[axis]

    def split(self, dataset: str, split: str) -> dict[str, Any]:
        """What names a split in settings (bench.datasets.fingerprint)."""
        if (dataset, split) not in self._splits:
            self._open(dataset)  # its settings are checked there
            settings = self._dataset_settings(dataset)
            self._splits[dataset, split] = datasets.fingerprint(dataset, settings, split, self.sources)
        return self._splits[dataset, split]

    def outline(self, model: str) -> TokenModel:
        """The model's shape, accepted by the adapter. UnsupportedModel names what is not handled."""
        if model not in self._outlines:
            try:
                self._outlines[model] = adapt(
                    models.outline(models.describe(model, self.sources, weights=False))
                )
            except BenchError as error:
                raise self.grid.error((*self.here, "axes"), str(error)) from None
        return self._outlines[model]

    def teacher(self, model: str, dataset: str) -> Task:
        """The model that is inverted. Ours is trained here; of timm's, the user's own for the data set comes first."""
        if (model, dataset) not in self._teachers:
            self._teachers[model, dataset] = self._teacher(model, dataset)
            self._need_shape(model, dataset)
        return self._teachers[model, dataset]

    def _teacher(self, model: str, dataset: str) -> Task:
        if models.is_own(model):
            return self._trained(model, dataset)
        self.outline(model)
        own = models.describe_own(model, dataset, self.classes(dataset), self.sources)
        if own is None:
            return self.pretrained(model, dataset)
        return self.task("teacher", {"model": own}, {}, f"teacher {model} {dataset}")

    def pretrained(self, model: str, dataset: str) -> Task:
        """A timm model with timm's weights, for a data set of its own classes."""
        own = f"; --checkpoints DIR takes one of your own, DIR/{model}.{dataset}.safetensors"
        self._need_classes(model, dataset, own)
        return self.task("teacher", {"model": models.describe(model, self.sources)}, {}, f"teacher {model}")

    def _trained(self, model: str, dataset: str) -> Task:
        self.outline(model)
        own, named = models.split_seed(model)
        seed = self.settings.teacher_seed if named is None else named
        tutor = self.settings.tutor
        for key in ("temperature", "mix"):
            if key in self.settings.teacher:
                message = f"{key} is the tutor's: give it under tutor, or leave it out"
                raise self.grid.error((*self.here, "settings", "teacher", key), message)
        taught = {} if tutor is None else {"temperature": tutor.temperature, "mix": tutor.mix}
        settings = self._training_task(model, dataset, {**self.settings.teacher, **taught}, seed, "teacher")
        of_tutor = None
        if tutor is not None:
            place = ("tutor", "training")
            of_tutor = self._training_task(tutor.model, dataset, tutor.training, seed, *place)
        found = self.published(f"{own}{models.SEED_MARK}{seed}", dataset, settings, of_tutor)
        if found is not None:
            return found
        inputs = {}
        if of_tutor is not None:
            label = f"tutor {of_tutor['model']['name']} of {model}"
            inputs["tutor"] = self.task("teacher", self._with_pictures(of_tutor, dataset), {}, label)
        return self.task("teacher", self._with_pictures(settings, dataset), inputs, f"teacher {model}")

    def _training_task(
        self, model: str, dataset: str, chosen: Mapping[str, Any], seed: int, *place: str
    ) -> dict[str, Any]:
        if not models.is_own(model):
            message = f"{model} is none of our own models"
            raise self.grid.error(
                (*self.here, "settings", *place[:1], "model"), message, models.ARCHITECTURES
            )
        return {
            "model": models.describe(model, self.sources, classes=self.classes(dataset)),
            "training": self.training(chosen, *place),
            "seed": seed,
        }

    def _with_pictures(self, settings: dict[str, Any], dataset: str) -> dict[str, Any]:
        return settings | {
            "train": self.split(dataset, "train"),
            "validation": self.split(dataset, "validation"),
        }

    def published(
        self,
        name: str,
        dataset: str,
        settings: Mapping[str, Any],
        tutor: Mapping[str, Any] | None,
        classes: Sequence[int] | None = None,
    ) -> Task | None:
        """The task that takes weights which come with the project; None where there are none by this recipe, or
        `--retrain` was given. classes: that the model has learnt, where not all."""
        recipe = models.published.recipe_of(settings, tutor, classes)
        found = None if self.sources.retrain else models.published.find(name, dataset, recipe)
        if found is None:
            return None
        self._warn(f"{name}: its weights come with the project (--retrain trains it anew)")
        described = {"model": {**settings["model"], "weights": found}}
        return self.task("teacher", described, {}, f"teacher {name}", expected=OF_READING)

    def _need_classes(self, model: str, dataset: str, remedy: str = "") -> None:
        has, needed = self.outline(model).classes, self.classes(dataset)
        if has != needed:
            message = f"{model} has {has} classes, {dataset} has {needed}{remedy}"
            raise self.grid.error((*self.here, "axes", "model"), message)

    def classes(self, dataset: str) -> int:
        """How many classes a data set has."""
        return self._open(dataset).classes

    def _need_shape(self, model: str, dataset: str) -> None:
        shape, adapted = getattr(self._open(dataset), "shape", None), self.outline(model)
        takes = (adapted.channels, adapted.grid.height, adapted.grid.width)
        if shape is not None and takes != shape:
            message = f"{model} takes pictures of {takes} (C, H, W), those of {dataset} are {shape}"
            raise self.grid.error((*self.here, "axes", "model"), message)

    def _need_pictures(self, dataset: str, count: int, *place: str) -> None:
        if dataset not in self._counts:
            self._counts[dataset] = self._open(dataset).count("train")
        held = self._counts[dataset]
        if count > held:
            message = f"{count} real images are asked for, and the train split of {dataset} holds {held}"
            raise self.grid.error((*self.here, "settings", *place), message, [f"1 to {held}"])

    def _open(self, dataset: str) -> datasets.Dataset:
        """The data set, opened once: its folders may hold a million pictures, and a grid has many cells."""
        if dataset not in self._datasets:
            try:
                self._datasets[dataset] = datasets.open_dataset(
                    dataset, self._dataset_settings(dataset), self.sources
                )
            except RefusedSetting as error:
                raise self.grid.error((*self.here, "settings", "datasets", dataset), str(error)) from None
        return self._datasets[dataset]

    def _dataset_settings(self, dataset: str) -> dict[str, Any]:
        return one_spelling(self.settings.datasets.get(dataset, {}))

    def training(self, settings: Mapping[str, Any], *place: str) -> dict[str, Any]:
        """All settings of a training; `place` is where in the scale's settings these stand."""
        try:
            return training.expand(settings)
        except BenchError as error:
            raise self.grid.error((*self.here, "settings", *place), str(error)) from None

    def images(
        self, model: str, dataset: str, method: str, seed: int, count: int | None = None
    ) -> Task | None:
        """The method's images for one seed; None, with a line on stderr, where real images are not here."""
        wanted, chosen = self.methods[method], self.settings.images
        settings: dict[str, Any] = {"source": wanted.source, "count": count or chosen.count}
        settings["seed"] = seeds.of_cell(self, model, seed)
        if wanted.source == "inversion":
            settings |= self._inversion(method, wanted)
            settings |= {"batch_size": chosen.batch_size or settings["count"], "precision": chosen.precision}
        elif wanted.source in ("noise", "real"):
            settings["random_patches"] = self._random_patches(model, method, wanted)
        if wanted.source == "real":
            try:
                settings["data"] = self.split(dataset, "train")
            except MissingData as error:
                self._warn(f"{method} is left out: {error}")
                return None
            self._need_pictures(dataset, settings["count"], *(() if count else ("images", "count")))
        if wanted.source == "files":
            settings["files"] = outside.fingerprint(self.grid, method, str(wanted.files), settings["count"])
        if ":" in wanted.source:
            settings["options"] = dict(wanted.options)
        label = f"images {model} {method} seed {seed}"
        return self.task("images", settings, {"teacher": self.teacher(model, dataset)}, label)

    def task(
        self,
        kind: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Task],
        label: str,
        expected: float | None = None,
    ) -> Task:
        code = outside.code_behind(kind, settings)
        settings = {**settings, "code": code} if code else settings
        return Task(kind, settings, inputs, KINDS[kind].version, label, expected)

    def _method(self, name: str) -> Method:
        method = self.grid.section(self.method_schema, "methods", name)
        here = ("methods", name)
        if (method.recipe is not None) != (method.source == "inversion"):
            need = "needs a recipe" if method.source == "inversion" else "takes no recipe"
            raise self.grid.error((*here, "source"), f"source {method.source!r} {need}", smi.RECIPES)
        if method.recipe is not None and method.recipe not in smi.RECIPES:
            raise self.grid.error((*here, "recipe"), f"unknown recipe {method.recipe!r}", smi.RECIPES)
        if method.stopping is not None and method.source != "inversion":
            raise self.grid.error((*here, "stopping"), "only an inversion stops patches")
        if method.random_patches is not None and method.source not in ("noise", "real"):
            raise self.grid.error((*here, "random_patches"), "only noise and real images take random patches")
        outside.check_method(self.grid, name, method)
        if method.score not in smi.SCORES:
            raise self.grid.error((*here, "score"), f"unknown score {method.score!r}", smi.SCORES)
        for key in ("stopping", "random_patches"):
            named = getattr(method, key)
            if named is not None and named not in self.settings.schedules:
                message = f"the scale {self.scale!r} has no schedule {named!r}"
                raise self.grid.error((*here, key), message, self.settings.schedules or ["none"])
        return method

    def _inversion(self, name: str, method: Method) -> dict[str, Any]:
        """The settings that make a method's inversions what they are; an experiment that varies them overrides this."""
        if name not in self._inversions:
            self._inversions[name] = self._expanded(name, method)
        return self._inversions[name]

    def _expanded(self, name: str, method: Method) -> dict[str, Any]:
        changes = self.settings.recipes.get(method.recipe, {})
        place = (*self.here, "settings", "recipes", method.recipe)
        try:
            if "name" in changes:
                raise InvalidSetting("a recipe of the scale has the name that it stands under; remove name")
            published = smi.recipe(method.recipe).to_json()
            recipe = smi.recipe(method.recipe, **one_spelling(changes, published))
        except SmiError as error:
            named = next((key for key in changes if f"{key} " in f"{error} "), None)
            raise self.grid.error(place if named is None else (*place, named), str(error)) from None
        if method.stopping is None:
            return {"recipe": recipe.to_json(), "stopping": None, "score": None}
        try:
            stopping = self.schedule(method.stopping).resolved(recipe.iterations)
            stopping.check(recipe.iterations)
        except SmiError as error:
            place = (*self.here, "settings", "schedules", method.stopping)
            raise self.grid.error(place, f"{error} (method {name})") from None
        return {
            "recipe": recipe.to_json(),
            "stopping": stopping.to_json(),
            "score": method.score,
        }

    def schedule(self, name: str) -> AnySchedule:
        """The stopping schedule of that name at this scale."""
        try:
            return self.settings.schedules[name].stopping()
        except SmiError as error:
            raise self.grid.error((*self.here, "settings", "schedules", name), str(error)) from None

    def _random_patches(self, model: str, name: str, method: Method) -> int | None:
        if method.random_patches is None:
            return None
        return self.schedule(method.random_patches).shown(self.outline(model).num_patches)

    def _warn(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            print(f"note: {line}", file=sys.stderr)
