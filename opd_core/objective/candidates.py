"""Each row's favourites: the most probable tokens of student and teacher, with both models' log-probabilities.

Everything that looks at part of the vocabulary (supports, routes, gates) looks at these, so that the vocabulary is
scanned once and a recorded step can be planned again from what was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opd_core.spec import MethodSpec
from opd_core.spec.variables.routing import AopdRouting, ApoRouting, CounterfactualRouting, OutlierRouting
from opd_core.spec.variables.support import TopKSupport


@dataclass(frozen=True)
class TopTokens:
    """The K most probable tokens of one model in each of N rows, most probable first."""

    ids: Tensor  # [N, K]
    student_logp: Tensor  # [N, K]
    teacher_logp: Tensor  # [N, K]

    def first(self, k: int) -> TopTokens:
        """Only the first k."""
        return TopTokens(self.ids[:, :k], self.student_logp[:, :k], self.teacher_logp[:, :k])


@dataclass(frozen=True)
class Candidates:
    """Both models' favourites, K = min(k, V) each."""

    student: TopTokens
    teacher: TopTokens

    def first(self, k: int) -> Candidates:
        """Only the first k of each."""
        return Candidates(self.student.first(k), self.teacher.first(k))

    @property
    def k(self) -> int:
        return self.student.ids.shape[1]


def top_candidates(student_logp: Tensor, teacher_logp: Tensor, k: int, excluded: Sequence[int] = ()) -> Candidates:
    """From log-probabilities [N, V]; ``excluded`` token ids are nobody's favourites."""
    k = min(k, student_logp.shape[1])
    ranked = []
    for logp in (student_logp, teacher_logp):
        if excluded:
            logp = logp.index_fill(1, torch.tensor(excluded, device=logp.device), -torch.inf)
        ids = logp.topk(k).indices
        ranked.append(TopTokens(ids, student_logp.gather(1, ids), teacher_logp.gather(1, ids)))
    return Candidates(*ranked)


def join(parts: Sequence[Candidates]) -> Candidates:
    """Rows of several chunks as one."""

    def joined(side: str) -> TopTokens:
        tops = [getattr(part, side) for part in parts]
        return TopTokens(
            *(torch.cat([getattr(top, name) for top in tops]) for name in ("ids", "student_logp", "teacher_logp"))
        )

    return Candidates(joined("student"), joined("teacher"))


def wanted_k(method: MethodSpec) -> int:
    """How many favourites of each model a method looks at; 0 for none."""
    support, routing = method.support, method.routing
    wanted = [0]
    if isinstance(support, TopKSupport):
        wanted.append(support.k)
    if isinstance(routing, CounterfactualRouting):
        wanted += [routing.student_top_k, routing.teacher_top_k]
    if isinstance(routing, AopdRouting | OutlierRouting):
        wanted.append(routing.k)
    if isinstance(routing, ApoRouting) and routing.anchor == "teacher":
        wanted.append(routing.k + 1)
    wanted += [gate.k for gate in method.gates if hasattr(gate, "k")]
    return max(wanted)
