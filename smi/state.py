"""The state of one batch between two iterations: pixels, Adam, random numbers; and what is left of it at the end.

Shapes: B images, C channels, H x W pixels, P patches, K kept, T iterations. The optimised variable is the kept
patches [B, K, C*ph*pw], laid on a canvas whose other pixels nothing touches; when dense it is the image itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from smi.adapters import Adapted
from smi.geometry import PatchGrid, kept_mask, pixel_index, take_patches
from smi.rebirth import Schedule
from smi.recipes import Recipe
from smi.stopping import Stopping

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, one number for each pixel


@dataclass(frozen=True)
class InversionConfig:
    """What all batches of one inversion share. snapshots: iterations whose images are kept (0 is the noise)."""

    recipe: Recipe
    stopping: Schedule | None = None  # a Rebirth is resolved
    snapshots: tuple[int, ...] = ()

    @property
    def reenters(self) -> bool:
        """Can a patch that has stopped come back?"""
        return isinstance(self.stopping, Stopping) and self.stopping.reenter_every is not None

    def prunes_at(self, iteration: int) -> bool:
        """Do patches stop before this iteration?"""
        return self.stopping is not None and iteration in (self.stopping.at or ())


@dataclass
class Traces:
    """What a batch leaves on its way, on the CPU.

    importance: [B, P] for each stop, NaN where a patch had stopped for good before. snapshots: [B, C, H, W],
    normalised, and masks: bool [B, P], true where a patch is still in, both by iteration. left: int64 [B, P // parts]
    for each part of a Rebirth, the patches of its image.
    """

    importance: list[Tensor] = field(default_factory=list)
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    masks: dict[int, Tensor] = field(default_factory=dict)
    left: list[Tensor] = field(default_factory=list)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors from which `from_state_dict` makes equal traces."""
        kinds = {
            "importance": dict(enumerate(self.importance)),
            "snapshot": self.snapshots,
            "mask": self.masks,
            "left": dict(enumerate(self.left)),
        }
        return {f"{kind}.{t}": tensor for kind, found in kinds.items() for t, tensor in found.items()}

    @classmethod
    def from_state_dict(cls, saved: Mapping[str, Any]) -> Traces:
        """The traces that `state_dict` described, among whatever else was saved."""

        def numbered(kind: str) -> dict[int, Tensor]:
            prefix = f"{kind}."
            found = {int(n.removeprefix(prefix)): t for n, t in saved.items() if n.startswith(prefix)}
            return dict(sorted(found.items()))

        importance, left = (list(numbered(kind).values()) for kind in ("importance", "left"))
        return cls(importance, numbered("snapshot"), numbered("mask"), left)


@dataclass
class State:
    """The whole state of one batch between two iterations.

    image: [B, C, H, W], normalised; kept: int64 [B, K], None before the first stop; targets: int64 [B].
    optimizer: Adam over one tensor; losses: float32 [T], filled up to `iteration`.
    extra: tensors that a loop of another kind carries along (smi/published.py), and Adam's moments of all pixels [B, C,
        H, W], as they were at the last ranking, where patches re-enter.
    """

    image: Tensor
    targets: Tensor
    optimizer: torch.optim.Optimizer
    losses: Tensor
    jitter_generator: torch.Generator
    score_generator: torch.Generator
    chance: float
    kept: Tensor | None = None
    pixels: Tensor | None = None  # where those patches' pixels lie, see smi.geometry.pixel_index
    iteration: int = 0
    stages: list[dict[str, Any]] = field(default_factory=list)
    traces: Traces = field(default_factory=Traces)
    extra: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        model: Adapted,
        config: InversionConfig,
        size: int,
        targets: Tensor | None,
        seeds: tuple[int, int],
        device: torch.device | str,
    ) -> State:
        """Gaussian noise and uniform targets, drawn on the CPU so that they do not depend on the device."""
        generator = torch.Generator().manual_seed(seeds[0])
        shape = (size, model.channels, model.grid.height, model.grid.width)
        noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        drawn = torch.randint(model.classes, (size,), generator=generator, device="cpu")
        chance = float(torch.rand((), generator=generator, dtype=torch.float32, device="cpu"))
        image = noise.to(device)
        return cls(
            image=image,
            targets=(drawn if targets is None else targets).to(device),
            optimizer=_adam(image, config.recipe.learning_rate, config.recipe.betas),
            losses=torch.zeros(config.recipe.iterations, dtype=torch.float32, device=device),
            jitter_generator=generator,
            score_generator=torch.Generator().manual_seed(seeds[1]),
            chance=chance,
        )

    @property
    def variable(self) -> Tensor:
        """What Adam moves: kept patches [B, K, C*ph*pw] after a stop, else the image itself."""
        variable: Tensor = self.optimizer.param_groups[0]["params"][0]
        return variable

    def kept_or_all(self, patches: int) -> Tensor:
        """Indices of the patches still in, [B, K]; all P before the first stop."""
        if self.kept is not None:
            return self.kept
        return every_patch(self.image, patches)

    def hold(self, kept: Tensor, grid: PatchGrid) -> None:
        """From here on these patches are the ones still in; what Adam moves stays as it is."""
        self.kept, self.pixels = kept, pixel_index(kept, grid, self.image.shape[1])

    @torch.no_grad()
    def prune(self, remaining: Tensor, positions: Tensor, grid: PatchGrid) -> None:
        """Go on with these patches alone: Adam moves them and nothing else, its moments are cut along.

        remaining: int64 [B, K'] patch indices; positions: int64 [B, K'], theirs among those kept so far.
        """
        cut = {}
        for name, moment in self._moments().items():
            if self.kept is None:
                cut[name] = take_patches(moment, remaining, grid)
            else:
                cut[name] = moment.take_along_dim(positions.unsqueeze(2), dim=1)
        self._go_on(remaining, cut, grid)

    @torch.no_grad()
    def reenter(self, entering: Tensor, grid: PatchGrid) -> None:
        """Go on with these patches int64 [B, K'], some of which may have stopped before: these have the pixels and
        moments with which they did. Adam's step, from which it corrects its bias, is one for all."""
        cut = {}
        for name, moment in self._moments().items():
            if self.pixels is None:
                self.extra[name] = moment
            else:
                self.extra[name].flatten(1).scatter_(1, self.pixels, moment.flatten(1))
            cut[name] = take_patches(self.extra[name], entering, grid)
        self._go_on(entering, cut, grid)

    def _moments(self) -> dict[str, Tensor]:
        """Adam's moments of what it moves; none before its first step."""
        state = self.optimizer.state[self.variable]
        return {name: state[name] for name in MOMENTS} if state else {}

    def _go_on(self, kept: Tensor, moments: Mapping[str, Tensor], grid: PatchGrid) -> None:
        """Have a new Adam move these patches int64 [B, K], from these moments [B, K, C*ph*pw] and the step that was."""
        group = self.optimizer.param_groups[0]
        variable = take_patches(self.image, kept, grid)
        optimizer = _adam(variable, group["lr"], group["betas"], group["eps"])
        if moments:
            optimizer.state[variable] = {"step": self.optimizer.state[self.variable]["step"], **moments}
        self.optimizer = optimizer
        self.hold(kept, grid)

    def snapshot(self, patches: int) -> None:
        """Keep the image and its mask in the traces, once for each iteration."""
        if self.iteration not in self.traces.snapshots:
            every = torch.ones(len(self.image), patches, dtype=torch.bool, device="cpu")
            mask = every if self.kept is None else kept_mask(self.kept.cpu(), patches)
            self.traces.snapshots[self.iteration] = self.image.detach().cpu().clone()
            self.traces.masks[self.iteration] = mask

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values from which `load_state_dict` goes on to the same bits."""
        group = {k: v for k, v in self.optimizer.param_groups[0].items() if k in ("lr", "betas", "eps")}
        saved: dict[str, Any] = {
            "image": self.image,
            "targets": self.targets,
            "losses": self.losses,
            "jitter_generator": self.jitter_generator.get_state(),
            "score_generator": self.score_generator.get_state(),
            "iteration": self.iteration,
            "chance": self.chance,
            "stages": self.stages,
            "adam": group,
            **{f"adam.{name}": t for name, t in self.optimizer.state[self.variable].items()},
            **{f"extra.{name}": t for name, t in self.extra.items()},
            **self.traces.state_dict(),
        }
        if self.kept is not None:
            saved["kept"] = self.kept
        if self.variable is not self.image:
            saved["variable"] = self.variable
        return saved

    def load_state_dict(self, saved: Mapping[str, Any], grid: PatchGrid) -> None:
        """Become the state that `state_dict` described, on this state's device."""
        device = self.image.device

        def named(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t.to(device) for n, t in saved.items() if n.startswith(prefix)}

        self.image, self.targets = saved["image"].to(device), saved["targets"].to(device)
        self.losses = saved["losses"].to(device)
        variable = saved["variable"].to(device) if "variable" in saved else self.image
        self.optimizer = _adam(variable, **saved["adam"])
        if moments := named("adam."):
            self.optimizer.state[variable] = moments
        self.jitter_generator.set_state(saved["jitter_generator"])
        self.score_generator.set_state(saved["score_generator"])
        self.iteration, self.chance = saved["iteration"], saved["chance"]
        self.stages = list(saved["stages"])
        self.traces, self.extra = Traces.from_state_dict(saved), named("extra.")
        if "kept" in saved:
            self.hold(saved["kept"].to(device), grid)

    def finish(self) -> Finished:
        """What is left of a batch that has run through: its images on the CPU, and nothing to optimise them with."""
        return Finished(
            image=self.image.detach().cpu(),
            targets=self.targets.cpu(),
            losses=self.losses.cpu(),
            kept=None if self.kept is None else self.kept.cpu(),
            stages=self.stages,
            traces=self.traces,
        )


