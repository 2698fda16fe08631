"""Support: which tokens of the vocabulary are compared at a state, and what happens to the rest.

A divergence on a top-k support compares coarsened distributions: the k tokens, and either one bucket for all the others
(tail, SDPO arXiv 2601.20802 eq. 4: a true divergence that also moves mass into and out of the support) or nothing
(renormalised, LSM arXiv 2603.25562: blind to mass outside the support), or the k masses as they are (generalised, Ma et
al. arXiv 2606.30406 eq. 5; raw). All but raw vanish at student = teacher, in value and gradient. The error of the tail
form for the reverse KL is pi(rest) x KL of the two rests, by the chain rule: it is governed by the student's mass
outside the support, so that is reported.
"""

from __future__ import annotations

import math
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


_NOWHERE = -1e4  # a log-probability that no sum notices, and that has a gradient where there is no other


def coarsen(logp: Tensor, tokens: TokenSet, remainder: Remainder) -> Tensor:
    """Log-probabilities [N, V] -> those of the tokens [N, K]: with a bucket of all others [N, K + 1] (tail),
    renormalised, or as they are (generalised, raw).

    Tokens that are not kept have probability 0; the bucket has at least the precision's epsilon. A row without any
    token says nothing: its bucket is 1, a renormalised one is uniform.
    """
    inside = logp.gather(1, tokens.ids).masked_fill(~tokens.keep, -torch.inf)
    if remainder == "renormalised":
        return inside.masked_fill(~tokens.keep.any(1, keepdim=True), 0.0).log_softmax(1)
    if remainder != "tail":
        return inside
    # The others are added up: what the tokens leave to 1 would be all rounding where that is little, and the teacher
    # leaves little just where a student that leaves more has most to hear. The bucket keeps the smallest mass that the
    # precision can tell from none: exactly none would make a KL infinite.
    taken = torch.zeros_like(logp, dtype=torch.int8).scatter_add_(1, tokens.ids, tokens.keep.to(torch.int8)) > 0
    others = logp.masked_fill(taken, _NOWHERE).logsumexp(1, keepdim=True)
    bucket = others.clamp(min=math.log(torch.finfo(logp.dtype).eps))
    return torch.cat([inside, bucket.masked_fill(~tokens.keep.any(1, keepdim=True), 0.0)], 1)


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
