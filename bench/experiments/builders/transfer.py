"""Tasks of a knowledge transfer: teacher -> sets of images, one or more a round -> student.

Every set is a task of its own, so a pool that grows for a thousand rounds is inverted in parallel, pools of one seed
share their first sets, and other grids share them too. Set i of seed s is the set of seed s + i * SET_STRIDE: set 0 is
the very one that Table 3 quantizes with, where both ask for as many images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

import smi
from bench import models
from bench.engine.task import Task
from bench.errors import BenchError
from bench.experiments.builders import seeds
from bench.experiments.builders.common import TaskBuilder
from bench.experiments.builders.schemas import Count, Method, Number, Seed, Settings
from bench.experiments.builders.seeds import SET_STRIDE
from bench.grid import Strict
from bench.models import fine_tuning
from smi.device import Precision
from smi.errors import SmiError

STUDENT = "student"  # an axis that a grid may have: names of settings' students, or FRESH, which is meant without it
FRESH = "fresh"


class Pool(Strict):
    """How the pool grows, and what is drawn from it.

    rounds; images that join in each, made by tasks of `set` images (default: one task; noise and real images always);
    steps of the optimiser in each, on batch_size images a step. more: method -> images that join in each round of that
    method's pool, where not as many as of the others.
    """

    rounds: Count
    images: Count
    more: dict[str, Count] = {}
    set: Count | None = None
    steps: Count
    batch_size: Count


class Learning(Strict):
    """How the student learns (smi.TransferRecipe). `train` "head" is the classifier alone, on a frozen backbone."""

    temperature: Number = 20.0
    train: Literal["all", "head"]
    optimizer: Literal["sgd", "adamw"]
    learning_rate: Number
    momentum: Number = 0.9
    betas: list[Number] = [0.9, 0.999]
    weight_decay: Number
    flip: Number = 0.5
    jitter: Number = 0.0
    precision: Precision = "fp32"


class Student(Strict):
    """A student that has learnt some classes before: from the training pictures of `classes`, as our teachers learn
    (settings.teacher with the changes in `training`), from `seed`."""

    classes: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    training: dict[str, Any] = {}
    seed: Seed


class TransferSettings(Settings):
    """The settings of one scale. Pools and students are named; the axes `pool` and `student` refer to them.

    fine_tuning: bench.models.fine_tuning.DEFAULTS, for teachers made from pretrained models; null where these know the
    data set's classes as they are."""

    fine_tuning: dict[str, Any] | None = {}
    pools: Annotated[dict[str, Pool], Field(min_length=1)]
    learning: Learning
    students: dict[str, Student] = {}
    evaluate_every: Count


class TransferMethod(Method):
    """`shown`: a schedule; each image is shown through as many patches as it leaves, random ones at each draw."""

    shown: str | None = None


