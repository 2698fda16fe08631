"""The one error a user can cause."""

from __future__ import annotations

from pydantic import ValidationError


class UserError(ValueError):
    """Something the user can put right: one sentence, and the field it is about.

    A job that meets one ends as ``failed`` with ``category: user`` and is never retried.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_spec") -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


def describe(error: ValidationError, *, prefix: str = "") -> UserError:
    """Turn pydantic's first complaint into one sentence: the field, the value, what is allowed."""
    first = error.errors(include_url=False)[0]
    # Tags of discriminated unions appear in the location; the user never wrote them.
    path = [str(part) for part in first["loc"] if not (isinstance(part, str) and part.startswith("tag:"))]
    where = ".".join(([prefix] if prefix else []) + path) or "spec"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such field"
    value = first.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    more = error.error_count() - 1
    tail = f"; and {more} more problem{'s' if more > 1 else ''}" if more else ""
    return UserError(f"{where}: {message}{shown}{tail}", param=where)
