from __future__ import annotations

import pytest

from opd_core.recipes import load, names, resolve
from opd_core.spec import JobSpec, UserError

BASE = {
    "name": "x",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
}


def job(**changes) -> JobSpec:
    return JobSpec.model_validate({**BASE, **changes})


@pytest.mark.parametrize("name", names())
def test_every_recipe_says_what_it_is_and_where_it_is_from(name):
    recipe = load(name)
    assert recipe.name == name
    assert all((recipe.title, recipe.summary, recipe.formula, recipe.citation, recipe.evidence))


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UserError, match="forward-kl") as caught:
        load("nope")
    assert caught.value.param == "recipe"


def test_resolving_fills_the_method_and_is_idempotent():
    resolved = resolve(job(recipe="gkd", method={"objective": {"beta": 0.1}}))
    assert resolved.method["objective"]["divergence"] == "jsd"
    assert resolved.method["objective"]["beta"] == 0.1
    assert resolve(resolved) == resolved


def test_choosing_another_alternative_drops_the_recipes_settings_for_it():
    resolved = resolve(job(recipe="gkd", method={"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}}))
    assert resolved.method["objective"] == {"route": "log_ratio", "temperature": 1.0}


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ({"objective": {"beta": 3}}, "method.objective.beta"),
        ({"objective": {"gamma": 1}}, "method.objective.gamma"),
        ({"objectiv": {}}, "method.objectiv"),
        ({"support": {"kind": "some"}}, "method.support"),
        ({"objective": 5}, "method.objective"),
    ],
)
def test_a_bad_override_names_its_field(method, where):
    with pytest.raises(UserError) as caught:
        resolve(job(recipe="gkd", method=method))
    assert caught.value.param == where
