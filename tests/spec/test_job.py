"""What a method needs of the rest of the job is checked at submission, in one sentence."""

from __future__ import annotations

import pytest

from opd_core.recipes import load, names, resolve
from opd_core.spec import JobSpec, UserError

FILE = {"dataset": "/data/problems.jsonl", "prompt_column": "question"}


def job(**changes) -> JobSpec:
    base = {
        "name": "x",
        "student": {"model": "demo/student"},
        "teacher": {"model": "demo/teacher"},
        "task": {"name": "demo/word-problems"},
        "rollout": {"samples_per_prompt": 2},
    }
    return JobSpec.model_validate({**base, **changes})


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_accepted_where_its_needs_are_met(name):
    resolve(job(recipe=name))
    resolve(job(recipe=name, task={**FILE, "answer_column": "answer", "demonstration_column": "worked"}))


@pytest.mark.parametrize("name", names())
def test_one_sample_per_prompt_has_no_group(name):
    single = job(recipe=name, rollout={"samples_per_prompt": 1})
    if "group" not in load(name).method.needs:
        resolve(single)
        return
    with pytest.raises(UserError) as caught:
        resolve(single)
    assert caught.value.param == "rollout.samples_per_prompt"
    assert "rollout.samples_per_prompt: 1 is too few" in caught.value.message
    assert "at least 2" in caught.value.message


def test_a_group_baseline_names_itself():
    with pytest.raises(UserError, match=r"credit\.baseline 'group'"):
        resolve(job(recipe="tml-opd", method={"credit": {"baseline": "group"}}, rollout={"samples_per_prompt": 1}))


@pytest.mark.parametrize("name", [name for name in names() if "reward" in load(name).method.needs])
def test_rewards_need_answers(name):
    with pytest.raises(UserError) as caught:
        resolve(job(recipe=name, task=FILE))
    assert caught.value.param == "task.answer_column"
    assert "task.answer_column: null" in caught.value.message


def test_golden_rows_are_refused_where_no_row_is_from_data():
    with pytest.raises(UserError, match="rows taken from data") as caught:
        resolve(job(method={"regularizers": [{"kind": "golden"}]}))
    assert caught.value.param == "method.regularizers"


@pytest.mark.parametrize(
    ("rollout", "importance", "words"),
    [
        ({}, "none", []),
        ({"temperature": 0.7}, "truncated", []),
        ({"temperature": 0.7}, "none", ["is biased"]),
        ({"top_p": 0.9}, "none", ["is biased", "never lets"]),
        ({"top_p": 0.9}, "truncated", ["never lets"]),
    ],
)
@pytest.mark.parametrize(("recipe", "sampled"), [("tml-opd", True), ("k2", True), ("forward-kl", False)])
def test_sampling_that_is_not_the_students_own_is_warned_of(rollout, importance, words, recipe, sampled):
    method = {"importance": {"kind": importance}}
    plain, found = (
        resolve(job(recipe=recipe, method=method, rollout=settings)).warnings() for settings in ({}, rollout)
    )
    new = [sentence for sentence in found if sentence not in plain]
    assert len(new) == (len(words) if sampled else 0)
    assert all(word in sentence for word, sentence in zip(words, new, strict=False))


def test_tempered_sampling_of_an_equally_tempered_loss_is_no_bias():
    method = {"importance": {"kind": "none"}, "objective": {"temperature": 0.7}}
    spec = resolve(job(recipe="tml-opd", method=method, rollout={"temperature": 0.7}))
    assert spec.warnings() == spec.method_spec().warnings()
