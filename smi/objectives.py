"""Loss terms of model inversion and their weighted sum.

A term is a function `(step, **parameters) -> scalar`; `_term` makes it available by name to every recipe and
grid. Sources: DeepInversion (Yin et al., CVPR 2020), PSAQ-ViT (Li et al., ECCV 2022), SMI section 3.

Shapes: B images, C channels, H x W pixels, K classes, P patches, d head width.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F

from smi.checks import is_number
from smi.errors import InvalidSetting
from smi.patch_similarity import similarity_entropy
from smi.total_variation import at_least_float32
from smi.total_variation import tv_l1 as total_variation_l1
from smi.total_variation import tv_l2 as total_variation_l2

PSAQ_ELEMENTS = 32 * 3 * 224 * 224  # the batch for which PSAQ-ViT states its TV target
Where = Literal["image", "view"]


@dataclass(frozen=True)
class Step:
    """What one iteration offers to the terms.

    image: for the terms that read the pixels alone [B, C, H, W], normalised, as stored (before jitter); for those that
        read the model's output its input: the view, or after a stop its kept patches [B, K, C x ph x pw].
    view: [B, C, H, W], the image after jitter and flip; None where no term reads it.
    logits: [B, K]; targets: int64 [B]; both None for the terms that read the pixels alone.
    chance: drawn once per run from [0, 1).

    Filled only where the objective's `needs` names them:
    attention_outputs: per block [B, P, d], see `smi.patch_similarity.mean_over_heads`.
    batchnorm: per BatchNorm layer (batch mean, biased batch variance, running mean, running variance).
    student_logits: [B, K] of the student on the same view.
    """

    image: torch.Tensor
    view: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    attention_outputs: Sequence[torch.Tensor] = ()
    batchnorm: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]] = ()
    student_logits: torch.Tensor | None = None
    chance: float = 0.0


TermFunction = Callable[..., torch.Tensor]
TERMS: dict[str, TermFunction] = {}
NEEDS: dict[str, frozenset[str]] = {}
PIXEL_TERMS: set[str] = set()  # read image and view alone, so that the model need not have run
BATCH_MEANS: set[str] = {"cross_entropy"}  # a mean of what each image alone gives


def _term(*needs: str, pixels: bool = False) -> Callable[[TermFunction], TermFunction]:
    """Register a term under its function's name.

    needs: the extra fields of Step that it reads; pixels: it reads the image or the view and nothing else.
    """

    def register(function: TermFunction) -> TermFunction:
        name = function.__name__
        TERMS[name] = function
        NEEDS[name] = frozenset(needs)
        if pixels:
            PIXEL_TERMS.add(name)
        return function

    return register


@_term()
def cross_entropy(step: Step) -> torch.Tensor:
    """Mean cross-entropy of the model's logits against the targets."""
    assert step.logits is not None and step.targets is not None
    return F.cross_entropy(at_least_float32(step.logits), step.targets)


@_term(pixels=True)
def tv_l2(step: Step, *, on: Where = "image") -> torch.Tensor:
    """Total variation, sum of four Frobenius norms over the batch (DeepInversion)."""
    return total_variation_l2(getattr(step, on))


@_term(pixels=True)
def tv_l1(step: Step, *, on: Where = "image") -> torch.Tensor:
    """Total variation, sum of four mean absolute differences (DeepInversion)."""
    return total_variation_l1(getattr(step, on))


@_term(pixels=True)
def l2(step: Step, *, over: Literal["image", "batch"] = "image") -> torch.Tensor:
    """Euclidean norm: the mean over images (DeepInversion), or one norm over the batch (SMI's code)."""
    image = at_least_float32(step.image)
    return torch.linalg.vector_norm(image.flatten(1), dim=1).mean() if over == "image" else image.norm()


