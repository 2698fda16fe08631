"""From logits to the sampled token and its exact log-probability under the sampling settings."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BLOCK = 512


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
    """Tokens [B] by inversion of the distribution function at uniform numbers [B] in [0, 1).

    First the block of tokens, then the token in it: a GPU adds up many blocks at once, but runs along a row one by one.
    """
    rows, vocabulary = logp.shape
    size = min(_BLOCK, vocabulary)
    # float64: at V = 150k the rounding of a float32 cumulative sum exceeds the mass of many tokens.
    mass = torch.nn.functional.pad(logp.double().exp(), (0, -vocabulary % size)).view(rows, -1, size)
    upto = mass.sum(2).cumsum(1)
    threshold = _below(uniform.to(upto)[:, None] * upto[:, -1:], upto[:, -1:])
    block = torch.searchsorted(upto, threshold, right=True)
    before = torch.where(block > 0, upto.gather(1, (block - 1).clamp(min=0)), 0.0)
    within = mass.gather(1, block[:, :, None].expand(-1, -1, size))[:, 0].cumsum(1)
    inside = torch.searchsorted(within, _below(threshold - before, within[:, -1:]), right=True)
    return (block * size + inside)[:, 0]


def _below(threshold: Tensor, total: Tensor) -> Tensor:
    """Rounding may put a threshold at the total or a last bit above: behind the last token that is possible at all."""
    return torch.minimum(threshold, total.nextafter(torch.zeros_like(total)))
