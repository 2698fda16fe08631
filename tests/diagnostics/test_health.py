"""The length alarms: they name what happened, once, and are silent on what is normal."""

from __future__ import annotations

import json

import pytest

from opd_core.diagnostics.health import observe


def watch(lengths, cut=None, state=None, start=1):
    """All findings over the steps, and the last state; the state goes through JSON like in a checkpoint."""
    found, state = [], state or {}
    for step, (length, truncated) in enumerate(zip(lengths, cut or [0.0] * len(lengths), strict=True), start):
        state, new = observe(json.loads(json.dumps(state)), step, length_mean=length, truncated=truncated)
        found += new
    return found, state


def test_a_collapse_is_named_once_with_its_numbers():
    found, _ = watch([20.0] * 10 + [2.0] * 40)
    assert [finding["check"] for finding in found] == ["early_stopping"]
    finding = found[0]
    # 20 x 0.8^n + 2 x (1 - 0.8^n) is below 10 from the fourth step of the collapse on.
    assert finding["since_step"] == 14
    assert finding["value"] == pytest.approx(2 + 18 * 0.8**8)
    assert "since step 14" in finding["sentence"]
    assert "20.0 in the first 5 steps" in finding["sentence"]
    assert "credit.critic.form 'differential'" in finding["sentence"]
    assert "\n" not in finding["sentence"]


@pytest.mark.parametrize(
    "lengths",
    [
        [20.0] * 60,
        [20.0] * 10 + [11.0] * 50,  # shorter, but not by half
        [20.0] * 10 + [2.0] * 4 + [20.0] * 40,  # a short spell
        [2.0] * 60,  # short from the start: the task is like that
        [20.0, 1.0] * 30,  # noise
    ],
)
def test_no_alarm_without_a_collapse(lengths):
    assert watch(lengths)[0] == []


def test_an_explosion_of_length_is_named():
    found, _ = watch([20.0] * 50, [0.1] * 10 + [0.9] * 40)
    assert [finding["check"] for finding in found] == ["length_explosion"]
    assert "rollout.max_new_tokens" in found[0]["sentence"]
    assert found[0]["since_step"] == 14


def test_a_cap_that_was_too_low_from_the_start_is_no_explosion():
    assert watch([20.0] * 50, [0.6] * 50)[0] == []


def test_a_second_spell_is_no_second_alarm():
    found, _ = watch([20.0] * 10 + [2.0] * 30 + [20.0] * 30 + [2.0] * 30)
    assert len(found) == 1


def test_both_directions_in_one_run():
    found, _ = watch([20.0] * 5 + [36.0] * 30 + [1.0] * 30, [0.0] * 5 + [1.0] * 30 + [0.0] * 30)
    assert [finding["check"] for finding in found] == ["length_explosion", "early_stopping"]


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_resumed_run_finds_the_same(cut):
    lengths, truncated = [20.0] * 10 + [2.0] * 40, [0.1] * 12 + [0.8] * 38
    whole, last = watch(lengths, truncated)
    first, state = watch(lengths[:cut], truncated[:cut])
    second, end = watch(lengths[cut:], truncated[cut:], state, cut + 1)
    assert first + second == whole
    assert end == last
    assert len(whole) == 2