@_term(pixels=True)
def tv_l2_target(
    step: Step, *, low: float = 2500.0, high: float = 3000.0, on: Where = "view"
) -> torch.Tensor:
    """Distance of TV_l2 from a target c = low + chance * (high - low) (PSAQ-ViT).

    low, high hold for a batch of 32 x 3 x 224 x 224; TV_l2 is a norm, so for other sizes c is scaled by the square
    root of the ratio of the numbers of elements.
    """
    image = getattr(step, on)
    target = (low + step.chance * (high - low)) * math.sqrt(image.numel() / PSAQ_ELEMENTS)
    return (total_variation_l2(image) - target).abs()


@_term("attention_outputs")
def patch_similarity_entropy(step: Step) -> torch.Tensor:
    """Minus the sum over blocks of the entropy of patch similarities (PSAQ-ViT)."""
    if not step.attention_outputs:
        raise InvalidSetting("term patch_similarity_entropy: the model has no attention; it needs a ViT")
    return -torch.stack([similarity_entropy(outputs) for outputs in step.attention_outputs]).sum()


@_term("batchnorm")
def batchnorm_feature(step: Step, *, first: float = 10.0) -> torch.Tensor:
    """Distance of the batch's statistics from the running ones, summed over BatchNorm layers (DeepInversion).

    first: weight of the first layer; the others weigh 1.
    """
    if not step.batchnorm:
        raise InvalidSetting("term batchnorm_feature: the model has no BatchNorm; it needs a CNN")
    distances = [
        torch.linalg.vector_norm(running_var - var) + torch.linalg.vector_norm(running_mean - mean)
        for mean, var, running_mean, running_var in step.batchnorm
    ]
    return first * distances[0] + sum(distances[1:])


@_term("student_logits")
def adaptive(step: Step, *, temperature: float = 3.0) -> torch.Tensor:
    """Adaptive DeepInversion: 1 - Jensen-Shannon divergence of student and teacher, clipped to [0, 1]."""
    if step.student_logits is None:
        raise InvalidSetting("term adaptive: no student was given; it needs one with the model's classes")
    assert step.logits is not None
    if step.student_logits.shape != step.logits.shape:
        shapes = f"{list(step.student_logits.shape)}, the model's {list(step.logits.shape)}"
        raise InvalidSetting(f"term adaptive: the student's logits are {shapes}; they must be equal")
    return 1.0 - jensen_shannon(step.student_logits, step.logits, temperature).clamp(0.0, 1.0)


def jensen_shannon(logits_a: torch.Tensor, logits_b: torch.Tensor, temperature: float = 3.0) -> torch.Tensor:
    """.5 KL(M||P) + .5 KL(M||Q), M = (P + Q) / 2, all three clamped to [.01, .99], batch mean; logits [B, K].

    This direction of KL is the published DeepInversion code's, the reverse of the textbook's.
    """
    one = F.softmax(logits_a.float() / temperature, dim=1)
    other = F.softmax(logits_b.float() / temperature, dim=1)
    middle = (0.5 * (one + other)).clamp(0.01, 0.99)
    one, other = one.clamp(0.01, 0.99), other.clamp(0.01, 0.99)
    apart = [F.kl_div(side.log(), middle, reduction="batchmean") for side in (one, other)]
    return 0.5 * (apart[0] + apart[1])


