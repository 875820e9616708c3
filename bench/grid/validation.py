"""What pydantic refuses, as one line with file, line, key and what is allowed."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench.grid.yaml_file import Document, Location

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], value: Any, document: Document, base: Location) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A misspelt key is also a missing one: the spelling is what the user wants to hear of.
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    except RecursionError:
        raise document.error(base, "nested too deeply") from None
    location = _in_document(document, (*base, *first["loc"]))
    message = first["msg"]
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(model, first["loc"][:-1])
        message = f"unknown key {first['loc'][-1]!r}" + (
            f"; allowed: {', '.join(allowed)}" if allowed else ""
        )
    elif first["type"] == "missing":
        message = f"the key {first['loc'][-1]!r} is missing"
    elif not isinstance(first["input"], (dict, list)):
        message += f", not {first['input']!r}"
    raise document.error(location, message)


def _in_document(document: Document, location: tuple[Any, ...]) -> Location:
    """Pydantic's location less what is not in the file (names of union members, "[key]" marks)."""
    kept: list[str | int] = []
    for part in location:
        if (*kept, part) not in document.lines:
            break
        kept.append(part)
    return tuple(kept)


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys that the schema allows at a location below `model`."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = _inner_model(current.model_fields[part].annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _inner_model(annotation: Any) -> Any:
    """The model inside `X`, `X | None`, `list[X]`, `dict[str, X]`, `Annotated[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in reversed(getattr(annotation, "__args__", ())):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
