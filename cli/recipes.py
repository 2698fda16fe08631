"""How recipes are shown in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

import yaml
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from opd_core.recipes import Recipe, brief

# One override of each variable that every recipe about this variable accepts.
_EXAMPLES = {
    "objective": "objective.temperature=2.0",
    "support": "support={kind: student_top_k, k: 64}",
    "credit": "credit={estimator: discounted, gamma: 0.5}",
    "shaping": "shaping={kind: clip, limit: 10.0}",
    "routing": "routing={kind: counterfactual, strength: 0.5}",
    "gates": "gates=[{kind: window, stop: 200}]",
    "states": "gates=[{kind: window, stop: 200}]",
    "importance": "importance={kind: truncated, cap: 2.0}",
    "regularization": "regularizers=[{kind: reference_kl, weight: 0.1}]",
}


def recipe_table(recipes: Sequence[Recipe]) -> Table:
    """One row each; the source stands below the title, so that a narrow terminal shows whole names."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for label in ("recipe", "route", "variable", "grade"):
        table.add_column(label, no_wrap=True)
    table.add_column("what it is, and its source")
    for recipe in recipes:
        names = (recipe.name, recipe.route, recipe.variable, recipe.grade)
        table.add_row(*map(Text, names), Text.assemble(recipe.title, "\n", (recipe.citation, "dim")))
    return table


def recipe_page(recipe: Recipe) -> Table:
    """Everything about one."""
    table = Table.grid(padding=(0, 2))
    for label, text in _rows(recipe):
        if text:
            table.add_row(Text(label, style="bold"), Text(text.strip()))
    return table


def example_command(recipe: Recipe) -> str:
    """How to run it with the variable changed in which its idea lies."""
    overrides = (f"recipe={recipe.name}", f"method.{_EXAMPLES[recipe.variable]}")
    return shlex.join(
        ["opd", "submit", "examples/demo.yaml", *(part for each in overrides for part in ("--set", each))]
    )


def _rows(recipe: Recipe) -> Iterator[tuple[str, str]]:
    yield recipe.name, recipe.title
    yield "summary", recipe.summary
    yield "formula", recipe.formula
    yield "source", recipe.citation
    yield "grade", recipe.grade
    yield "evidence", recipe.evidence
    yield "differs", recipe.differs
    yield "taxonomy", f"route {recipe.route}, variable {recipe.variable}"
    yield "the teacher gives", recipe.teacher
    yield "needs", ", ".join(recipe.needs) or "nothing else"
    yield "cost", "\n".join(recipe.cost)
    yield "fixed point", recipe.fixed_point + (f": {recipe.fixed_point_reason}" if recipe.fixed_point_reason else "")
    yield "warnings", "\n".join(recipe.warnings)
    yield "brings", _brings(recipe)
    yield "method", yaml.safe_dump(brief(recipe.method), sort_keys=False, default_flow_style=False)
    yield "", "Every other field is at its default: docs/spec.md."


def _brings(recipe: Recipe) -> str:
    """What it says of the job beside the method, where the job leaves it open."""
    brought = recipe.brings.brief()
    return yaml.safe_dump(brought, sort_keys=False, default_flow_style=False) if brought else ""
