"""The recipe gallery: search, order, and what a card says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from api.schemas import Recipe

ROUTES = {
    "direct": ("Direct", "A divergence between student and teacher at each state that the student wrote."),
    "log_ratio": ("Log-ratio", "A policy gradient on how much better the teacher likes each written token."),
}
# In the order of the survey's sentence.
VARIABLES = (
    "objective",
    "support",
    "states",
    "credit",
    "shaping",
    "routing",
    "gates",
    "importance",
    "regularization",
)
_GRADES: dict[str, tuple[Literal["green", "blue", "orange", "gray", "violet"], str]] = {
    "published": ("green", "A paper compares it with others."),
    "reported": ("blue", "A technical report or a framework uses it."),
    "preliminary": ("orange", "A first or an unreproduced result, or one in another setting."),
    "control": ("gray", "What others are compared with."),
    "hypothesis": ("violet", "Nobody has published results."),
}


def grade(recipe: Recipe) -> tuple[Literal["green", "blue", "orange", "gray", "violet"], str]:
    """Colour and meaning of the grade of evidence."""
    return _GRADES[recipe.grade]


def grades() -> list[str]:
    """From the best evidence down."""
    return list(_GRADES)


def matching(recipes: Sequence[Recipe], text: str, grades: Sequence[str] = ()) -> list[Recipe]:
    """Recipes that contain every word, with one of the grades (any when empty)."""
    words = text.lower().split()

    def fits(recipe: Recipe) -> bool:
        parts = (recipe.name, recipe.title, recipe.summary, recipe.citation, recipe.formula, recipe.variable)
        haystack = " ".join(parts).lower()
        return (not grades or recipe.grade in grades) and all(word in haystack for word in words)

    return [recipe for recipe in recipes if fits(recipe)]


def shelves(recipes: Sequence[Recipe], route: str) -> list[tuple[str, list[Recipe]]]:
    """The recipes of a route by the variable in which their idea lies; within it the best evidence first."""
    order = list(_GRADES)
    mine = sorted(
        (recipe for recipe in recipes if recipe.route == route),
        key=lambda recipe: (VARIABLES.index(recipe.variable), order.index(recipe.grade), recipe.name),
    )
    return [(variable, list(found)) for variable, found in groupby(mine, key=lambda recipe: recipe.variable)]


def price(recipe: Recipe) -> str:
    """What it takes beside a forward pass of both models: needs and costs in one line."""
    parts = [f"Teacher gives {recipe.teacher}"]
    if recipe.needs:
        parts.append(f"needs {', '.join(recipe.needs)}")
    return "; ".join([*parts, *recipe.cost]) + "."
