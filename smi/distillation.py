"""The training loop of knowledge transfer: draw, two forwards on the kept patches, KL, one step; resumable.

Shapes: B images, C channels, H x W pixels, K kept patches. The public face is smi/transfer.py.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smi.checkpoint import Saver
from smi.device import autocast, synchronise
from smi.errors import Interrupted, InvalidSetting, NonFiniteLoss
from smi.inversion import derived_seed
from smi.objectives import kd_loss
from smi.pool import Pool
from smi.progress import Progress
from smi.transfer_recipes import TransferRecipe
from smi.vit import TokenModel, normalisation

REPORT_SECONDS = 0.5  # between two progress reports
_RANDOMNESS = threading.Lock()
PART = "transfer"  # of a checkpoint
Evaluate = Callable[[nn.Module], Mapping[str, float]]


class Run:
    """The state of a transfer between two steps, and how to take the next one.

    What a step draws depends on the seed and the step alone, so the state is weights, moments, and the curve.
    """

    def __init__(
        self,
        recipe: TransferRecipe,
        seed: int,
        teacher: TokenModel,
        student: TokenModel,
        pool: Pool,
        device: torch.device,
    ) -> None:
        self.recipe, self.seed, self.pool, self.device = recipe, seed, pool, device
        self.teacher, self.student = teacher, student
        self.trained = _trained_parameters(student.model, recipe.train)
        for parameter in student.model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self.optimizer = _optimizer(list(self.trained.values()), recipe)
        self.normal = [normalisation(model.model) for model in (teacher, student)]
        self.curve: list[dict[str, Any]] = []
        self.losses: list[float] = []  # since the last entry of the curve
        self.step, self.seconds = 0, 0.0

    def go(
        self,
        saver: Saver,
        evaluate: Evaluate | None,
        every: int | None,
        progress: Progress | None,
        should_stop: Callable[[], bool],
    ) -> None:
        """All steps that are left."""
        total, reported, at_work = self.recipe.steps, time.monotonic(), False

        def leave() -> str:
            kept = "; the state is saved" if self.save(saver) else ""
            return f"stopped at step {self.step} of {total}{kept}"

        try:
            self._evaluate(evaluate, every)
            while self.step < total:
                if should_stop():
                    raise Interrupted(leave())
                at_work, began = True, time.perf_counter()
                try:
                    loss = self.advance()
                except NonFiniteLoss:
                    self.save(saver)
                    raise
                synchronise(self.device)
                self.seconds += time.perf_counter() - began
                self.losses.append(loss)
                self.step, at_work = self.step + 1, False
                self._evaluate(evaluate, every)
                last = self.step == total
                if progress is not None and (last or time.monotonic() - reported >= REPORT_SECONDS):
                    figures = {k: v for k, v in self.curve[-1].items() if k != "step"} if self.curve else {}
                    progress(self.step, total, {**figures, "loss": loss})
                    reported = time.monotonic()
                if saver.due():
                    self.save(saver)
            self.save(saver)
        except KeyboardInterrupt:
            if at_work:
                raise  # half a step is no state to go on from
            raise KeyboardInterrupt(f"{leave()}: call it again with the same arguments") from None

    def advance(self) -> float:
        """One step of the optimiser on one draw of the pool; returns the loss."""
        recipe, step = self.recipe, self.step
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "draw", step))
        round_ = step // (recipe.steps // recipe.rounds)
        pixels, kept = self.pool.draw(round_, recipe.batch_size, recipe.flip, recipe.jitter, generator)
        pixels = pixels.to(self.device)
        kept = None if kept is None else kept.to(self.device)
        views = [(pixels - mean) / std for mean, std in self.normal]
        self.student.model.train(recipe.train == "all")
        with _own_randomness(self.device, derived_seed(self.seed, "dropout", step)), torch.enable_grad():
            with autocast(self.device, recipe.precision):
                with torch.no_grad():
                    wanted = self.teacher.forward(views[0], kept)
                answered = self.student.forward(views[1], kept)
            loss = kd_loss(answered, wanted, recipe.temperature)
            gradients = torch.autograd.grad(loss, list(self.trained.values()), allow_unused=True)
        value = float(loss.detach())
        self._check_finite(value, gradients)
        for parameter, gradient in zip(self.trained.values(), gradients, strict=True):
            parameter.grad = gradient
        with torch.device("cpu"):  # where torch counts steps, whatever its default device
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _check_finite(self, loss: float, gradients: Sequence[Tensor | None]) -> None:
        """Raise before a step that would spread NaN or infinity into the weights."""
        what, value = "loss", loss
        if math.isfinite(loss):
            norms = torch.stack([torch.linalg.vector_norm(g) for g in gradients if g is not None])
            what, value = "gradient's norm", float(torch.linalg.vector_norm(norms))
        if not math.isfinite(value):
            s = self.recipe
            raise NonFiniteLoss(
                f"the {what} is {value} at step {self.step} of {s.steps} of the transfer ({s.optimizer}, learning rate "
                f"{s.learning_rate:g}, temperature {s.temperature:g}): lower the learning rate, or check the weights"
            )

    def _evaluate(self, evaluate: Evaluate | None, every: int | None) -> None:
        """Add to the curve where an entry is due and not there yet (a resumed run has it)."""
        due = self.step in (0, self.recipe.steps) or (every is not None and self.step % every == 0)
        if evaluate is None or not due or (self.curve and self.curve[-1]["step"] == self.step):
            return
        self.student.model.eval()
        with torch.no_grad():
            figures = evaluate(self.student.model)
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        round_ = max(self.step - 1, 0) // (self.recipe.steps // self.recipe.rounds)
        self.curve.append({"step": self.step, "loss": loss, "pool": self.pool.size(round_), **figures})
        self.losses = []

    def save(self, saver: Saver) -> bool:
        """Write the state; False where there is no path to write it to."""
        state: dict[str, Any] = {f"weight.{name}": parameter for name, parameter in self.trained.items()}
        for name, parameter in self.trained.items():
            for field, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    state[f"optimizer.{field}.{name}"] = value
        state |= {"step": self.step, "seconds": self.seconds, "curve": self.curve, "losses": self.losses}
        return saver.save({PART: state})

    def resume(self, saver: Saver) -> None:
        """Take the saved state, if there is one of this run."""
        saved = saver.load().get(PART)
        if saved is None:
            return
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(saved[f"weight.{name}"])
        for key, value in saved.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                field, _, name = rest.partition(".")
                parameter = self.trained[name]
                self.optimizer.state[parameter][field] = (
                    value if field == "step" else value.to(parameter.device)
                )
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.curve, self.losses = list(saved["curve"]), list(saved["losses"])


def _trained_parameters(model: nn.Module, train: str) -> dict[str, nn.Parameter]:
    """The parameters that a transfer moves, by name."""
    if train == "all":
        free = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if not free:
            raise InvalidSetting(
                "transfer: train is 'all', and every weight of the student is frozen (requires_grad=False); allowed: "
                "some that are not, or train='head'"
            )
        return free
    heads = ("head.", "head_dist.")
    return {name: p for name, p in model.named_parameters() if name.startswith(heads)}


def _optimizer(parameters: list[nn.Parameter], recipe: TransferRecipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    assert rate is not None and decay is not None  # the recipe has put its defaults in
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)
    return torch.optim.AdamW(parameters, rate, recipe.betas, weight_decay=decay)


@contextmanager
def _own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Dropout and stochastic depth of a student draw from torch's global generators, the CPU's and the device's: these
    are seeded here and restored after, those of other devices left alone. One thread after the other."""
    on_gpu = device.type == "cuda"
    with _RANDOMNESS, torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
