"""The submit form makes the spec that the user means, and not a word more."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.shaping import specs
from dashboard.shaping.schema import fields_of
from opd_core.recipes import load, names, resolve
from opd_core.spec import JobSpec

ROOT = Path(__file__).parents[2]
FIELDS = fields_of(JobSpec.model_json_schema())
METHODS = {name: load(name).method.model_dump(mode="json") for name in names()}


def built(method: dict, recipe: str = "forward-kl", **sections: object) -> dict:
    values = JobSpec.model_validate({**specs.DEMO_SPEC, **sections, "recipe": recipe}).model_dump(mode="json")
    return specs.build(values, method, recipe, METHODS[recipe], FIELDS, load(recipe).brings.brief())


def test_the_prefilled_spec_is_the_demo_job() -> None:
    assert yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text(encoding="utf-8")) == specs.DEMO_SPEC
    JobSpec.model_validate(specs.DEMO_SPEC)


def test_what_is_at_its_default_is_left_out_and_nothing_else() -> None:
    spec = built(METHODS["forward-kl"])
    assert "method" not in spec
    assert "seed" not in spec
    assert spec["optimizer"] == {"lr": 0.002}
    assert list(spec)[:5] == ["name", "student", "teacher", "task", "recipe"]
    assert JobSpec.model_validate(spec) == JobSpec.model_validate(specs.DEMO_SPEC)


def test_a_changed_field_of_the_method_is_the_only_override() -> None:
    method = json.loads(json.dumps(METHODS["gae-cr-opd"]))
    method["credit"]["gamma"] = 0.5
    method["credit"]["critic"]["hidden"] = 8
    spec = built(method, "gae-cr-opd")
    assert spec["method"] == {"credit": {"gamma": 0.5, "critic": {"hidden": 8}}}


@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from(names()), wanted=st.sampled_from(names()))
def test_any_method_can_be_reached_from_any_recipe(start: str, wanted: str) -> None:
    """The override that the form makes gives, laid over the recipe by the service, the method that was filled in."""
    # A recipe whose rows are all from data is no start for a method that samples.
    spec = built(METHODS[wanted], start, rollout={"samples_per_prompt": 4, "written_by": {"student": 1.0}})
    if "golden" in {one["kind"] for one in METHODS[wanted]["regularizers"]}:
        return
    assert resolve(JobSpec.model_validate(spec)).method == METHODS[wanted]


@pytest.mark.parametrize("recipe", names())
def test_every_recipe_of_the_gallery_starts_with_a_spec_that_is_accepted(recipe: str) -> None:
    spec = specs.with_recipe(specs.DEMO_SPEC, recipe, list(load(recipe).needs), load(recipe).brings.brief())
    assert spec["name"] == f"demo-{recipe}"
    assert ("self" in spec["teacher"]) == (load(recipe).brings.teacher is not None)
    resolve(JobSpec.model_validate(spec))


def test_another_recipe_keeps_what_was_filled_in_without_the_method() -> None:
    base = {**specs.DEMO_SPEC, "seed": 7, "method": {"objective": {"temperature": 2.0}}}
    again = specs.with_recipe(specs.with_recipe(base, "gkd", []), "tip", [])
    assert (again["seed"], again["name"], again["recipe"]) == (7, "demo-tip", "tip")
    assert "method" not in again


def test_a_fork_names_where_it_starts() -> None:
    spec = specs.fork({**specs.DEMO_SPEC, "name": "x" * 96}, "job_1", "ckpt_1")
    assert spec["from"] == {"job": "job_1", "checkpoint": "ckpt_1"}
    assert JobSpec.model_validate(spec).from_ is not None
    assert built(METHODS["forward-kl"], **{"from": spec["from"]})["from"] == spec["from"]


def test_the_commands_carry_the_exact_spec() -> None:
    spec = {**specs.DEMO_SPEC, "metadata": {"note": "it's $HOME `date`"}}
    words = shlex.split(specs.as_curl(spec, "http://127.0.0.1:1"))
    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:1/v1/jobs"]
    assert json.loads(words[words.index("-d") + 1]) == spec
    first, *body, last = specs.as_command(spec).splitlines()
    assert (first, last) == ("opd submit - <<'SPEC'", "SPEC")
    assert json.loads("\n".join(body)) == spec
