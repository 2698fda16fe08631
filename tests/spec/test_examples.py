"""Every example in examples/ is a job that the service would take."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from opd_core.recipes import resolve
from opd_core.spec import JobSpec

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_accepted_and_says_what_it_shows(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")
    resolve(JobSpec.model_validate(yaml.safe_load(text)))


def test_every_kind_of_teacher_and_of_state_has_an_example():
    specs = [JobSpec.model_validate(yaml.safe_load(path.read_text())) for path in EXAMPLES.rglob("*.yaml")]
    voices = [voice for spec in specs if spec.teacher for _, voice in spec.voices()]
    assert {voice.self_.weights for voice in voices if voice.self_} == {"initial", "current", "ema"}
    assert any(spec.teacher.mixture and spec.teacher.mixture[0].tags for spec in specs if spec.teacher)
    rollouts = [spec.rollout for spec in specs]
    assert any(rollout.written_by.teacher for rollout in rollouts)
    assert any(rollout.written_by.data for rollout in rollouts)
    assert any(rollout.teacher_mix for rollout in rollouts)
    assert any(rollout.replay for rollout in rollouts)
    assert any(spec.task.tool for spec in specs)
    assert {rollout.prefix.of for rollout in rollouts if rollout.prefix} == {"data", "teacher"}
