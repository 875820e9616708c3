"""What stands around a model: torch.compile, DataParallel, DistributedDataParallel."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from smi.errors import UnsupportedModel


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside its wrappers; itself where there are none. UnsupportedModel for one that FSDP has sharded."""
    while True:
        if any("FullyShardedDataParallel" in k.__name__ or k.__name__ == "FSDPModule" for k in _kinds(model)):
            raise UnsupportedModel(
                f"{type(model).__name__} is sharded (FSDP): its weights lie in pieces on several devices; give the "
                "whole model, loaded from the full state dict"
            )
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif _is_compiled(model):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def _kinds(model: nn.Module) -> tuple[type, ...]:
    return type(model).__mro__


def _is_compiled(model: nn.Module) -> bool:
    """Known by its name: importing torch's compiler costs seconds."""
    return any(
        k.__module__.startswith("torch._dynamo") and k.__name__ == "OptimizedModule" for k in _kinds(model)
    )
