"""Load recipes and lay a job's overrides over them."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from opd_core.spec import JobSpec, MethodSpec, UserError, describe
from opd_core.spec.base import Spec

# Fields that name the alternative inside a variable: choosing another one drops the recipe's settings for it.
_CHOICES = ("route", "kind")


class Recipe(Spec):
    """A method with its source.

    ``fixed_point`` is ``teacher`` when the update vanishes at student = teacher, ``shifted`` when the method's
    optimum lies elsewhere (then ``summary`` says where).
    """

    name: str
    title: str
    summary: str
    formula: str
    citation: str
    evidence: str = Field(description="How well the method is supported by published results.")
    differs: str = Field("", description="What differs from the paper.")
    fixed_point: Literal["teacher", "shifted"] = "teacher"
    method: MethodSpec


def names() -> list[str]:
    """Names of all recipes, sorted."""
    files = resources.files("opd_core.recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load(name: str) -> Recipe:
    """The recipe of that name. Raises UserError with the list of names when there is none."""
    if name not in names():
        raise UserError(
            f"recipe: there is no recipe {name!r}; choose one of {', '.join(names())}",
            param="recipe",
            code="unknown_recipe",
        )
    text = resources.files("opd_core.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return Recipe.model_validate({"name": name, **yaml.safe_load(text)})


def resolve(spec: JobSpec) -> JobSpec:
    """The spec with ``method`` filled in completely: the recipe's method under the job's overrides.

    Resolving twice changes nothing. Raises UserError that names the field of a bad override.
    """
    recipe = load(spec.recipe)
    merged = _overlay(recipe.method.model_dump(), spec.method)
    try:
        method = MethodSpec.model_validate(merged)
    except ValidationError as error:
        raise describe(error, prefix="method", data=merged) from error
    return spec.model_copy(update={"method": method.model_dump()})


def _overlay(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in override.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            switched = any(choice in value and value[choice] != old.get(choice) for choice in _CHOICES)
            merged[key] = value if switched else _overlay(old, value)
        else:
            merged[key] = value
    return merged
