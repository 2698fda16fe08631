"""Support: which tokens of the vocabulary are compared at a state, and what happens to the rest.

A divergence on a top-k support compares coarsened distributions: the k tokens, and either one bucket for all the others
(tail, SDPO arXiv 2601.20802 eq. 4: a true divergence that also moves mass into and out of the support) or nothing
(renormalised, LSM arXiv 2603.25562: blind to mass outside the support). Both vanish at student = teacher, in value and
gradient. The error of the tail form for the reverse KL is pi(rest) x KL of the two rests, by the chain rule: it is
governed by the student's mass outside the support, so that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.spec.method import Remainder, TopKKind


@dataclass(frozen=True)
class TokenSet:
    """Up to K tokens of each of N rows; ``keep`` is False on repeated ids."""

    ids: Tensor  # [N, K]
    keep: Tensor  # [N, K] bool

    def __getitem__(self, rows: slice | Tensor) -> TokenSet:
        return TokenSet(self.ids[rows], self.keep[rows])


def choose_tokens(kind: TopKKind, k: int, student_logp: Tensor, teacher_logp: Tensor) -> TokenSet:
    """The k most probable tokens of the teacher, of the student, or of both; log-probabilities [N, V]."""
    k = min(k, student_logp.shape[1])
    parts = []
    if kind in ("teacher_top_k", "union"):
        parts.append(teacher_logp.topk(k).indices)
    if kind in ("student_top_k", "union"):
        parts.append(student_logp.topk(k).indices)
    keep = [torch.ones_like(part, dtype=torch.bool) for part in parts]
    if kind == "union":
        keep[1] = (parts[1][:, :, None] != parts[0][:, None, :]).all(2)
    return TokenSet(torch.cat(parts, 1), torch.cat(keep, 1))


def coarsen(logp: Tensor, tokens: TokenSet, remainder: Remainder) -> Tensor:
    """Log-probabilities [N, V] -> those of the tokens and the bucket of all others [N, K + 1], or renormalised [N, K].

    Tokens that are not kept have probability 0; the bucket has at least the precision's epsilon.
    """
    inside = logp.gather(1, tokens.ids).masked_fill(~tokens.keep, -torch.inf)
    if remainder == "renormalised":
        return inside.log_softmax(1)
    # Rounding can bring the sum to 1 or above. The bucket then keeps the smallest mass that the precision can tell from
    # none: exactly none would make a KL infinite wherever only one of the two models' sums is rounded up.
    mass = inside.logsumexp(1, keepdim=True).clamp(max=-torch.finfo(logp.dtype).eps)
    return torch.cat([inside, torch.log1p(-mass.exp())], 1)
