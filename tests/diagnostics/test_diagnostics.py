"""The probe tells the truth about one step; the self-check sees what is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from opd_core.diagnostics.probe import Probe
from opd_core.diagnostics.records import choose_sequences, token_rows
from opd_core.diagnostics.self_check import TOLERANCE, self_check
from opd_core.models import load_model
from opd_core.objective.feedback import Feedback
from opd_core.objective.plan import build_plan
from opd_core.objective.targets import HiddenTarget
from opd_core.recipes import load, names
from opd_core.rollout import completion_hidden, uniform_noise, write
from opd_core.spec import ModelSpec
from opd_core.teachers import score

PROMPTS = [[5, 6, 7, 8], [9], [10, 11], [12, 13, 14]]


@pytest.fixture(scope="module")
def world(tiny_world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPD_MODEL_ROOTS", str(tiny_world.root))
        student, teacher = (
            load_model(ModelSpec(model=str(path)), device="cpu", trainable=role == "student", role=role)
            for role, path in (("student", tiny_world.student), ("teacher", tiny_world.teacher))
        )
    noise = uniform_noise(0, 1, [(i, 0) for i in range(len(PROMPTS))], 10)
    rollouts = write(student, PROMPTS, max_new_tokens=10, noise=noise)
    with torch.no_grad():
        own = HiddenTarget(completion_hidden(student.trunk, rollouts), student.head)
        theirs = score(teacher, rollouts, micro_tokens=10_000)
    return student, rollouts, own, theirs


class FreeLogits(nn.Module):
    """A student without shared parameters: the first-order law must then be exact to first order."""

    def __init__(self, hidden):
        super().__init__()
        self.table = nn.Parameter(hidden)


@pytest.mark.parametrize("name", names())
def test_predicted_equals_realised_where_states_share_nothing(name, world, monkeypatch):
    _, rollouts, own, theirs = world
    logits = own.head(own.hidden).detach()
    student = HiddenTarget(logits, nn.Identity())
    feedback = Feedback.from_rows(student, theirs, rollouts.tokens, rollouts.mask)
    plan = build_plan(load(name).method, feedback)
    rows = torch.arange(int(rollouts.lengths[:2].sum()))
    probe = Probe(rollouts=rollouts, plan=plan, student=student, sequences=[0, 1], rows=rows)

    from opd_core.diagnostics import probe as module
    from opd_core.objective.loss import force

    step = 1e-3
    moved = logits + step * force(plan, logits)
    monkeypatch.setattr(module, "completion_hidden", lambda _trunk, _batch: moved[rows])
    probe.measure(nn.Identity())
    assert probe.eta == pytest.approx(step, rel=0.02)
    largest = max(abs(v) for c in probe.columns().values() for v in c["probe_realised"])
    for column in probe.columns().values():
        for predicted, realised in zip(column["probe_predicted"], column["probe_realised"], strict=True):
            assert predicted == pytest.approx(realised, abs=0.02 * largest)


def test_probe_sees_the_real_student_move(world):
    student, rollouts, own, theirs = world
    plan = build_plan(load("forward-kl").method, Feedback.from_rows(own, theirs, rollouts.tokens, rollouts.mask))
    span = token_rows(rollouts.lengths, 2)
    rows = torch.tensor([span.start, span.stop - 1])
    probe = Probe(rollouts=rollouts, plan=plan, student=own, sequences=[2], rows=rows)
    with pytest.raises(RuntimeError, match="not been measured"):
        probe.columns()
    probe.measure(student.trunk)
    # Nothing was updated: what moved is rounding between a batch of one and a batch of four.
    assert all(abs(v) < 1e-6 for c in probe.columns().values() for v in c["probe_realised"])
    columns = probe.columns()
    assert list(columns) == rows.tolist()
    for row in rows.tolist():
        assert int(plan.tokens[row]) in columns[row]["probe_ids"]


def test_recorded_routes_are_the_plans_without_their_padding(world):
    from opd_core.diagnostics.records import Recorder, Text

    _, rollouts, own, theirs = world
    feedback = Feedback.from_rows(own, theirs, rollouts.tokens, rollouts.mask)
    plan = build_plan(load("cr-opd").method, feedback)
    everything = range(len(rollouts))
    recorder = Recorder(
        rollouts=rollouts,
        feedback=feedback,
        plan=plan,
        student=own,
        sequences=everything,
        top_k=4,
        probe_states=0,
    )
    texts = [Text(n, "p", "c", None, None) for n in everything]
    rows = recorder.rows(step=1, attempt=1, texts=texts)
    ids = [token for row in rows for token in row["route_ids"]]
    weights = [token for row in rows for token in row["route_weights"]]
    assert any(ids)
    for n in range(len(plan)):
        expected = {int(i): float(w) for i, w in zip(plan.route_ids[n], plan.route_weights[n], strict=True) if w != 0}
        assert dict(zip(ids[n], weights[n], strict=True)) == expected


@pytest.mark.parametrize("name", names())
def test_self_check_of_a_sound_run(name, world):
    _, rollouts, own, theirs = world
    found = self_check(load(name).method, rollouts, own, theirs)
    assert found.force_at_teacher < TOLERANCE < found.force
    assert set(found.alignment) == {"-1", "0", "+1"}


def test_self_check_knows_what_is_optimised(world):
    _, rollouts, own, theirs = world
    assert self_check(load("reverse-kl").method, rollouts, own, theirs).cosine_to_reverse_kl == pytest.approx(1.0)
    assert self_check(load("forward-kl").method, rollouts, own, theirs).cosine_to_reverse_kl < 0.99


def test_self_check_sees_shifted_teacher_scores(world):
    """A teacher that scores like the student is best aligned where it stands, and worse one off either way."""
    _, rollouts, own, _ = world
    method = load("forward-kl").method
    assert self_check(method, rollouts, own, own).aligned
    for shift in (-1, 1):
        moved = replace(own, hidden=own.hidden.roll(shift, 0))
        assert not self_check(method, rollouts, own, moved).aligned


def test_self_check_copes_with_one_token_answers(world):
    student, _, _, _ = world
    rollouts = write(student, PROMPTS, max_new_tokens=1, noise=None)
    with torch.no_grad():
        own = HiddenTarget(completion_hidden(student.trunk, rollouts), student.head)
    found = self_check(load("forward-kl").method, rollouts, own, own)
    assert found.alignment == {"-1": 0.0, "0": 0.0, "+1": 0.0}
    assert found.aligned


def test_chosen_sequences_are_a_uniform_sample_of_their_own():
    assert choose_sequences(0, 1, 100, 8) == choose_sequences(0, 1, 100, 8)
    assert choose_sequences(0, 1, 100, 8) != choose_sequences(0, 2, 100, 8)
    assert choose_sequences(0, 1, 3, 8) == [0, 1, 2]
    counts = torch.zeros(20)
    for step in range(2000):
        counts[choose_sequences(0, step, 20, 4)] += 1
    assert float((counts / 2000 - 0.2).abs().max()) < 0.04
