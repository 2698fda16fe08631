"""From logits to the sampled token and its exact log-probability under the sampling settings."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def behaviour_log_probs(logits: Tensor, *, temperature: float, top_p: float) -> Tensor:
    """Log-probabilities [B, V] that sampling really uses: tempered, cut to the top-p nucleus, renormalised.

    The nucleus is the smallest set of most probable tokens whose mass reaches ``top_p``; the rest is -inf.
    """
    logp = (logits.float() / temperature).log_softmax(-1)
    if top_p >= 1.0:
        return logp
    ordered, order = logp.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before < top_p)
    return logp.masked_fill(~kept, -torch.inf).log_softmax(-1)


def mixed(own: Tensor, other: Tensor, share: float) -> Tensor:
    """Log-probabilities [B, V] of share x other + (1 - share) x own (arXiv 2306.08543, teacher-mixed sampling)."""
    return torch.logaddexp(own + math.log1p(-share), other + math.log(share))


def sample(logp: Tensor, uniform: Tensor) -> Tensor:
    """Tokens [B] by inversion of the distribution function at uniform numbers [B] in [0, 1)."""
    # float64: at V = 150k the rounding of a float32 cumulative sum exceeds the mass of many tokens.
    cumulative = logp.double().exp().cumsum(-1)
    threshold = uniform.to(cumulative)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0].clamp(max=logp.shape[-1] - 1)
