"""What tells one run from another beside its settings: everything that changes what a model or a function answers.

Weights are hashed in smi/checkpoint.py; here it is how they are used: classes and settings of all modules, hooks, and
the code of what a user has written.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from smi.vit import frozen

LIBRARIES = ("smi", "timm", "torch", "torchvision", "transformers", "numpy", "math", "builtins")
# what does not change a module's answer, or is told elsewhere
PASSING = ("training", "fused_attn", "grad_checkpointing", "pretrained_cfg", "default_cfg")
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
SIMPLE = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device)
ANSWERS = 8  # numbers that a probe's logits are mixed into
TOLERANCE = 1e-2  # of them, relative to the largest: other kernels round otherwise


def of_function(function: Any) -> str:
    """sha256 of a function's code, defaults, closure and of what it refers to, as far as these are the user's own; the
    name alone of a function of a library."""
    return hashlib.sha256(_described(function, {}).encode()).hexdigest()


def structure(model: nn.Module) -> list[str]:
    """Lines that tell how a model uses its weights: of each module the class, its settings, hooks, replaced methods."""
    return _structure(model, {})


@torch.no_grad()
def answers(model: nn.Module, shape: Sequence[int]) -> list[float] | None:
    """Logits of one image of seeded noise, mixed into a few numbers; None where they are not finite.

    shape: (C, H, W). What no description of the model would show is in these.
    """
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    noise = torch.randn((1, *shape), generator=generator, dtype=torch.float32, device="cpu")
    with frozen(model):
        logits = model(noise.to(device)).double().cpu().flatten()
    mixed = (
        torch.randn((ANSWERS, len(logits)), generator=generator, dtype=torch.float64, device="cpu") @ logits
    )
    return mixed.tolist() if mixed.isfinite().all() else None


def same_answers(one: Any, other: Any) -> bool:
    """Whether two models answered alike, rounding aside."""
    if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
        return one == other
    largest = max(map(abs, [*one, *other]))
    return all(
        math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE * largest) for a, b in zip(one, other, strict=True)
    )


def _structure(model: nn.Module, seen: dict[int, Any]) -> list[str]:
    lines = []
    for name, module in model.named_modules():
        kind = type_before_parametrizations(module)
        facts = {
            key: _described(value, seen) if _is_setting(value) else type(value).__qualname__
            for key, value in sorted(vars(module).items())
            if not key.startswith("_") and key not in PASSING
        }
        hooks = [_described(hook, seen) for table in HOOKS for hook in getattr(module, table).values()]
        lines.append(f"{name} {_class(kind, seen)} {module.extra_repr()} {facts} {hooks}")
    return lines


def _is_setting(value: Any) -> bool:
    """Whether it is told by its value; what a module has collected on the way is not."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_setting, value))
    if isinstance(value, Mapping):
        return all(map(_is_setting, value.values()))
    return isinstance(value, SIMPLE) or (callable(value) and not isinstance(value, nn.Module))


def _described(value: Any, seen: dict[int, Any]) -> str:
    """One value as text that is equal in another process where the value is."""
    if isinstance(value, SIMPLE):
        return repr(value)
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {list(value.shape)} {hashlib.sha256(content).hexdigest()}"
    if isinstance(value, ModuleType):
        return value.__name__
    if id(value) in seen:
        return "seen before"  # a closure over the model that holds it, say
    seen[id(value)] = value  # held, so that no other object gets its id
    if isinstance(value, Mapping):
        return str([(str(key), _described(item, seen)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return str(sorted(_described(item, seen) for item in value))
    if isinstance(value, (list, tuple)):
        return str([_described(item, seen) for item in value])
    if isinstance(value, type):
        return _class(value, seen)
    if isinstance(value, nn.Module):
        weights = [_described(tensor, seen) for tensor in value.state_dict().values()]
        return str([_structure(value, seen), weights])
    return _callable_or_object(value, seen)


def _callable_or_object(value: Any, seen: dict[int, Any]) -> str:
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if isinstance(value, functools.partial):
        return str([_described(part, seen) for part in (value.func, value.args, value.keywords)])
    if isinstance(value, MethodType):
        return str([_described(value.__func__, seen), _described(value.__self__, seen)])
    if isinstance(value, FunctionType):
        return name if _of_a_library(value.__module__) else _function(value, seen)
    if isinstance(value, BuiltinFunctionType):
        return name
    settings = getattr(value, "__dict__", {})
    if _of_a_library(type(value).__module__):  # caches and the like are none
        settings = {key: item for key, item in settings.items() if isinstance(item, SIMPLE)}
    return f"{_class(type(value), seen)} {_described(settings, seen)}"


def _function(function: FunctionType, seen: dict[int, Any]) -> str:
    inner = inspect.unwrap(function)
    assert isinstance(inner, FunctionType)
    cells = [_described(_content(cell), seen) for cell in inner.__closure__ or ()]
    defaults = _described([inner.__defaults__, inner.__kwdefaults__], seen)
    used = {name: inner.__globals__[name] for name in _names(inner.__code__) if name in inner.__globals__}
    return str([_code(inner.__code__), cells, defaults, _described(used, seen)])


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None


def _names(code: CodeType) -> list[str]:
    inner = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return sorted({*code.co_names, *inner})


def _code(code: CodeType) -> str:
    """Bytecode: another version of Python is another code."""
    consts = [_code(part) if isinstance(part, CodeType) else _described(part, {}) for part in code.co_consts]
    return str([code.co_code.hex(), consts, code.co_names, code.co_varnames, code.co_freevars])


def _class(kind: type, seen: dict[int, Any]) -> str:
    """Its name, and what it does where a user has written it."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    if _of_a_library(kind.__module__) or id(kind) in seen:
        return name
    seen[id(kind)] = kind
    own = {
        key: value for key, value in sorted(vars(kind).items()) if not key.startswith("__") or key in CALLED
    }
    bases = [_class(base, seen) for base in kind.__bases__]
    functions: dict[str, Callable[..., Any]] = {
        key: getattr(value, "__func__", getattr(value, "fget", value)) for key, value in own.items()
    }
    return f"{name} {bases} {_described(functions, seen)}"


CALLED = (
    "__call__",
    "__init__",
    "__getattr__",
)  # of a class's methods with underscores, those that matter here


def _of_a_library(module: str | None) -> bool:
    return (module or "").split(".")[0] in LIBRARIES
