"""Named ways to train a student on synthetic images (paper section 4, Table 4). Add one to TRANSFER_RECIPES."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from smi.checks import is_number, is_whole, plain
from smi.device import PRECISIONS, Precision
from smi.errors import InvalidSetting

LEARNING_RATES = {"sgd": 0.1, "adamw": 1e-3}
WEIGHT_DECAYS = {"sgd": 1e-4, "adamw": 0.05}


@dataclass(frozen=True)
class TransferRecipe:
    """How a student learns a teacher's logits: everything but the models, the images and the seed.

    steps: of the optimiser, in all. rounds: equal parts of them; the sets of images are dealt to these evenly, and in a
        round all sets of the rounds so far are there.
    temperature: of both softmaxes; the loss is KL(teacher || student) times its square, a mean over the batch.
    batch_size: images per step, all different; fewer where the pool is smaller.
    train: "all" weights that the student has not frozen (requires_grad=False), or "head": the classifier on a frozen
        backbone in evaluation mode.
    optimizer: "adamw" (learning rate .001, weight decay .05, betas) or "sgd" (.1, 1e-4, momentum); these defaults stand
        in for a learning_rate or weight_decay of None.
    flip: probability of mirroring an image, and its kept set, left-right. jitter: largest roll of an image in rows
        and columns, as a fraction of its sides; kept sets move to the nearest cells (as in the inversion).
    patches: show each image through so many random ones of its patches, drawn anew each time, whatever its kept set.
    precision: as of smi.Execution; "bf16" runs both models under autocast, the rest stays float32.

    Raises InvalidSetting that names the field and what is allowed.
    """

    steps: int = 500
    temperature: float = 20.0
    batch_size: int = 32
    rounds: int = 1
    train: Literal["all", "head"] = "all"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = None
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float | None = None
    flip: float = 0.5
    jitter: float = 0.0
    patches: int | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        def number(name: str, low: float, high: float = float("inf"), open_end: bool = False) -> bool:
            value = getattr(self, name)
            return is_number(value) and low <= value <= high and not (open_end and value in (low, high))

        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))  # the dataclass is frozen
        self._require("optimizer", self.optimizer in tuple(LEARNING_RATES), ", ".join(LEARNING_RATES))
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.optimizer])
        if self.weight_decay is None:
            object.__setattr__(self, "weight_decay", WEIGHT_DECAYS[self.optimizer])
        for name in ("steps", "batch_size", "rounds"):
            value = getattr(self, name)
            self._require(name, is_whole(value) and value >= 1, "a whole number >= 1")
        self._require("steps", self.steps % self.rounds == 0, f"a multiple of rounds ({self.rounds})")
        for name in ("temperature", "learning_rate"):
            self._require(name, number(name, 0, open_end=True), "a number above 0")
        self._require("weight_decay", number("weight_decay", 0), "a number >= 0")
        self._require("momentum", number("momentum", 0) and self.momentum < 1, "0 to below 1")
        pair = isinstance(self.betas, tuple) and len(self.betas) == 2
        two = pair and all(is_number(b) and 0 <= b < 1 for b in self.betas)
        self._require("betas", two, "two numbers from 0 to below 1")
        self._require("flip", number("flip", 0, 1), "a probability from 0 to 1")
        self._require("jitter", number("jitter", 0, 1), "a fraction from 0 to 1")
        self._require("train", self.train in ("all", "head"), "all, head")
        self._require("precision", self.precision in PRECISIONS, ", ".join(PRECISIONS))

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise InvalidSetting(f"transfer: {name} is {getattr(self, name)!r}; allowed: {allowed}")

    def to_json(self) -> dict[str, Any]:
        """JSON values from which `from_json` makes an equal recipe."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"betas": list(self.betas)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TransferRecipe:
        """The recipe that `to_json` described, defaults for what is missing; InvalidSetting for unknown fields."""
        _refuse_unknown(values)
        return cls(**values)


TRANSFER_RECIPES: dict[str, TransferRecipe] = {
    "default": TransferRecipe(),
    # A linear head on a frozen backbone; 100 new images in each of 1000 rounds, one step a round.
    "paper": TransferRecipe(steps=1000, rounds=1000, train="head", optimizer="sgd"),
}


def transfer_recipe(name: str | TransferRecipe, **overrides: Any) -> TransferRecipe:
    """The named recipe with some fields replaced, e.g. `transfer_recipe("default", learning_rate=3e-3)`.

    Another optimizer brings its own learning rate and weight decay, unless these are given too.
    Raises InvalidSetting for an unknown name, field or value.
    """
    if not isinstance(name, TransferRecipe):
        if not isinstance(name, str) or name not in TRANSFER_RECIPES:
            allowed = ", ".join(sorted(TRANSFER_RECIPES))
            raise InvalidSetting(f"unknown transfer recipe {name!r}; allowed: {allowed}")
        name = TRANSFER_RECIPES[name]
    _refuse_unknown(overrides)
    if overrides.get("optimizer", name.optimizer) != name.optimizer:
        overrides = {"learning_rate": None, "weight_decay": None, **overrides}
    return replace(name, **overrides)


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(TransferRecipe)}
    if unknown := sorted(set(values) - known):
        raise InvalidSetting(
            f"transfer recipe: unknown setting {unknown[0]!r}; allowed: {', '.join(sorted(known))}"
        )
