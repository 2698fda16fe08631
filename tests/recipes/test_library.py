from __future__ import annotations

import re
from typing import get_args

import pytest

from opd_core.recipes import brief, load, names, resolve
from opd_core.recipes.library import Variable
from opd_core.spec import JobSpec, MethodSpec, UserError
from opd_core.spec.combinations import teacher_must_give

BASE = {
    "name": "x",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
    "rollout": {"samples_per_prompt": 2},  # what recipes with groups ask for
}


def job(**changes) -> JobSpec:
    return JobSpec.model_validate({**BASE, **changes})


@pytest.mark.parametrize("name", names())
def test_every_recipe_says_what_it_is_and_where_it_is_from(name):
    recipe = load(name)
    assert recipe.name == name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert all((recipe.title, recipe.summary, recipe.formula, recipe.citation, recipe.evidence, recipe.cost))
    assert recipe.teacher.startswith(("log-probabilities of ", "the log-probability of "))


def test_there_are_many_recipes_on_both_routes_and_about_every_variable():
    recipes = [load(name) for name in names()]
    assert len(recipes) >= 30
    assert {recipe.route for recipe in recipes} == {"direct", "log_ratio"}
    assert {recipe.variable for recipe in recipes} == set(get_args(Variable))


def test_no_two_recipes_are_the_same_method_or_have_the_same_title():
    recipes = [load(name) for name in names()]
    written = {recipe.method.model_dump_json() + recipe.brings.model_dump_json() for recipe in recipes}
    assert len(written) == len(recipes)
    assert len({recipe.title for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("name", names())
def test_a_hypothesis_says_so_in_its_title_its_grade_and_its_evidence(name):
    recipe = load(name)
    said = (recipe.grade == "hypothesis", "(hypothesis)" in recipe.title, recipe.evidence.startswith("Hypothesis."))
    assert len(set(said)) == 1, said
    method = recipe.method
    if method.credit.estimator == "gae" or method.routing.kind == "counterfactual":
        assert recipe.grade == "hypothesis"


@pytest.mark.parametrize("name", names())
def test_what_follows_from_the_method_is_said(name):
    recipe = load(name)
    assert recipe.route == recipe.method.objective.route
    assert (recipe.fixed_point, recipe.fixed_point_reason) == (
        ("shifted", recipe.method.shift) if recipe.method.shift else ("teacher", None)
    )
    assert recipe.needs == recipe.method.needs
    assert list(recipe.warnings) == recipe.method.warnings()
    assert ("several samples per prompt" in recipe.cost) == ("group" in recipe.needs)
    assert any("critic" in phrase for phrase in recipe.cost) == (recipe.method.credit.estimator == "gae")


@pytest.mark.parametrize("name", names())
def test_the_brief_form_of_a_method_is_the_method(name):
    method = load(name).method
    assert MethodSpec.model_validate(brief(method)) == method


def test_the_brief_form_holds_what_is_chosen_and_what_is_not_at_its_default():
    method = MethodSpec.model_validate(
        {
            "objective": {"route": "log_ratio"},
            "support": {"kind": "sampled"},
            "credit": {"estimator": "gae", "gamma": 0.9, "critic": {"form": "split"}},
            "gates": [{"kind": "tip", "share": 0.25}, {"kind": "prune"}],
        }
    )
    assert brief(method) == {
        "objective": {"route": "log_ratio", "divergence": "reverse_kl"},
        "support": {"kind": "sampled", "estimator": "k1"},
        "credit": {"estimator": "gae", "critic": {"form": "split"}},
        "gates": [{"kind": "tip", "share": 0.25}, {"kind": "prune"}],
    }


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ({}, "log-probabilities of the whole vocabulary"),
        (
            {"support": {"kind": "union", "k": 4}},
            "log-probabilities of the student's top 4 and its own top 4",
        ),
        ({"support": {"kind": "intersection", "k": 4}}, "log-probabilities of its own top 4"),
        (
            {"support": {"kind": "student_top_k", "k": 4}, "gates": [{"kind": "sequence"}, {"kind": "selectkd"}]},
            "log-probabilities of the sampled token, the student's top 4 and its own top 5",
        ),
        (
            {"support": {"kind": "student_top_k", "k": 4}, "objective": {"route": "direct", "temperature": 2.0}},
            "log-probabilities of the whole vocabulary",
        ),
        (
            {
                "objective": {"route": "log_ratio"},
                "support": {"kind": "sampled"},
                "routing": {"kind": "outlier", "handling": "mask", "k": 7},
                "gates": [{"kind": "entropy", "of": "student"}],
            },
            "the log-probability of the sampled token",
        ),
        (
            {
                "objective": {"route": "log_ratio"},
                "support": {"kind": "sampled"},
                "credit": {"baseline": "expected"},
                "routing": {"kind": "apo", "k": 7},
                "gates": [{"kind": "entropy", "of": "teacher"}],
            },
            "log-probabilities of the sampled token and its own top 8; enough of the vocabulary for KL(student || "
            "teacher); enough of the vocabulary for its entropy",
        ),
    ],
)
def test_what_a_teacher_must_give(method, given):
    assert teacher_must_give(MethodSpec.model_validate(method)) == given


