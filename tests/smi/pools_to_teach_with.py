"""Images and students that the tests of transfer share."""

import torch

import smi

BASE = {"steps": 6, "batch_size": 4, "evaluate_every": 2, "seed": 3}


def with_recipe(**changes):
    """BASE with other settings: those of smi.distil as they are, the others in its recipe."""
    own = {name: changes.pop(name) for name in ("evaluate_every", "seed", "evaluate") if name in changes}
    given = {name: changes.pop(name, BASE[name]) for name in ("steps", "batch_size")}
    recipe = smi.transfer_recipe("default", **given, **changes)
    kept = {name: value for name, value in BASE.items() if name not in given}
    return kept | own | {"recipe": recipe}


def images(count=6, kept=5, seed=0, size=16, channels=3, patch=4, classes=5):
    generator = torch.Generator().manual_seed(seed)
    patches = (size // patch) ** 2
    return smi.SyntheticImages(
        torch.rand(count, channels, size, size, generator=generator),
        torch.randint(classes, (count,), generator=generator),
        None
        if kept is None
        else torch.stack(
            [torch.randperm(patches, generator=generator)[:kept].sort().values for _ in range(count)]
        ),
        (patch, patch),
    )


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def lively(tiny_vit, **overrides):
    """A teacher whose logits say something: timm starts heads near zero."""
    model = tiny_vit(**overrides)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    return model


def agreement(teacher, student, pool):
    """KL at temperature 1 on the pool, through its kept patches, by nothing of the transfer's own."""
    mean, std = smi.vit.normalisation(teacher)
    pixels = (pool.pixels - mean) / std
    with torch.no_grad():
        wanted, answered = (
            smi.vit.adapt(m).forward(pixels, pool.kept).log_softmax(1) for m in (teacher, student)
        )
    return float((wanted.exp() * (wanted - answered)).sum(1).mean())
