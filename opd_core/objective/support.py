"""Support: which tokens of the vocabulary are compared at a state, and what happens to the rest.

A divergence on a top-k support compares coarsened distributions: the k tokens, and either one bucket for all the others
(tail, SDPO arXiv 2601.20802 eq. 4: a true divergence that also moves mass into and out of the support) or nothing
(renormalised, LSM arXiv 2603.25562: blind to mass outside the support), or the k masses as they are (generalised, Ma et
al. arXiv 2606.30406 eq. 5; raw). All but raw vanish at student = teacher, in value and gradient. The error of the tail
form for the reverse KL is pi(rest) x KL of the two rests, by the chain rule: it is governed by the student's mass
outside the support, so that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.objective.candidates import Candidates
from opd_core.spec.variables.support import Remainder, TopKKind


@dataclass(frozen=True)
class TokenSet:
    """Up to K tokens of each of N rows; ``keep`` is False on ids that do not belong."""

    ids: Tensor  # [N, K]
    keep: Tensor  # [N, K] bool

    def __getitem__(self, rows: slice | Tensor) -> TokenSet:
        return TokenSet(self.ids[rows], self.keep[rows])


def choose_tokens(kind: TopKKind, candidates: Candidates, mass: float = 0.95) -> TokenSet:
    """The favourites of the teacher, of the student, of either, of both.

    ``adaptive``: the shortest prefix of the teacher's ranking that holds ``mass`` of the student.
    """
    teacher, student = candidates.teacher, candidates.student
    match kind:
        case "teacher_top_k":
            return TokenSet(teacher.ids, torch.ones_like(teacher.ids, dtype=torch.bool))
        case "student_top_k":
            return TokenSet(student.ids, torch.ones_like(student.ids, dtype=torch.bool))
        case "union":
            new = ~among(student.ids, teacher.ids)
            keep = torch.cat([torch.ones_like(teacher.ids, dtype=torch.bool), new], 1)
            return TokenSet(torch.cat([teacher.ids, student.ids], 1), keep)
        case "intersection":
            return TokenSet(teacher.ids, among(teacher.ids, student.ids))
        case "adaptive":
            held = teacher.student_logp.exp()
            return TokenSet(teacher.ids, held.cumsum(1) - held < mass)


def among(ids: Tensor, others: Tensor) -> Tensor:
    """[N, K] bool: which ``ids`` [N, K] of a row are in ``others`` [N, M] of the same row."""
    return (ids[:, :, None] == others[:, None, :]).any(2)


def coarsen(logp: Tensor, tokens: TokenSet, remainder: Remainder) -> Tensor:
    """Log-probabilities [N, V] -> those of the tokens [N, K]: with a bucket of all others [N, K + 1] (tail),
    renormalised, or as they are (generalised, raw).

    Tokens that are not kept have probability 0; the bucket has at least the precision's epsilon. A renormalised row
    without any token is uniform: it says nothing.
    """
    inside = logp.gather(1, tokens.ids).masked_fill(~tokens.keep, -torch.inf)
    if remainder == "renormalised":
        return inside.masked_fill(~tokens.keep.any(1, keepdim=True), 0.0).log_softmax(1)
    if remainder != "tail":
        return inside
    # Rounding can bring the sum to 1 or above. The bucket then keeps the smallest mass that the precision can tell from
    # none: exactly none would make a KL infinite wherever only one of the two models' sums is rounded up.
    mass = inside.logsumexp(1, keepdim=True).clamp(max=-torch.finfo(logp.dtype).eps)
    return torch.cat([inside, torch.log1p(-mass.exp())], 1)


def rest(logp: Tensor, tokens: TokenSet) -> Tensor:
    """[N, K] log-probabilities of the tokens -> [N] probability outside of the set."""
    return (1.0 - (logp.exp() * tokens.keep).sum(1)).clamp(min=0.0)


def logp_of(kind: TopKKind, candidates: Candidates, model: str) -> Tensor:
    """[N, K] log-probabilities of ``model`` (student, teacher) on what ``choose_tokens`` chooses from."""
    sides = {
        "student_top_k": (candidates.student,),
        "union": (candidates.teacher, candidates.student),
    }.get(kind, (candidates.teacher,))
    return torch.cat([getattr(side, f"{model}_logp") for side in sides], 1)
