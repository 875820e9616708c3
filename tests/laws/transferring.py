"""Laws of knowledge transfer, and its text as a plain program to hold it to."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

import smi
from laws.adapter import Sized, sized
from laws.core import law, seeds
from smi.inversion import derived_seed
from smi.pool import Pool
from smi.vit import adapt


@dataclass(frozen=True)
class Teaching:
    """A whole small transfer, of a student with its own size, dropout, normalisation and frozen parts."""

    teacher: Sized
    student_seed: int
    drop: float
    frozen: str
    own_normalisation: bool
    kept: bool
    settings: tuple[tuple[str, Any], ...]
    seed: int

    def models(self) -> tuple[VisionTransformer, VisionTransformer]:
        teacher = self.teacher.make()
        options = (*self.teacher.options, ("proj_drop_rate", self.drop))
        student = Sized(**{**vars(self.teacher), "seed": self.student_seed, "options": options}).make()
        for name, parameter in student.named_parameters():
            parameter.requires_grad_(not (self.frozen and name.startswith(self.frozen)))
        if self.own_normalisation:
            channels = self.teacher.channels
            student.pretrained_cfg = {"mean": (0.3,) * channels, "std": (0.6,) * channels}
        return teacher.train(), student  # the teacher's mode is not the transfer's

    def images(self) -> smi.SyntheticImages:
        generator = torch.Generator().manual_seed(self.seed)
        pixels = torch.rand((4, *self.teacher.image().shape[1:]), generator=generator)
        kept = self.teacher.kept().repeat(2, 1) if self.kept else None
        targets = torch.randint(4, (4,), generator=generator)
        return smi.SyntheticImages(pixels, targets, kept, self.teacher.patch)

    @property
    def recipe(self) -> smi.TransferRecipe:
        return smi.TransferRecipe(**dict(self.settings))


@st.composite
def teachings(draw) -> Teaching:
    settings = {
        "steps": draw(st.integers(2, 4)),
        "temperature": draw(st.sampled_from([1.0, 4.0])),
        "batch_size": draw(st.integers(1, 3)),
        "train": draw(st.sampled_from(["all", "head"])),
        "optimizer": "sgd",  # whose steps go with the gradient: Adam's blow up the rounding of small ones
        "learning_rate": 0.02,
        "momentum": draw(st.sampled_from([0.0, 0.9])),
        "weight_decay": draw(st.sampled_from([0.0, 0.5])),
        "flip": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "jitter": draw(st.sampled_from([0.0, 0.5])),
    }
    return Teaching(
        teacher=draw(sized),
        student_seed=draw(seeds),
        drop=draw(st.sampled_from([0.0, 0.3])),
        frozen=draw(st.sampled_from(["", "blocks", "patch_embed"])),
        own_normalisation=draw(st.booleans()),
        kept=draw(st.booleans()),
        settings=tuple(settings.items()),
        seed=draw(seeds),
    )


def by_own_modules(model: VisionTransformer, view: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    x, prefix = model._pos_embed(model.patch_embed(view)), model.num_prefix_tokens
    if kept is not None:
        x = torch.cat([x[:, :prefix], x[:, prefix:].take_along_dim(kept.unsqueeze(2), 1)], 1)
    return model.forward_head(model.norm(model.blocks(model.norm_pre(x))))


def plain_transfer(case: Teaching) -> VisionTransformer:
    """The text as plainly as it can be written; the draws of images alone are the engine's."""
    (teacher, student), recipe = case.models(), case.recipe
    student, images, tokens = copy.deepcopy(student), case.images(), adapt(teacher)
    pool = Pool(images, tokens.grid, tokens.channels, tokens.classes)
    teacher.eval()
    student.train(recipe.train == "all")
    if recipe.train == "all":
        moved = [p for p in student.parameters() if p.requires_grad]
    else:
        moved = [p.requires_grad_() for p in student.head.parameters()]
    velocity = [torch.zeros_like(p) for p in moved]
    for step in range(recipe.steps):
        generator = torch.Generator().manual_seed(derived_seed(case.seed, "draw", step))
        pixels, kept = pool.draw(0, recipe.batch_size, recipe.flip, recipe.jitter, generator)
        torch.manual_seed(derived_seed(case.seed, "dropout", step))
        wanted = by_own_modules(teacher, (pixels - 0.5) / 0.25, kept).detach()
        mean, std = (0.3, 0.6) if case.own_normalisation else (0.5, 0.25)
        answered = by_own_modules(student, (pixels - mean) / std, kept)
        p, q = ((logits / recipe.temperature).softmax(1) for logits in (wanted, answered))
        loss = (p * (p.log() - q.log())).sum(1).mean() * recipe.temperature**2
        gradients = torch.autograd.grad(loss, moved, allow_unused=True)
        with torch.no_grad():
            for weight, gradient, speed in zip(moved, gradients, velocity, strict=True):
                if gradient is not None:
                    speed.mul_(recipe.momentum).add_(gradient + recipe.weight_decay * weight)
                    weight.sub_(recipe.learning_rate * speed)
    return student


def transferred(case: Teaching) -> VisionTransformer:
    teacher, student = case.models()
    return smi.transfer(teacher, student, case.images(), recipe=case.recipe, seed=case.seed)


@law(teachings(), examples=25)
def the_reference_transfer_agrees(case):
    with torch.random.fork_rng():
        ours, plain = transferred(case), plain_transfer(case)
    for (name, found), wanted in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-4, msg=name)


@law(teachings(), examples=15)
def what_is_not_trained_stays_to_the_bit(case):
    before, after = case.models()[1], transferred(case)
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        trained = name.startswith("head.") if case.recipe.train == "head" else old.requires_grad
        assert trained or torch.equal(old, new), name
        assert old.requires_grad == new.requires_grad
