"""The one error a user can cause."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class UserError(ValueError):
    """Something the user can put right: one sentence, and the field it is about.

    A job that meets one ends as ``failed`` with ``category: user`` and is never retried.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_spec") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


def describe(error: ValidationError, *, prefix: str = "", data: Any = None) -> UserError:
    """Turn pydantic's first complaint into one sentence: the field, the value, what is allowed.

    ``data`` is what was validated: with it, the names that pydantic gives to the alternatives of a union, which the
    user never wrote, are left out of the path.
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(([prefix] if prefix else []) + _written_path(first["loc"], data)) or "spec"
    message = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
    value = first.get("input")
    if first["type"] == "extra_forbidden":
        message, value = "there is no such field", None  # which may have been a secret
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    more = error.error_count() - 1
    tail = f"; and {more} more problem{'s' if more > 1 else ''}" if more else ""
    return UserError(f"{where}: {message}{shown}{tail}", param=where)


def validated(model: type[Model], data: Any, *, prefix: str = "") -> Model:
    """The model of some parsed data. Raises UserError for what is wrong in it, as ``describe`` says it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise describe(error, prefix=prefix, data=data) from error


def _written_path(location: tuple[int | str, ...], data: Any) -> list[str]:
    path = []
    for index, part in enumerate(location):
        inside = (isinstance(data, dict) and part in data) or (isinstance(data, list) and isinstance(part, int))
        last = index == len(location) - 1
        if isinstance(data, dict) and not inside and not last:
            continue
        path.append(str(part))
        if inside:
            data = data[part]
    return path