def kd_loss(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 20.0
) -> torch.Tensor:
    """Distillation: KL(teacher || student) at a temperature T, times T^2, batch mean; logits [B, K]."""
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def _check_parameter(term: str, name: str, hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise InvalidSetting(
                f"term {term}: {name} is {value!r}; allowed: {', '.join(typing.get_args(hint))}"
            )
        return value
    number = _number(f"term {term}: {name}", value)
    if name == "temperature" and number <= 0:
        raise InvalidSetting(f"term {term}: temperature is {value!r}; allowed: a number above 0")
    return number


def _number(what: str, value: Any) -> float:
    if not is_number(value):
        raise InvalidSetting(f"{what} is {value!r}; allowed: a finite number")
    return float(value)


@dataclass(frozen=True)
class Term:
    """One summand: a name of `TERMS`, its weight, and parameters as sorted (name, value) pairs."""

    name: str
    weight: float
    params: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.name not in TERMS:
            raise InvalidSetting(f"unknown loss term {self.name!r}; allowed: {', '.join(sorted(TERMS))}")
        function = TERMS[self.name]
        hints = typing.get_type_hints(function)
        allowed = [name for name in inspect.signature(function).parameters if name != "step"]
        checked = {}
        for name, value in dict(self.params).items():
            if name not in allowed:
                expected = ", ".join(allowed) or "none"
                raise InvalidSetting(f"term {self.name}: unknown parameter {name!r}; allowed: {expected}")
            checked[name] = _check_parameter(self.name, name, hints.get(name), value)
        object.__setattr__(self, "weight", _number(f"term {self.name}: weight", self.weight))
        object.__setattr__(self, "params", tuple(sorted(checked.items())))

    @property
    def on(self) -> Where | None:
        """Which pixels the term reads, given or by default; None for a term without that choice."""
        parameter = inspect.signature(TERMS[self.name]).parameters.get("on")
        return dict(self.params).get("on", parameter.default) if parameter else None

    def __call__(self, step: Step) -> torch.Tensor:
        return TERMS[self.name](step, **dict(self.params))


@dataclass(frozen=True)
class Objective:
    """A weighted sum of loss terms. `Objective.of([("cross_entropy", 1.0), ("tv_l2", 1e-4, {"on": "image"})])`."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise InvalidSetting(
                f"an objective needs at least one loss term; allowed: {', '.join(sorted(TERMS))}"
            )

    @classmethod
    def of(cls, terms: Objective | Mapping[str, float] | Sequence[Any]) -> Objective:
        """From (name, weight) or (name, weight, params) entries, lists as JSON has them included, or {name: weight}."""
        if isinstance(terms, Objective):
            return terms
        if isinstance(terms, str) or not isinstance(terms, (Mapping, Sequence)):
            raise InvalidSetting(f"objective is {terms!r}; allowed: a list of [name, weight, {{parameters}}]")
        made = []
        for entry in terms.items() if isinstance(terms, Mapping) else terms:
            if isinstance(entry, Term):
                made.append(entry)
            elif (
                isinstance(entry, (tuple, list))
                and len(entry) in (2, 3)
                and isinstance(entry[0], str)
                and isinstance(entry[-1] if len(entry) == 3 else {}, Mapping)
            ):
                name, weight, params = (*entry, {})[:3]
                made.append(Term(name, weight, tuple(params.items())))
            else:
                raise InvalidSetting(f"objective entry {entry!r}; allowed: [name, weight, {{parameters}}]")
        return cls(tuple(made))

    @cached_property
    def of_pixels(self) -> Objective | None:
        """The terms that read the pixels alone; with `of_model` they are the whole objective."""
        terms = tuple(term for term in self.terms if term.name in PIXEL_TERMS)
        return Objective(terms) if terms else None

    @cached_property
    def of_model(self) -> Objective | None:
        """The terms that read the model's output."""
        terms = tuple(term for term in self.terms if term.name not in PIXEL_TERMS)
        return Objective(terms) if terms else None

    @cached_property
    def reads_view(self) -> bool:
        """Does a term of the pixels read the jittered image rather than the one stored?"""
        return any(term.on == "view" for term in self.terms)

    @property
    def needs(self) -> frozenset[str]:
        """Extra fields of Step to fill: of "attention_outputs", "batchnorm", "student_logits"."""
        return frozenset().union(*(NEEDS[term.name] for term in self.terms))

    def to_json(self) -> list[list[Any]]:
        """The form that `of` reads back."""
        return [[term.name, term.weight, dict(term.params)] for term in self.terms]

    def __call__(self, step: Step) -> torch.Tensor:
        """The weighted sum of the terms."""
        values = [term.weight * term(step) for term in self.terms]
        return sum(values[1:], start=values[0])