def test_an_unknown_recipe_names_the_known_ones():
    with pytest.raises(UserError, match="forward-kl") as caught:
        load("nope")
    assert caught.value.param == "recipe"


def test_resolving_fills_the_method_and_is_idempotent():
    resolved = resolve(job(recipe="gkd", method={"objective": {"beta": 0.1}}))
    assert resolved.method["objective"]["divergence"] == "jsd"
    assert resolved.method["objective"]["beta"] == 0.1
    assert resolve(resolved) == resolved


@pytest.mark.parametrize("name", names())
def test_resolving_a_resolved_spec_changes_nothing_also_after_json(name):
    resolved = resolve(job(recipe=name))
    assert MethodSpec.model_validate(resolved.method) == load(name).method
    assert resolve(JobSpec.model_validate_json(resolved.model_dump_json())) == resolved


def test_choosing_another_alternative_drops_the_recipes_settings_for_it():
    resolved = resolve(job(recipe="gkd", method={"objective": {"route": "log_ratio"}, "support": {"kind": "sampled"}}))
    assert resolved.method["objective"]["divergence"] == "reverse_kl"
    nested = resolve(job(recipe="exopd", method={"objective": {"target": {"kind": "veto"}}}))
    assert nested.method["objective"]["route"] == "log_ratio"
    assert nested.method["objective"]["target"] == {"kind": "veto", "beta": 0.5}


def test_an_override_inside_a_variable_keeps_the_rest_of_it():
    credit = resolve(job(recipe="gae-opd", method={"credit": {"critic": {"hidden": 0}}})).method["credit"]
    assert (credit["estimator"], credit["critic"]["form"], credit["critic"]["hidden"]) == ("gae", "differential", 0)


def test_lists_are_replaced_as_a_whole():
    resolved = resolve(job(recipe="tip", method={"gates": [{"kind": "window", "stop": 5}]}))
    assert [gate["kind"] for gate in resolved.method["gates"]] == ["window"]
    emptied = resolve(job(recipe="stable-opd", method={"regularizers": []}))
    assert emptied.method["regularizers"] == []


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ({"objective": {"beta": 3}}, "method.objective.beta"),
        ({"objective": {"gamma": 1}}, "method.objective.gamma"),
        ({"objective": {"target": {"kind": "veto", "beta": 2}}}, "method.objective.target.beta"),
        ({"objectiv": {}}, "method.objectiv"),
        ({"support": {"kind": "some"}}, "method.support"),
        ({"objective": 5}, "method.objective"),
        ({"credit": {"critic": {"form": "some"}}}, "method.credit.critic.form"),
        ({"gates": {"kind": "tip"}}, "method.gates"),
        ({"gates": [{"kind": "tip"}, {"kind": "prune", "k": 0}]}, "method.gates.1.k"),
        ({"regularizers": [{"kind": "reference_kl", "wight": 1}]}, "method.regularizers.0.wight"),
    ],
)
def test_a_bad_override_names_its_field(method, where):
    with pytest.raises(UserError) as caught:
        resolve(job(recipe="gkd", method=method))
    assert caught.value.param == where
