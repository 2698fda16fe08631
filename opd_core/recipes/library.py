"""Load recipes, say what each needs and costs, and lay a job's overrides over them."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import Field

from opd_core.recipes.cost import cost
from opd_core.spec import JobSpec, MethodSpec, RolloutSpec, TeacherSpec, UserError, validated
from opd_core.spec.base import Spec
from opd_core.spec.combinations import teacher_must_give

# Fields that name the alternative inside a variable: choosing another one drops the recipe's settings for it.
_CHOICES = ("route", "kind")

Variable = Literal[
    "objective", "support", "credit", "shaping", "routing", "gates", "states", "importance", "regularization"
]
Grade = Literal["published", "reported", "preliminary", "control", "hypothesis"]


class Job(Spec):
    """What a recipe says of the job itself: who teaches, who writes. The job's own fields go first."""

    teacher: TeacherSpec | None = None
    rollout: dict[str, Any] = Field(default_factory=dict)

    def brief(self) -> dict[str, Any]:
        """Only what it says."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Written(Spec):
    """What a recipe's file says: a method with its source."""

    title: str
    summary: str
    formula: str
    citation: str
    variable: Variable = Field(description="The variable of the taxonomy in which its idea lies.")
    grade: Grade = Field(
        description="published = a paper compares it; reported = a technical report or a framework uses it; "
        "preliminary = a first or an unreproduced result, or one in another setting; control = what others are "
        "compared with; hypothesis = nobody has published results.",
    )
    evidence: str = Field(description="The same in a sentence.")
    differs: str = Field("", description="What differs from the paper.")
    method: MethodSpec
    brings: Job = Field(
        default_factory=Job, description="Parts of the job beside the method, where the job leaves them open."
    )


class Recipe(Written):
    """The same with what follows from the method.

    ``fixed_point`` is ``teacher`` when the update vanishes at student = teacher, ``shifted`` when the method's
    optimum lies elsewhere; then ``fixed_point_reason`` says why.
    """

    name: str
    route: Literal["direct", "log_ratio"]
    fixed_point: Literal["teacher", "shifted"]
    fixed_point_reason: str | None
    teacher: str = Field(description="What the teacher must give at each token.")
    needs: tuple[str, ...] = Field(description="Beside the teacher: reference, reward, group, origin, critic.")
    cost: tuple[str, ...] = Field(description="Beside the student's forward and backward and the teacher's forward.")
    warnings: tuple[str, ...]


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
    return _load(name)


@cache
def _load(name: str) -> Recipe:
    text = resources.files("opd_core.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    written = Written.model_validate(yaml.safe_load(text))
    method = written.method
    return Recipe(
        **dict(written),
        name=name,
        route=method.objective.route,
        fixed_point="shifted" if method.shift else "teacher",
        fixed_point_reason=method.shift,
        teacher=teacher_must_give(method),
        needs=method.needs,
        cost=cost(method),
        warnings=tuple(method.warnings()),
    )


def resolve(spec: JobSpec) -> JobSpec:
    """The spec with ``method`` filled in completely: the recipe's method under the job's overrides.

    What the recipe brings beside the method (a teacher, fields of rollout) fills what the job leaves open.
    A variable for which the job chooses another kind (or route) starts from that kind's defaults; lists (gates,
    regularizers) are replaced as a whole. Resolving twice changes nothing. Raises UserError that names the field of a
    bad override.
    """
    method = adapt(spec.recipe, spec.method)
    brings = load(spec.recipe).brings
    rollout = {**brings.rollout, **spec.rollout.model_dump(mode="json", exclude_unset=True)}
    resolved = spec.model_copy(
        update={
            "method": method.model_dump(mode="json"),
            "teacher": spec.teacher if spec.teacher is not None else brings.teacher,
            "rollout": RolloutSpec.model_validate(rollout),
        }
    )
    resolved.check_method()
    return resolved


def adapt(recipe: str, changes: dict[str, Any]) -> MethodSpec:
    """The recipe's method under changes to it, laid over as ``resolve`` does. Raises UserError."""
    return revise(load(recipe).method.model_dump(mode="json"), changes)


def revise(method: dict[str, Any], changes: dict[str, Any]) -> MethodSpec:
    """A complete method under changes to it. Raises UserError."""
    return validated(MethodSpec, _overlay(method, changes), prefix="method")


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
