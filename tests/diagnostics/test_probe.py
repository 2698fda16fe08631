"""The probe tells the truth about one step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from opd_core.diagnostics import probe as module
from opd_core.diagnostics.probe import Probe
from opd_core.diagnostics.records import token_rows
from opd_core.objective.feedback import Feedback
from opd_core.objective.loss import force
from opd_core.objective.plan import build_plan
from opd_core.objective.targets import HiddenTarget
from opd_core.recipes import load, names


@pytest.mark.parametrize("name", names())
def test_predicted_equals_realised_where_states_share_nothing(name, world, complete, monkeypatch):
    _, rollouts, own, theirs = world
    logits = own.head(own.hidden).detach()
    student = HiddenTarget(logits, nn.Identity())
    method = load(name).method
    plan = build_plan(method, complete(method, student, theirs, rollouts))
    rows = torch.arange(int(rollouts.lengths[:2].sum()))
    probe = Probe(rollouts=rollouts, plan=plan, student=student, sequences=[0, 1], rows=rows)

    step = 1e-3
    moved = logits + step * plan.weights[:, None] * force(plan, logits)
    monkeypatch.setattr(module, "completion_hidden", lambda _trunk, _batch: moved[rows])
    probe.measure(nn.Identity())
    assert probe.eta == pytest.approx(step, rel=0.02)
    largest = max(abs(v) for c in probe.columns().values() for v in c["probe_realised"])
    assert largest > 0
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
