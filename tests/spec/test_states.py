"""Who teaches and who writes: what a spec may ask for, and what it has to give for it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from opd_core.recipes import load, resolve
from opd_core.spec import JobSpec, UserError, describe

BASE = {
    "name": "x",
    "student": {"model": "demo/student"},
    "teacher": {"model": "demo/teacher"},
    "task": {"name": "demo/word-problems"},
}
FILE = {"dataset": "/data/x.jsonl", "answer_column": "answer"}
SAMPLED = {"recipe": "tml-opd"}


def job(**changes) -> JobSpec:
    return JobSpec.model_validate({**BASE, **changes})


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ({}, "exactly one of model"),
        ({"model": "demo/teacher", "self": {}}, "exactly one of model"),
        ({"self": {"weights": "current"}}, "has nothing to teach it"),
        ({"self": {}, "revision": "main"}, "revision is only for a model"),
        ({"self": {}, "context": "no place"}, "write {prompt}"),
        ({"self": {}, "context": "{prompt} {secret}"}, "there is no {secret}"),
        ({"self": {"weights": "ema", "decay": 1.0}}, "less than 1"),
        ({"mixture": [{"model": "demo/teacher"}]}, "at least 2"),
        ({"mixture": [{"model": "demo/teacher"}, {"self": {}, "weight": 0.0}]}, "greater than 0"),
        ({"mixture": [{"model": "a/b"}, {"model": "c/d"}], "context": "{prompt}"}, "none of its own"),
        ({"model": "/models/../secret"}, "without '..'"),
        ({"self": {}, "tokenizer": {}}, "tokenizer is only for a model"),
        ({"endpoint": "big", "tokenizer": {}}, "tokenizer is only for a model"),
        ({"model": "a/b", "tokenizer": {"min_aligned": 0.0}}, "greater than 0"),
        ({"model": "a/b", "tokenizer": {"align": "sorted"}}, "'exact'"),
        ({"mixture": [{"model": "a/b", "tokenizer": {}}, {"self": {}}]}, "there is no such field"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused_with_the_reason(teacher, said):
    with pytest.raises(ValidationError) as raised:
        job(teacher=teacher)
    error = describe(raised.value)
    assert said in error.message
    assert error.param.startswith("teacher")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"teacher": None}, "teacher"),
        ({"teacher": {"self": {}, "context": "{prompt} {demonstration}"}, "task": FILE}, "task.demonstration_column"),
        (
            {"teacher": {"self": {}, "context": "{prompt} {answer}"}, "task": {"dataset": "/data/x.jsonl"}},
            "task.answer_column",
        ),
        ({"teacher": {"self": {}, "context": "{prompt} {solution}"}}, "rollout.samples_per_prompt"),
        (
            {"teacher": {"mixture": [{"model": "a/b", "tags": ["x"]}, {"model": "c/d"}]}, "task": FILE},
            "task.tag_column",
        ),
        ({"rollout": {"written_by": {"student": 0.5, "data": 0.5}}, "task": FILE}, "task.demonstration_column"),
        ({"rollout": {"prefix": {"of": "data"}}, "task": FILE}, "task.demonstration_column"),
        ({"rollout": {"written_by": {"student": 0.5, "data": 0.5}}, **SAMPLED}, "rollout.written_by.data"),
        ({"rollout": {"written_by": {"student": 0.0, "teacher": 1.0}, "replay": {}}}, "rollout.replay"),
        ({"method": {"regularizers": [{"kind": "golden"}]}}, "method.regularizers"),
    ],
)
def test_what_the_job_does_not_give_is_named(changes, param):
    with pytest.raises(UserError) as raised:
        resolve(job(**changes))
    assert raised.value.param == param
    assert param.split(".")[-1] in raised.value.message


def test_shares_add_up():
    with pytest.raises(ValidationError, match=r"add up to 1, these give 0\.9"):
        job(rollout={"written_by": {"student": 0.5, "teacher": 0.4}})


def test_golden_rows_are_accepted_on_either_route_where_data_writes():
    rollout = {"written_by": {"student": 0.75, "data": 0.25}}
    golden = {"regularizers": [{"kind": "golden"}]}
    for recipe in ("tml-opd", "forward-kl"):
        resolve(job(recipe=recipe, rollout=rollout, method=golden))


@pytest.mark.parametrize(
    ("rollout", "biased"),
    [
        ({}, False),
        ({"written_by": {"student": 0.5, "teacher": 0.5}}, True),
        ({"teacher_mix": 0.2}, True),
        ({"replay": {"share": 0.5}}, True),
        ({"prefix": {"of": "data"}}, False),  # the tokens that count are the student's own
    ],
)
def test_rows_of_others_bias_an_uncorrected_policy_gradient(rollout, biased):
    plain, corrected = (
        resolve(job(rollout=rollout, method={"importance": {"kind": kind}}, **SAMPLED)).warnings()
        for kind in ("none", "truncated")
    )
    assert any("with importance.kind 'none' it is biased" in sentence for sentence in plain) == biased
    assert not any("importance.kind 'none'" in sentence for sentence in corrected)


def test_privilege_is_warned_about():
    spec = resolve(job(teacher={"self": {}, "context": "{prompt} {answer}"}))
    assert any("can leak" in sentence for sentence in spec.warnings())
    assert not any("can leak" in sentence for sentence in resolve(job()).warnings())


def test_a_recipe_fills_what_the_job_leaves_open():
    data = {name: value for name, value in BASE.items() if name != "teacher"}
    spec = resolve(JobSpec.model_validate({**data, "recipe": "sdpo", "rollout": {"prompts_per_step": 5}}))
    assert spec.teacher == load("sdpo").brings.teacher
    assert (spec.rollout.samples_per_prompt, spec.rollout.prompts_per_step) == (4, 5)
    assert resolve(JobSpec.model_validate(spec.model_dump(mode="json"))) == spec
    own = resolve(job(recipe="sdpo", rollout={"samples_per_prompt": 2}))
    assert own.teacher.model == "demo/teacher"
    assert own.rollout.samples_per_prompt == 2


def test_every_model_is_listed_with_its_field():
    spec = job(teacher={"mixture": [{"model": "a/b"}, {"self": {}}, {"model": "/models/c", "tags": ["x"]}]})
    assert [(path, reference.model) for path, reference in spec.models()] == [
        ("student.model", "demo/student"),
        ("teacher.mixture.0.model", "a/b"),
        ("teacher.mixture.2.model", "/models/c"),
    ]


OTHER = {"teacher": {"model": "demo/teacher", "tokenizer": {}}}


@pytest.mark.parametrize(
    ("rollout", "param"),
    [
        ({"written_by": {"student": 0.5, "teacher": 0.5}}, "rollout"),
        ({"teacher_mix": 0.2}, "rollout"),
        ({"prefix": {"of": "data", "share": 0.5, "until": 1.0}}, "rollout.prefix"),
    ],
)
def test_a_teacher_with_another_tokenizer_writes_nothing(rollout, param):
    with pytest.raises(UserError, match=r"teacher\.tokenizer") as raised:
        resolve(job(rollout=rollout, recipe="forward-kl", **OTHER))
    assert raised.value.param == param


def test_what_a_teacher_with_another_tokenizer_cannot_say_is_warned_of():
    for recipe, over_time in (("forward-kl", False), ("vopd", False), ("return-to-go", True), ("gae-opd", True)):
        said = " ".join(resolve(job(recipe=recipe, **OTHER)).warnings())
        assert "student and teacher are compared where both tokenize alike" in said
        assert ("credit over time" in said) == over_time
        assert "tokenize alike" not in " ".join(resolve(job(recipe=recipe)).warnings())
