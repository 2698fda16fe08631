"""The submit form makes the spec that the user means."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from dashboard.shaping import specs
from opd_core.spec import JobSpec

ROOT = Path(__file__).parents[2]


def test_the_prefilled_spec_is_the_demo_job() -> None:
    assert yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text(encoding="utf-8")) == specs.DEMO_SPEC
    JobSpec.model_validate(specs.DEMO_SPEC)


def test_form_and_spec_are_inverse() -> None:
    assert specs.spec(specs.fields(specs.DEMO_SPEC)) == specs.DEMO_SPEC


def test_a_spec_with_a_file_and_overrides_survives() -> None:
    spec = specs.DEMO_SPEC | {
        "task": {"dataset": "/data/sums.jsonl", "prompt_column": "question"},
        "method": {"objective": {"beta": 0.3}},
        "student": {"model": "Qwen/Qwen3-0.6B", "revision": "main"},
    }
    assert specs.spec(specs.fields(spec)) == spec


def test_a_spec_written_out_in_full_survives() -> None:
    spec = JobSpec.model_validate(specs.DEMO_SPEC).model_dump(mode="json")
    again = JobSpec.model_validate(specs.spec(specs.fields(spec)))
    assert again == JobSpec.model_validate(specs.DEMO_SPEC)


def test_inputs_win_over_advanced() -> None:
    form = dataclasses.replace(
        specs.fields(specs.DEMO_SPEC),
        steps=7,
        task=" /data/x.csv ",
        advanced=json.dumps({"schedule": {"steps": 99, "evaluate_every": 5}, "name": "other"}),
    )
    built = specs.spec(form)
    assert built["schedule"] == {"steps": 7, "evaluate_every": 5}
    assert built["name"] == "demo-forward-kl"
    assert built["task"] == {"dataset": "/data/x.csv"}


@pytest.mark.parametrize(
    ("advanced", "complaint"),
    [
        ('{\n"a": }', "Advanced JSON, line 2: "),
        ("[]", "must be an object"),
        ('{"task": 3}', "task must be an object"),
    ],
)
def test_bad_json_is_one_sentence(advanced: str, complaint: str) -> None:
    with pytest.raises(specs.FormError, match=complaint):
        specs.spec(dataclasses.replace(specs.fields(specs.DEMO_SPEC), advanced=advanced))
