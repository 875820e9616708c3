"""Named dense inversions: objective, optimiser and augmentation (DeepInversion, PSAQ-ViT).

A recipe says nothing about sparsity: sparse inversion is any recipe plus a `Stopping` schedule. Add a recipe by
adding an entry to RECIPES.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import nn

from smi.checks import is_number, is_whole, plain
from smi.errors import InvalidSetting
from smi.geometry import Jitter
from smi.objectives import Objective

NUMBERS = ("iterations", "rounds", "learning_rate", "betas", "warmup", "jitter", "joint_jitter", "flip")


@dataclass(frozen=True)
class Recipe:
    """One dense inversion.

    objective: weighted loss terms (smi.objectives).
    iterations: optimisation steps in all; rounds: equal parts of them, each with its own warm-up and jitter.
    learning_rate, betas: of Adam on the pixels, in normalised space; Adam's state goes on over rounds.
    schedule: "constant", or "cosine" to zero in every round after `warmup` linear steps.
    jitter: one value for all rounds or one for each: the largest roll, as a fraction of the image's side.
    joint_jitter: rows and columns roll by the same draw.
    flip: probability of mirroring left-right.
    student: the model that the objective's adaptive term disagrees with; frozen, fed whole images, not changed. It is
        no part of the JSON form.
    """

    name: str
    objective: Objective
    iterations: int
    rounds: int = 1
    learning_rate: float = 0.25
    betas: tuple[float, float] = (0.5, 0.99)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    jitter: tuple[float, ...] = (1 / 8,)
    joint_jitter: bool = False
    flip: float = 0.5
    student: nn.Module | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in NUMBERS:
            object.__setattr__(self, name, plain(getattr(self, name)))  # the dataclass is frozen
        object.__setattr__(self, "objective", Objective.of(self.objective))
        for name in ("iterations", "rounds"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                self._refuse(name, "a whole number >= 1")
        if self.iterations % self.rounds:
            self._refuse("iterations", f"a multiple of rounds ({self.rounds})")
        jitter = self.jitter if isinstance(self.jitter, tuple) else (self.jitter,)
        object.__setattr__(self, "jitter", jitter * (self.rounds if len(jitter) == 1 else 1))
        if not isinstance(self.joint_jitter, bool):
            self._refuse("joint_jitter", "True, False")
        if self.student is not None and not isinstance(self.student, nn.Module):
            self._refuse("student", "a model, or None")
        if not is_whole(self.warmup) or not 0 <= self.warmup <= self.iterations // self.rounds:
            self._refuse("warmup", f"a whole number from 0 to one round ({self.iterations // self.rounds})")
        if not is_number(self.learning_rate) or self.learning_rate <= 0:
            self._refuse("learning_rate", "a number above 0")
        two = isinstance(self.betas, tuple) and len(self.betas) == 2
        if not two or not all(is_number(b) and 0 <= b < 1 for b in self.betas):
            self._refuse("betas", "two numbers from 0 to below 1")
        if self.schedule not in ("constant", "cosine"):
            self._refuse("schedule", "constant, cosine")
        if len(self.jitter) != self.rounds or not all(is_number(j) and 0 <= j <= 1 for j in self.jitter):
            self._refuse("jitter", "one fraction from 0 to 1, or one for each round")
        if not is_number(self.flip) or not 0 <= self.flip <= 1:
            self._refuse("flip", "a probability from 0 to 1")

    def _refuse(self, name: str, allowed: str) -> None:
        raise InvalidSetting(f"recipe {self.name}: {name} is {getattr(self, name)!r}; allowed: {allowed}")

    def learning_rate_at(self, iteration: int) -> float:
        """Adam's step size in an iteration (the first is 0)."""
        if self.schedule == "constant":
            return self.learning_rate
        length = self.iterations // self.rounds
        within = iteration % length
        if within < self.warmup:
            return self.learning_rate * (within + 1) / self.warmup
        return (
            0.5
            * (1 + math.cos(math.pi * (within - self.warmup) / (length - self.warmup)))
            * self.learning_rate
        )

    def draw_jitter(self, iteration: int, height: int, width: int, generator: torch.Generator) -> Jitter:
        """One draw of the augmentation for a whole batch of H x W images."""
        fraction = self.jitter[iteration // (self.iterations // self.rounds)]
        # three numbers are drawn whatever the settings, so that runs which differ in one setting stay comparable
        first, second, coin = torch.rand(3, generator=generator, dtype=torch.float64, device="cpu").tolist()
        rows = _offset(first, int(height * fraction + 1e-9))
        columns = rows if self.joint_jitter else _offset(second, int(width * fraction + 1e-9))
        return Jitter(rows, columns, coin < self.flip)

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal recipe."""
        values = {name: getattr(self, name) for name in _in_json()}
        return values | {
            "objective": self.objective.to_json(),
            "betas": list(self.betas),
            "jitter": list(self.jitter),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_json` described; InvalidSetting for unknown or missing fields."""
        known = _in_json()
        if unknown := sorted(set(values) - set(known)):
            raise InvalidSetting(
                f"recipe: unknown setting {unknown[0]!r}; allowed: {', '.join(sorted(known))}"
            )
        try:
            return cls(**values)
        except TypeError as cause:
            raise InvalidSetting(f"recipe: {cause}") from cause


def _in_json() -> list[str]:
    """Names of a recipe's fields in its JSON form."""
    return [field.name for field in fields(Recipe) if field.name != "student"]


def _offset(uniform: float, limit: int) -> int:
    """A whole number from -limit to limit, both included, from a uniform draw in [0, 1)."""
    return int(uniform * (2 * limit + 1)) - limit


# DeepInversion as published for ResNets: BatchNorm statistics lead; for models with BatchNorm only.
_DEEPINVERSION_BN = Recipe(
    name="deepinversion_bn",
    objective=Objective.of(
        [
            ("cross_entropy", 1.0),
            ("tv_l2", 1e-4, {"on": "view"}),
            ("l2", 1e-5),
            ("batchnorm_feature", 0.01),
        ]
    ),
    iterations=2000,
    learning_rate=0.25,
    betas=(0.5, 0.9),
    schedule="cosine",
    warmup=100,
    jitter=(30 / 224,),
)

RECIPES: dict[str, Recipe] = {
    # As SMI's authors run DeepInversion on ViTs; a ViT has no BatchNorm, so the feature term is off.
    "deepinversion": Recipe(
        name="deepinversion",
        objective=Objective.of([("cross_entropy", 1.0), ("tv_l2", 1e-4)]),
        iterations=4000,
        learning_rate=0.25,
        betas=(0.5, 0.99),
    ),
    "deepinversion_bn": _DEEPINVERSION_BN,
    # The same with a student to disagree with.
    "adaptive_deepinversion_bn": replace(
        _DEEPINVERSION_BN,
        name="adaptive_deepinversion_bn",
        objective=Objective.of([*_DEEPINVERSION_BN.objective.terms, ("adaptive", 0.2)]),
    ),
    # Two rounds of 500; jitter of 15, then 30 pixels at 224.
    "psaq": Recipe(
        name="psaq",
        objective=Objective.of(
            [
                ("patch_similarity_entropy", 1.0),
                ("cross_entropy", 1.0),
                ("tv_l2_target", 0.05, {"on": "view"}),
            ]
        ),
        iterations=1000,
        rounds=2,
        learning_rate=0.20,
        betas=(0.5, 0.9),
        schedule="cosine",
        warmup=100,
        jitter=(15 / 224, 30 / 224),
        joint_jitter=True,
    ),
}


def recipe(name: str | Recipe, **overrides: Any) -> Recipe:
    """The named recipe with some fields replaced, e.g. `recipe("deepinversion", iterations=200)`.

    Raises InvalidSetting for an unknown name, field or value.
    """
    if not isinstance(name, Recipe):
        if name not in RECIPES:
            raise InvalidSetting(f"unknown recipe {name!r}; allowed: {', '.join(sorted(RECIPES))}")
        name = RECIPES[name]
    allowed = {field.name for field in fields(Recipe)} - {"name"}
    if unknown := sorted(set(overrides) - allowed):
        raise InvalidSetting(
            f"recipe {name.name}: unknown setting {unknown[0]!r}; allowed: {', '.join(sorted(allowed))}"
        )
    if "rounds" in overrides and "jitter" not in overrides and len(set(name.jitter)) == 1:
        overrides["jitter"] = name.jitter[:1]
    return replace(name, **overrides)