@dataclass(frozen=True)
class Finished:
    """A batch that has run through its recipe, on the CPU; fields as in `State`."""

    image: Tensor
    targets: Tensor
    losses: Tensor
    kept: Tensor | None
    stages: list[dict[str, Any]]
    traces: Traces

    def state_dict(self) -> dict[str, Any]:
        """Tensors and JSON values from which `from_state_dict` makes an equal one."""
        saved = {"image": self.image, "targets": self.targets, "losses": self.losses, "stages": self.stages}
        if self.kept is not None:
            saved["kept"] = self.kept
        return {**saved, **self.traces.state_dict(), "finished": True}

    @classmethod
    def from_state_dict(cls, saved: Mapping[str, Any]) -> Finished:
        """The batch that `state_dict` described."""
        tensors = {name: saved[name] for name in ("image", "targets", "losses")}
        return cls(
            **tensors,
            kept=saved.get("kept"),
            stages=list(saved["stages"]),
            traces=Traces.from_state_dict(saved),
        )


def every_patch(image: Tensor, patches: int) -> Tensor:
    """Indices of all patches of each image, int64 [B, P]."""
    return torch.arange(patches, device=image.device).repeat(len(image), 1)


def _adam(
    variable: Tensor, lr: float, betas: tuple[float, float], eps: float = 1e-8
) -> torch.optim.Optimizer:
    fused = variable.device.type in ("cpu", "cuda")
    return torch.optim.Adam([variable], lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=fused)
