"""What experiments share of a grid's form: methods, schedules, and the settings of a scale that make its images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

import smi
from bench.grid import Strict
from bench.models import training
from bench.tasks.engines import AUTO, Engine
from smi.device import Precision
from smi.errors import InvalidSetting
from smi.rebirth import Schedule as AnySchedule

Count = Annotated[int, Field(ge=1)]
Number = float
Seed = Annotated[int, Field(ge=0, lt=2**31)]
OwnSource = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*:[A-Za-z_]\w*$")]  # module:function


class Schedule(Strict):
    """When which fraction of the patches stops (smi.Stopping: at, drop, reenter_every), or in how many parts they leave
    (smi.Rebirth: rebirth, and at where not at equal distances)."""

    at: Annotated[list[int], Field(min_length=1)] | None = None
    drop: Number | list[Number] | None = None
    rebirth: Count | None = None
    reenter_every: Count | None = None

    def stopping(self) -> AnySchedule:
        at = None if self.at is None else tuple(self.at)
        if self.rebirth is not None and self.drop is None and self.reenter_every is None:
            return smi.Rebirth(self.rebirth, at)
        if self.rebirth is not None or at is None or self.drop is None:
            raise InvalidSetting(
                "a schedule is at and drop, with or without reenter_every, or rebirth with or without at"
            )
        drop = tuple(self.drop) if isinstance(self.drop, list) else self.drop
        return smi.Stopping(at, drop, reenter_every=self.reenter_every)


class Images(Strict):
    """How many images, how many of them are inverted together (default: all), in which precision, run how."""

    count: Count = 32
    batch_size: Count | None = None
    precision: Precision = "fp32"
    engine: Engine = AUTO


class Method(Strict):
    """Where a method's images come from. `stopping` and `random_patches` name a schedule of the scale: the one to
    stop by, and the one that says how many patches, chosen at random, are fed forward."""

    title: str
    source: Literal["none", "inversion", "real", "noise", "files"] | OwnSource
    recipe: str | None = None
    stopping: str | None = None
    score: str = "cls_attention"
    random_patches: str | None = None
    files: str | None = None  # of source "files": pictures in a folder, or saved images (bench.tasks.given)
    options: dict[str, Any] = {}  # of source "module:function": further arguments of the function


class Tutor(Strict):
    """A model that is trained first, from the same pictures and the seed of the model that then learns its logits, at a
    temperature, in a share `mix` of the batches on blended pictures (bench.models.training)."""

    model: str
    temperature: Number = training.DEFAULTS["temperature"]
    mix: Number = training.DEFAULTS["mix"]
    training: dict[str, Any] = {}


class Settings(Strict):
    """The settings of one scale that make its images. Recipes and schedules are named; methods refer to them."""

    teacher: dict[str, Any] = {}  # bench.models.training.DEFAULTS, for models that are trained here
    tutor: Tutor | None = None  # of models that are trained here; without one they learn the labels
    seeds: Literal["shared", "per_teacher"] = "shared"  # of images (and students): builders/seeds.py
    teacher_seed: Seed = 0  # of a model whose name does not say it (bench.models.split_seed)
    datasets: dict[str, dict[str, Any]] = {}  # e.g. imagenet: {crop_pct: 0.875}
    images: Images = Images()
    recipes: dict[str, dict[str, Any]] = {}  # recipe -> what this scale changes in it
    schedules: dict[str, Schedule] = {}
