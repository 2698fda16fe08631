"""What if: a recorded step planned again under another method, beside the plan that was trained with.

Feedback and plan are separate, so nothing is trained, no model is loaded and no teacher is asked: the records are
turned into feedback (recorded.py), ``build_plan`` does the rest, and exactness.py says which of its numbers are exact.

Forces are those on the logits of one state, before aggregation; changes are to first order, at the same step size for
both plans: delta pi_v ~ pi_v (f_v - sum_u pi_u f_u).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from opd_core.diagnostics.exactness import exactness, exactness_of_recorded
from opd_core.diagnostics.recorded import Recorded
from opd_core.diagnostics.records import plan_columns, split
from opd_core.objective.loss import force
from opd_core.objective.plan import UpdatePlan, build_plan
from opd_core.objective.targets import SparseTarget, chunks
from opd_core.spec import MethodSpec

_DESTINATIONS = 16
"""Tokens per state for which forces are kept: the sampled one and those that either plan pushes most."""


@dataclass(frozen=True)
class Replan:
    """``rows``: one per sequence. ``replanned`` and ``recorded``: why fields of either plan are approximate."""

    rows: list[dict[str, Any]]
    replanned: Mapping[str, Sequence[str]]
    recorded: Mapping[str, Sequence[str]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "replanned": {field: list(reasons) for field, reasons in self.replanned.items()},
            "recorded": {field: list(reasons) for field, reasons in self.recorded.items()},
        }


@torch.no_grad()
def replan(recorded: Recorded, *, own: MethodSpec, method: MethodSpec, gate_seed: int) -> Replan:
    """The recorded step under ``method``; it was trained under ``own``.

    Each row has ``plan``, the columns that ``plan_columns`` makes, and per token ``force_ids`` with ``force_recorded``,
    ``force_replanned``, ``change_recorded`` and ``change_replanned``. Raises MissingFeedback when the records lack what
    the method needs.
    """
    plan = build_plan(method, recorded.feedback(method, own), recorded.state(gate_seed))
    trained = _as_recorded(build_plan(own, recorded.feedback(own, own), recorded.state(gate_seed)), recorded)
    known = recorded.known()
    pushed = _forces(recorded.student, trained, plan)
    packed = torch.arange(len(plan))
    planned = plan_columns(plan, packed, recorded.counts)
    columns = {name: split(values, recorded.counts) for name, values in pushed.items()}
    rows = [
        {"plan": planned[n], **{name: values[n] for name, values in columns.items()}}
        for n in range(len(recorded.counts))
    ]
    return Replan(rows, exactness(method, own, known), exactness_of_recorded(own, known))


def _as_recorded(plan: UpdatePlan, recorded: Recorded) -> UpdatePlan:
    """The run's own plan: its divergences made again, its coefficients and routes as they were recorded."""
    ids, weights = ([token for row in recorded.rows for token in row[name]] for name in ("route_ids", "route_weights"))
    widest = max(map(len, ids))
    padded = [
        (token + [0] * (widest - len(token)), weight + [0.0] * (widest - len(weight)))
        for token, weight in zip(ids, weights, strict=True)
    ]
    return replace(
        plan,
        components={"recorded": recorded.packed("coefficients")},
        route_ids=torch.tensor([token for token, _ in padded], dtype=torch.long).reshape(len(plan), widest),
        route_weights=torch.tensor([w for _, w in padded]).reshape(len(plan), widest),
    )


def _forces(student: SparseTarget, trained: UpdatePlan, plan: UpdatePlan) -> dict[str, Tensor]:
    """Both plans' forces and first-order changes on the tokens that they push most, [N, K] each."""
    columns: dict[str, list[Tensor]] = {}
    for rows in chunks(len(plan), student.vocabulary):
        part = student[rows]
        # Log-probabilities at a temperature, times it, are logits.
        logits = part.log_probs(student.temperature) * student.temperature
        found: dict[str, Tensor] = {}
        for name, one in (("recorded", trained), ("replanned", plan)):
            push = force(one[rows], logits)
            pi = (logits / one.temperature).softmax(-1)
            found[f"force_{name}"] = push.gather(1, part.ids)
            found[f"change_{name}"] = (pi * (push - (pi * push).sum(1, keepdim=True))).gather(1, part.ids)
        size = torch.maximum(found["force_recorded"].abs(), found["force_replanned"].abs())
        size = size.masked_fill(~part.keep, -1.0)
        size[:, 0] = torch.inf  # the sampled token is listed first
        top = size.topk(min(_DESTINATIONS, size.shape[1])).indices
        # A row that knows fewer tokens is filled up with -1.
        columns.setdefault("force_ids", []).append(part.ids.masked_fill(~part.keep, -1).gather(1, top))
        for name, values in found.items():
            columns.setdefault(name, []).append(values.gather(1, top))
    return {name: torch.cat(parts) for name, parts in columns.items()}
