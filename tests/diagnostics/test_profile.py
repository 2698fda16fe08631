import math

import numpy as np
import torch

from opd_core.diagnostics.profile import profile
from opd_core.objective.feedback import Feedback
from opd_core.objective.plan import build_plan
from opd_core.recipes import load
from opd_core.runs.profiles import BINS, EDGES, QUANTILES, to_table


def update(name="ta-opd", lengths=(3, 5), vocabulary=7):
    generator = torch.Generator().manual_seed(0)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    student, teacher = (torch.randn(*shape, vocabulary, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(vocabulary, shape, generator=generator)
    feedback = Feedback.from_logits(student, teacher, tokens, mask)
    return feedback, build_plan(load(name).method, feedback)


def by_field(rows):
    return {row["field"]: row for row in rows}


def test_means_by_position_are_those_of_the_tokens_there():
    feedback, plan = update()
    row = by_field(profile(feedback, plan, max_new_tokens=BINS))["log_ratio"]
    assert row["tokens"][:6] == [2, 2, 2, 1, 1, 0]
    expected = [float(feedback.log_ratio[:, t][feedback.mask[:, t]].mean()) for t in range(5)]
    assert np.allclose(row["mean"][:5], expected, atol=1e-12)
    assert row["mean"][5] is None


def test_wider_bins_hold_neighbouring_positions():
    feedback, plan = update()
    row = by_field(profile(feedback, plan, max_new_tokens=2 * BINS))["kl"]
    assert (row["bin_width"], row["tokens"][:4]) == (2, [4, 3, 1, 0])
    assert math.isclose(row["mean"][1], float(feedback.kl[:, 2:4][feedback.mask[:, 2:4]].mean()))


def test_positions_count_the_students_tokens_alone():
    late = Feedback.from_logits(
        *(torch.randn(1, 6, 7, dtype=torch.float64) for _ in range(2)),
        torch.zeros(1, 6, dtype=torch.long),
        torch.tensor([[False, False, True, True, False, True]]),
    )
    row = by_field(profile(late, build_plan(load("ta-opd").method, late), max_new_tokens=BINS))["log_ratio"]
    assert row["tokens"][:4] == [1, 1, 1, 0]


def test_quantiles_and_histogram_cover_every_token():
    feedback, plan = update(lengths=(30, 40))
    row = by_field(profile(feedback, plan, max_new_tokens=BINS))["return"]
    values = plan.view.returns[feedback.mask].numpy()
    assert np.allclose(row["quantiles"], np.quantile(values, QUANTILES))
    assert sum(row["histogram"]) == 70
    below = sum(row["histogram"][: len(EDGES) // 2])  # the middle edge is zero
    assert below == int((values < 0).sum())


def test_what_is_no_number_is_not_counted():
    feedback, plan = update()
    plan.view.log_ratio[0, 0] = -torch.inf
    row = by_field(profile(feedback, plan, max_new_tokens=BINS))["log_ratio"]
    assert row["tokens"][0] == 1
    assert math.isfinite(row["quantiles"][0])


def test_every_gate_has_a_profile_and_a_critic_a_value():
    feedback, plan = update("ta-opd")
    rows = profile(feedback, plan, max_new_tokens=BINS)
    names = {row["field"] for row in rows}
    assert {f"gate:{name}" for name in plan.view.gate_by_name} < names
    assert "value" not in names
    assert to_table([{"step": 1, "attempt": 1, **row} for row in rows]).num_rows == len(rows)
