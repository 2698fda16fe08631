"""A method as one would write it: what names an alternative, and of the rest what is not at its default."""

from __future__ import annotations

from typing import Any

from opd_core.spec import MethodSpec
from opd_core.spec.base import Spec

_ALWAYS_SHOWN = ("objective", "support")
_CHOICES = ("route", "divergence", "kind", "estimator")


def brief(method: MethodSpec) -> dict[str, Any]:
    """Plain data that ``MethodSpec`` reads back as the same method."""
    default = MethodSpec()
    return {
        name: _plain(getattr(method, name))
        for name in MethodSpec.model_fields
        if name in _ALWAYS_SHOWN or getattr(method, name) != getattr(default, name)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if not isinstance(value, Spec):
        return value
    return {
        name: _plain(getattr(value, name))
        for name, field in type(value).model_fields.items()
        if name in _CHOICES or getattr(value, name) != field.default
    }
