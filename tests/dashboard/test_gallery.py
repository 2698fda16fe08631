"""The gallery shows every recipe once, where it belongs."""

from __future__ import annotations

from api.schemas import Recipe
from dashboard.shaping import gallery
from opd_core.recipes import load, names
from opd_core.recipes.library import Grade, Variable

EVERY = [Recipe.model_validate(load(name).model_dump(mode="json")) for name in names()]


def test_every_recipe_stands_on_one_shelf() -> None:
    shelves = [(route, *shelf) for route in gallery.ROUTES for shelf in gallery.shelves(EVERY, route)]
    found = [recipe.name for _, _, recipes in shelves for recipe in recipes]
    assert sorted(found) == names()
    for route, variable, recipes in shelves:
        assert {(recipe.route, recipe.variable) for recipe in recipes} == {(route, variable)}
    assert set(gallery.VARIABLES) == set(Variable.__args__)
    assert gallery.grades() == list(Grade.__args__)


def test_search_looks_at_everything_and_grades_narrow() -> None:
    assert [recipe.name for recipe in gallery.matching(EVERY, "2604.14084")] == ["tip"]
    assert "gae-opd" in [recipe.name for recipe in gallery.matching(EVERY, "gae CREDIT")]
    assert gallery.matching(EVERY, "no such words") == []
    grades = {recipe.grade for recipe in gallery.matching(EVERY, "", ["hypothesis", "control"])}
    assert grades == {"hypothesis", "control"}


def test_a_card_says_what_it_takes() -> None:
    kdrl = next(recipe for recipe in EVERY if recipe.name == "kdrl")
    assert "needs reward, group" in gallery.price(kdrl)
    assert gallery.grade(kdrl)[1]
