"""The critic's head: starts at the mean, depends on its seed alone, learns what can be read off the hidden state."""

from __future__ import annotations

import pytest
import torch

from opd_core.models import ValueHead


@pytest.mark.parametrize("width", [0, 16])
def test_it_starts_at_the_mean(width):
    hidden = torch.randn(5, 12) * 100
    head = ValueHead(12, width, seed=0)
    assert head(hidden).tolist() == [0.0] * 5
    assert head(hidden, -2.5, 3.0).tolist() == [-2.5] * 5


@pytest.mark.parametrize("width", [0, 16])
def test_its_output_is_mean_plus_std_times_raw_whatever_the_scale_of_the_trunk(width):
    hidden = torch.randn(5, 12)
    head = ValueHead(12, width, seed=0)
    torch.nn.init.normal_(head.last.weight)
    raw = head(hidden)
    assert raw.shape == (5,)
    assert float(raw.detach().abs().min()) > 0
    torch.testing.assert_close(head(hidden, -2.0, 0.5), -2.0 + 0.5 * raw)
    torch.testing.assert_close(head(1000 * hidden + 7), raw, atol=1e-4, rtol=1e-4)


def test_its_weights_come_from_its_seed_and_touch_no_other_randomness():
    before = torch.get_rng_state()
    first, again, other = (ValueHead(12, 16, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.inner.weight, again.inner.weight)
    assert not torch.equal(first.inner.weight, other.inner.weight)
    assert float(first.inner.weight.detach().std()) > 0.1


@pytest.mark.parametrize("width", [0, 16])
def test_it_learns_a_value_far_from_order_one(width):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(256, 8, generator=generator)
    target = -40.0 + 10.0 * torch.nn.functional.layer_norm(hidden, (8,))[:, 0]
    head = ValueHead(8, width, seed=0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=0.0)
    mean, std = float(target.mean()), float(target.std())
    for _ in range(300):
        loss = ((head(hidden, mean, std) - target) / std).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.02


def test_it_computes_in_float32_under_autocast():
    head = ValueHead(12, 16, seed=0)
    torch.nn.init.normal_(head.last.weight)
    hidden = torch.randn(5, 12).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(hidden)
    assert found.dtype == torch.float32
    assert torch.equal(found, head(hidden.float()))