@dataclass
class TransferTaskBuilder(TaskBuilder):
    """Adds fine-tuned teachers, pools and students to the tasks that experiments share."""

    settings_schema: ClassVar = TransferSettings
    method_schema: ClassVar = TransferMethod
    _students: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def transfer(
        self, model: str, dataset: str, method: str, pool: str, seed: int, student: str
    ) -> dict[str, Task]:
        """The transfer's task; none where the images cannot be had here."""
        chosen, wanted = self._pool(pool, method), self.methods[method]
        sets = self._sets(model, dataset, method, chosen, seed)
        if sets is None:
            return {}
        schedule = None if wanted.shown is None else self._shown(method, wanted.shown)
        patches = None if schedule is None else schedule.shown(self.outline(model).num_patches)
        settings = {
            "student": self._student(model, dataset),
            "seed": seeds.of_cell(self, model, seed),
            "transfer": self._learning(chosen, patches),
            "evaluate_every": self.settings.evaluate_every,
            "test": self.split(dataset, "test"),
        }
        inputs = {"teacher": self.teacher(model, dataset), **sets}
        label = f"transfer {model} {dataset} {method} {pool} seed {seed}"
        if student != FRESH:
            inputs["student"] = self.trained_student(model, dataset, student)
            label += f" {student}"
        return {"transfer": self.task("transfer", settings, inputs, label)}

    def trained_student(self, model: str, dataset: str, name: str) -> Task:
        """A student of the model's architecture that was trained on some classes: a task of kind "teacher"."""
        if name not in self.settings.students:
            place = (*self.here, "axes", STUDENT)
            raise self.grid.error(place, f"unknown student {name!r}", [FRESH, *self.settings.students])
        place = (*self.here, "settings", "students", name)
        wanted, count = self.settings.students[name], self.classes(dataset)
        if max(wanted.classes) >= count:
            message = f"class {max(wanted.classes)} is none of {dataset}'s"
            raise self.grid.error((*place, "classes"), message, [f"0 to {count - 1}"])
        if not models.is_own(model):
            raise self.grid.error(place, f"{model} is pretrained", list(models.ARCHITECTURES))
        chosen = {"classes": sorted(set(wanted.classes))}
        settings = {
            "model": models.describe(model, self.sources, classes=count),
            "training": self.training(
                {**self.settings.teacher, **wanted.training}, "students", name, "training"
            ),
            "seed": wanted.seed,
        }
        own, _ = models.split_seed(model)
        found = self.published(
            f"{own}{models.SEED_MARK}{wanted.seed}.{name}", dataset, settings, None, chosen["classes"]
        )
        if found is not None:
            return found
        settings |= {
            "train": self.split(dataset, "train") | chosen,
            "validation": self.split(dataset, "validation") | chosen,
        }
        return self.task("teacher", settings, {}, f"student {models.split_seed(model)[0]} {name}")

    def _student(self, model: str, dataset: str) -> dict[str, Any]:
        """The teacher's model before it saw the data set: fresh weights, or pretrained ones with a fresh head."""
        if (model, dataset) not in self._students:
            # Reads the weights through: once is enough.
            described = models.describe(model, self.sources, classes=self.classes(dataset))
            if "architecture" not in described:
                described |= {"classes": self.classes(dataset)}
            self._students[model, dataset] = described
        return self._students[model, dataset]

    def _fine_tuning(self, chosen: dict[str, Any]) -> dict[str, Any]:
        try:
            return fine_tuning.expand(chosen)
        except BenchError as error:
            raise self.grid.error((*self.here, "settings", "fine_tuning"), str(error)) from None

    def _sets(self, model: str, dataset: str, method: str, pool: Pool, seed: int) -> dict[str, Task] | None:
        count = (pool.set if self.methods[method].source == "inversion" else None) or pool.images
        sets = {}
        for index in range(pool.rounds * (pool.images // count)):
            one = self.images(model, dataset, method, seed + index * SET_STRIDE, count)
            if one is None:
                return None
            sets[f"images_{index:06d}"] = one
        return sets

    def _pool(self, name: str, method: str) -> Pool:
        """The method's pool of that name."""
        if name not in self.settings.pools:
            place = (*self.here, "axes", "pool")
            raise self.grid.error(place, f"unknown pool {name!r}", self.settings.pools)
        pool, place = self.settings.pools[name], (*self.here, "settings", "pools", name)
        for one in pool.more:
            if one not in self.grid.methods:
                raise self.grid.error((*place, "more", one), f"unknown method {one!r}", self.grid.methods)
        images = pool.more.get(method, pool.images)
        if images % (pool.set or 1):
            message = f"{images} images a round are no multiple of a set of {pool.set}"
            raise self.grid.error((*place, "set"), message)
        return pool.model_copy(update={"images": images})

    def _learning(self, pool: Pool, patches: int | None) -> dict[str, Any]:
        """The smi.TransferRecipe as JSON, checked."""
        chosen = self.settings.learning.model_dump() | {
            "steps": pool.rounds * pool.steps,
            "rounds": pool.rounds,
            "batch_size": pool.batch_size,
            "patches": patches,
        }
        try:
            smi.TransferRecipe.from_json(chosen)
        except SmiError as error:
            raise self.grid.error((*self.here, "settings", "learning"), str(error)) from None
        return chosen

    def _shown(self, method: str, schedule: str) -> Any:
        if schedule not in self.settings.schedules:
            message = f"the scale {self.scale!r} has no schedule {schedule!r}"
            raise self.grid.error(("methods", method, "shown"), message, self.settings.schedules or ["none"])
        return self.schedule(schedule)

    def pretrained(self, model: str, dataset: str) -> Task:
        """A timm model with timm's weights and a new head, fine-tuned here; as it is with `fine_tuning: null`."""
        chosen = self.settings.fine_tuning
        if chosen is None:
            return super().pretrained(model, dataset)
        settings = {
            "model": self._student(model, dataset),
            "fine_tuning": self._fine_tuning(chosen),
            "seed": self.settings.teacher_seed,
            "train": self.split(dataset, "train"),
            "validation": self.split(dataset, "validation"),
        }
        return self.task("teacher", settings, {}, f"teacher {model} {dataset}")


def cell_tasks(
    builder: TransferTaskBuilder,
    model: str,
    dataset: str,
    method: str,
    pool: str,
    seed: int,
    student: str = FRESH,
) -> dict[str, Task]:
    if builder.methods[method].source != "none":
        return builder.transfer(model, dataset, method, pool, seed, student)
    inputs = {"teacher": builder.teacher(model, dataset)}
    label = f"evaluate {model} {dataset} teacher"
    return {"evaluate": builder.task("evaluate", {"test": builder.split(dataset, "test")}, inputs, label)}


def check_seeds(builder: TransferTaskBuilder) -> None:
    """GridError at the first seed so great that it is also that of a later set of another one."""
    for place, seed in builder.values_of("seed"):
        if seed >= SET_STRIDE:
            raise builder.grid.error(
                place, f"{seed} is too great here", [f"whole numbers below {SET_STRIDE}"]
            )
