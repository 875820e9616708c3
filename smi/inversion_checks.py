"""What an inversion refuses before it starts, each in one line: what is wrong, and what is allowed."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from smi import published
from smi.adapters import Adapted
from smi.checks import is_whole
from smi.errors import InvalidSetting, UnsupportedModel
from smi.execution import Execution
from smi.objectives import BATCH_MEANS, PIXEL_TERMS
from smi.rebirth import Rebirth, Schedule
from smi.scores import OF_CLASS_TOKEN
from smi.state import InversionConfig
from smi.stopping import find_score


def check_head(model: nn.Module) -> None:
    if isinstance(getattr(model, "head", None), nn.Identity):
        raise UnsupportedModel(
            f"{type(model).__name__} has no linear classifier head (num_classes=0), and inversion aims at classes: "
            "train one (model.reset_classifier(n)), or quantize it with pictures of your own as smi.SyntheticImages"
        )


def check_sizes(count: Any, batch_size: Any) -> None:
    for name, value in {"count": count, "batch_size": count if batch_size is None else batch_size}.items():
        if not is_whole(value) or value < 1:
            raise InvalidSetting(f"{name} is {value!r}; allowed: a whole number >= 1")


def check_config(config: InversionConfig, adapted: Adapted, execution: Execution) -> None:
    recipe, stopping = config.recipe, config.stopping
    coupled = [term.name for term in recipe.objective.terms if term.name not in PIXEL_TERMS | BATCH_MEANS]
    if execution.micro_batch is not None and coupled:
        raise InvalidSetting(
            f"micro_batch cannot split the term {coupled[0]}, which couples the images of a batch; allowed: None"
        )
    if any(not is_whole(t) or not 0 <= t <= recipe.iterations for t in config.snapshots):
        raise InvalidSetting(
            f"snapshots are {list(config.snapshots)}; allowed: iterations 0 to {recipe.iterations}"
        )
    if stopping is not None:
        adapted.need_kept_patches()
        if isinstance(stopping, Rebirth):
            _check_rebirth(config)
        elif config.reenters:
            _refuse_deviations("a Stopping with reenter_every", config)
        if find_score(stopping.score) in OF_CLASS_TOKEN:
            adapted.need_class_token()
            if not adapted.reads_class_token:
                warnings.warn(
                    f"{type(adapted.model).__name__} pools by {adapted.model.global_pool!r}: its head never reads the "
                    "class token, whose attention ranks the patches; score='random' is the control",
                    stacklevel=4,
                )
        stopping.check(recipe.iterations)
        stopping.kept_counts(adapted.num_patches)
    asked = "student_logits" in recipe.objective.needs
    if asked and recipe.student is None:
        raise InvalidSetting(f"recipe {recipe.name} has the adaptive term: give a student")
    if recipe.student is not None and not asked:
        raise InvalidSetting(
            f"a student was given, but recipe {recipe.name} has no term that asks for one (adaptive)"
        )


def _check_rebirth(config: InversionConfig) -> None:
    if config.recipe.student is not None:
        raise InvalidSetting(
            f"recipe {config.recipe.name} has a student, which looks at whole images, and a Rebirth finishes parts of "
            "them; allowed: smi.Stopping, or no stopping"
        )
    _refuse_deviations("a Rebirth", config)


def _refuse_deviations(what: str, config: InversionConfig) -> None:
    if deviations := published.deviations_of(config.recipe):
        raise InvalidSetting(
            f"{what} follows no published code of SMI's; deviations are {', '.join(deviations)}, allowed: none"
        )


def check_name(stopping: Schedule | None) -> None:
    """A checkpoint knows a score of one's own by its name, so that it resumes with that one alone."""
    score = None if stopping is None else stopping.score
    if callable(score) and "<lambda>" in getattr(score, "__qualname__", "<lambda>"):
        raise InvalidSetting(
            "checkpoint: the score has no name by which a later run could know it again; "
            "allowed: a name of SCORES, or a function made with def"
        )


def check_targets(targets: Any, count: int, classes: int) -> Tensor | None:
    if targets is None:
        return None
    targets = torch.as_tensor(targets, device="cpu")
    if targets.shape != (count,) or targets.is_floating_point() or targets.dtype == torch.bool:
        raise InvalidSetting(f"targets have shape {list(targets.shape)}; allowed: {count} whole numbers")
    if targets.min() < 0 or targets.max() >= classes:
        low, high = int(targets.min()), int(targets.max())
        raise InvalidSetting(f"targets lie in {low}..{high}; allowed: 0..{classes - 1}")
    return targets.to(torch.int64).clone()  # no tensor of the caller's inference mode
