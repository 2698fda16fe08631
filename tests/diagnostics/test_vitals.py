import math
import random
from dataclasses import replace

import pytest
import torch

from opd_core.diagnostics.vitals import of_batch, of_favourites, quantiles
from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.plan import build_plan
from opd_core.recipes import load

NOBODY = [None, None, None]


def update(name="vopd", lengths=(3, 5, 4), context=None):
    generator = torch.Generator().manual_seed(0)
    shape = (len(lengths), max(lengths), 7)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    student, teacher = (torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))
    tokens = torch.randint(7, shape[:2], generator=generator)
    feedback = Feedback.from_logits(student, teacher, tokens, mask, context=context)
    return feedback, build_plan(load(name).method, feedback)


def vitals(feedback, plan, correct=NOBODY, texts=("", "", ""), same_policy=True):
    return of_batch(feedback, plan, correct=correct, texts=texts, same_policy=same_policy)


def test_a_teacher_that_tells_right_from_wrong_is_informative():
    feedback, plan = update()
    means = [float(row[m].mean()) for row, m in zip(feedback.log_ratio, feedback.mask, strict=True)]
    best = means.index(max(means))
    assert vitals(feedback, plan, [n == best for n in range(3)])["informativeness"] == 1.0
    assert vitals(feedback, plan, [n != best for n in range(3)])["informativeness"] == 0.0
    middle = sorted(means)[1]
    assert vitals(feedback, plan, [mean == middle for mean in means])["informativeness"] == 0.5
    assert "informativeness" not in vitals(feedback, plan, [True, True, None])


def test_the_loudest_token_carries_its_share():
    feedback, plan = update()
    r = feedback.log_ratio[feedback.mask]
    found = vitals(feedback, plan)
    assert found["log_ratio_loudest"] == pytest.approx(float(r.abs().max() / r.abs().sum()))
    assert found["log_ratio_p01"] == pytest.approx(float(r.float().quantile(0.01)))
    assert found["signal_p99"] == pytest.approx(float(plan.coefficients.abs().float().quantile(0.99)))


@pytest.mark.parametrize("size", [1, 2, 3, 101, 4096])
def test_quantiles_are_those_of_torch(size):
    values = torch.randn(size, generator=torch.Generator().manual_seed(size), dtype=torch.float64)
    levels = [0.0, 0.01, 0.25, 0.5, 0.99, 1.0]
    expected = values.float().quantile(torch.tensor(levels)).tolist()
    assert quantiles(values, *levels) == pytest.approx(expected, abs=1e-6)
    assert quantiles(values.view(1, -1), 0.99) == quantiles(values, 0.99)
    assert all(math.isnan(found) for found in quantiles(values.index_fill(0, torch.tensor(0), math.nan), 0.01, 0.99))


def test_quantiles_of_more_numbers_than_torch_takes():
    values = torch.arange(2**24 + 2) % 256
    with pytest.raises(RuntimeError, match="too large"):
        values.float().quantile(0.99)
    assert quantiles(values, 0.01, 0.5, 0.99) == [2.0, 127.0, 253.0]


def test_correlation_of_return_and_log_ratio():
    feedback, plan = update()
    returns, r = plan.view.returns[feedback.mask], feedback.log_ratio[feedback.mask]
    expected = float(torch.corrcoef(torch.stack([returns, r]))[0, 1])
    assert vitals(feedback, plan)["credit_correlation"] == pytest.approx(expected)
    assert "credit_correlation" not in vitals(*update("forward-kl"))


def test_the_gap_between_writing_and_reading():
    feedback, plan = update()
    behaviour = feedback.student_logp + 0.25 * feedback.mask
    told = replace(feedback, context=FeedbackContext(behaviour_logp=behaviour))
    assert vitals(told, plan)["engine_gap"] == pytest.approx(0.25)
    assert "engine_gap" not in vitals(told, plan, same_policy=False)
    assert "engine_gap" not in vitals(feedback, plan)


def test_texts_that_repeat_themselves_are_noticed():
    feedback, plan = update()
    letters = random.Random(0)
    varied = "".join(letters.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(600))
    assert vitals(feedback, plan, texts=["again and " * 60] * 3)["repetition"] > 0.8
    assert vitals(feedback, plan, texts=[varied] * 3)["repetition"] == 0.0
    assert "repetition" not in vitals(feedback, plan, texts=["again and again"] * 3)


def test_overlap_and_tails_of_favourites():
    p = torch.tensor([[0.5, 0.3, 0.1, 0.05, 0.02, 0.01, 0.01, 0.005]])
    top = {
        "student_top_ids": torch.arange(8)[None],
        "teacher_top_ids": torch.arange(4, 12)[None],  # shares 4, 5, 6 and 7
        "student_top_logp": p.log(),
        "teacher_top_logp": p.log(),
    }
    found = of_favourites(top)
    assert found["overlap"] == 0.5
    assert found["overlap_mass"] == pytest.approx(0.95)
    assert found["tail_student_8"] == pytest.approx(1 - 0.995, abs=1e-6)
    assert "tail_student_16" not in found
    assert of_favourites({name: values[:0] for name, values in top.items()}) == {}


def test_every_number_is_finite_for_an_impossible_token():
    feedback, plan = update()
    feedback.log_ratio[0, 0] = -1e4
    assert all(math.isfinite(value) for value in vitals(feedback, plan).values())
