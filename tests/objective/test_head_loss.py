"""The chunked path equals the dense one: value and every gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from opd_core.objective.feedback import Feedback, FeedbackContext
from opd_core.objective.loss import head_loss, plan_loss
from opd_core.objective.plan import build_plan
from opd_core.objective.targets import DenseTarget
from opd_core.recipes import load, names

V, H = 11, 5


class SmallHead(nn.Module):
    """A head in any precision, with bias, scale and soft-cap."""

    def __init__(self, dtype: torch.dtype, *, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.weight = nn.Parameter(torch.randn(V + 2, H, dtype=dtype))  # two padded rows
        self.bias = nn.Parameter(torch.randn(V + 2, dtype=dtype)) if bias else None

    def rows(self):
        return self.weight[:V], None if self.bias is None else self.bias[:V]

    def transform(self, raw):
        return 4.0 * torch.tanh(0.5 * raw / 4.0)

    def forward(self, hidden):
        weight, bias = self.rows()
        return self.transform(nn.functional.linear(hidden, weight, bias))


def make_plan(method, hidden, head, generator, *, route: bool = False):
    n = len(hidden)
    mask = torch.ones(1, n, dtype=torch.bool)
    tokens = torch.randint(V, (1, n), generator=generator)
    teacher = torch.randn(n, V, generator=generator, dtype=hidden.dtype)
    student = DenseTarget(head(hidden).detach())
    # Two sequences, so that groups and batches have something to compare.
    split = torch.tensor([[True] * 5 + [False] * (n - 5), [False] * 5 + [True] * (n - 5)]) if n > 5 else mask
    feedback = Feedback.from_rows(
        student,
        DenseTarget(teacher),
        tokens.expand(len(split), -1),
        split,
        context=FeedbackContext(
            reference=DenseTarget(teacher.flip(0)),
            reward=torch.arange(len(split)).to(hidden.dtype),
            group=torch.zeros(len(split)),
            from_data=torch.zeros(len(split), dtype=torch.bool),
        ),
    )
    zeros = torch.zeros(split.shape, dtype=hidden.dtype)
    plan = build_plan(method, replace(feedback, values=zeros, bootstrap=zeros[:, 0]))
    if route:
        ids = torch.randint(V, (n, 3), generator=generator)
        plan = replace(plan, route_ids=ids, route_weights=torch.randn(n, 3, generator=generator, dtype=hidden.dtype))
    return replace(plan, weights=torch.rand(n, generator=generator, dtype=hidden.dtype))


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(
    ("dtype", "tolerance", "rows_per_chunk", "bias"),
    [
        (torch.float64, 1e-12, 1, False),
        (torch.float64, 1e-12, 4, True),
        (torch.float64, 1e-12, 100, False),
        (torch.float32, 1e-6, 4, True),
    ],
)
def test_chunked_equals_dense(name, dtype, tolerance, rows_per_chunk, bias, generator):
    head = SmallHead(dtype, bias=bias)
    hidden = torch.randn(13, H, generator=generator, dtype=dtype, requires_grad=True)
    plan = make_plan(load(name).method, hidden, head, generator, route=True)
    inputs = [hidden, head.weight, *([head.bias] if bias else [])]

    dense_tokens = plan_loss(plan, head(hidden))
    dense = (dense_tokens * plan.weights).sum() / plan.normalizer
    expected = torch.autograd.grad(dense * 3.0, inputs)
    value, token_loss = head_loss(plan, hidden, head, chunk_budget=rows_per_chunk * V)
    found = torch.autograd.grad(value * 3.0, inputs)

    torch.testing.assert_close(value, dense, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(token_loss, dense_tokens.detach(), atol=tolerance, rtol=tolerance)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=10 * tolerance)
    assert float(found[1][V:].abs().sum()) == 0.0  # padded vocabulary rows get no gradient


@pytest.mark.parametrize("name", names())
def test_splitting_the_rows_changes_neither_loss_nor_gradients(name, generator):
    head = SmallHead(torch.float64, bias=True)
    hidden = torch.randn(13, H, generator=generator, dtype=torch.float64, requires_grad=True)
    plan = make_plan(load(name).method, hidden, head, generator)
    value, _ = head_loss(plan, hidden, head)
    whole = torch.autograd.grad(value, [hidden, head.weight])
    total = 0.0
    for rows in (slice(0, 5), slice(5, 5), slice(5, 6), slice(6, 13)):
        part, _ = head_loss(plan[rows], hidden[rows], head)
        part.backward()
        total += float(part.detach())
    assert total == pytest.approx(float(value.detach()), abs=1e-12)
    torch.testing.assert_close(hidden.grad, whole[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(head.weight.grad, whole[1], atol=1e-12, rtol=0)


def test_gradients_are_given_away_once(generator):
    head = SmallHead(torch.float32, bias=False)
    hidden = torch.randn(4, H, generator=generator, requires_grad=True)
    value, _ = head_loss(make_plan(load("forward-kl").method, hidden, head, generator), hidden, head)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken before"):
        value.backward()


def test_a_frozen_head_gets_no_gradient(generator):
    head = SmallHead(torch.float32, bias=False).requires_grad_(False)
    hidden = torch.randn(4, H, generator=generator, requires_grad=True)
    value, _ = head_loss(make_plan(load("forward-kl").method, hidden, head, generator), hidden, head)
    value.backward()
    assert hidden.grad is not None
    assert head.weight.grad is None


def test_a_float32_head_gathers_the_gradients_of_bfloat16_hidden_states_from_every_chunk(generator):
    head = SmallHead(torch.float32, bias=True)
    hidden = torch.randn(13, H, generator=generator)
    plan = make_plan(load("forward-kl").method, hidden, head, generator)
    live = hidden.bfloat16().requires_grad_()
    found = {}
    for rows in (4, 100):
        value, _ = head_loss(plan, live, head, chunk_budget=rows * V)
        found[rows] = torch.autograd.grad(value, [live, head.weight, head.bias])
    exact = head_loss(plan, hidden.requires_grad_(), head)[0]
    expected = torch.autograd.grad(exact, [hidden, head.weight, head.bias])
    for pieces, whole, precise in zip(found[4], found[100], expected, strict=True):
        assert pieces.dtype == whole.dtype
        coarse = 2e-2 * float(precise.abs().max())  # bfloat16 has eight bits
        torch.testing.assert_close(pieces.float(), whole.float(), atol=coarse, rtol=0)
        torch.testing.assert_close(pieces.float(), precise, atol=coarse, rtol=0)
    assert found[4][1].dtype == torch.float32
