"""The profile of a step: every token of the batch, not only the recorded ones, by position and in size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opd_core.objective.feedback import Feedback, unpack
from opd_core.objective.plan import UpdatePlan
from opd_core.runs.profiles import BINS, EDGES, QUANTILES, bin_width


@torch.no_grad()
def profile(feedback: Feedback, plan: UpdatePlan, *, max_new_tokens: int) -> list[dict[str, Any]]:
    """One row per field, without ``step`` and ``attempt``; see ``opd_core.runs.profiles`` for the columns."""
    mask = plan.mask
    width = bin_width(max_new_tokens)
    # The action clock: tokens that the student did not write take no time.
    bins = ((mask.cumsum(1) - 1)[mask] // width).clamp(max=BINS - 1).cpu().numpy()
    fields = _fields(feedback, plan)
    return [
        {"field": name, "bin_width": width, **_spread(values[mask].double().cpu().numpy(), bins)}
        for name, values in fields.items()
    ]


def _fields(feedback: Feedback, plan: UpdatePlan) -> Mapping[str, Tensor]:
    """[B, T] by name."""
    view = plan.view
    fields = {
        "log_ratio": view.log_ratio,
        "return": view.returns,
        "advantage": view.advantages,
        "coefficient": unpack(plan.coefficients, plan.mask),
        "kl": feedback.kl,
        "entropy_student": feedback.student_entropy,
        "entropy_teacher": feedback.teacher_entropy,
        "gate": view.gates,
    }
    if view.values is not None:
        fields["value"] = view.values
    return fields | {f"gate:{name}": weights for name, weights in view.gate_by_name.items()}


def _spread(values: np.ndarray, bins: np.ndarray) -> dict[str, Any]:
    finite = np.isfinite(values)
    values, bins = values[finite], bins[finite]
    tokens = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, weights=values, minlength=BINS)
    inside = np.clip(values, EDGES[0], EDGES[-1])
    return {
        "tokens": tokens.tolist(),
        "mean": [total / count if count else None for total, count in zip(sums.tolist(), tokens.tolist(), strict=True)],
        "quantiles": np.quantile(values, QUANTILES).tolist() if len(values) else [],
        "histogram": np.histogram(inside, EDGES)[0].tolist(),
    }
