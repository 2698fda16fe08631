"""What really moved: a few recorded states, before and after the optimizer step.

The plan predicts, to first order, delta pi_v = eta pi_v (f_v - sum_u pi_u f_u) with f the plan's force on the logits
of that state alone. The network shares its parameters between states, so the realised change differs, often a lot;
both are recorded. eta is one number per step: the one that gives predicted and realised changes the same size over the
probed states. (A least-squares fit would turn the prediction round whenever interference does.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from opd_core.objective.loss import force
from opd_core.objective.plan import UpdatePlan
from opd_core.objective.targets import HiddenTarget
from opd_core.rollout import Rollouts, completion_hidden

# Destinations kept per state: where the predicted or realised change is largest.
_DESTINATIONS = 16


class Probe:
    """``Probe(...)`` before the update, ``measure(...)`` after it, ``columns()`` for the records.

    Of M states: ``rows`` [M] in packed order, ``tokens`` [M], ``before`` [M, V] the student's probabilities, ``push``
    [M, V] the plan's force, ``direction`` [M, V] what it predicts up to eta, ``realised`` [M, V] what happened.
    """

    @torch.no_grad()
    def __init__(
        self,
        *,
        rollouts: Rollouts,
        plan: UpdatePlan,
        student: HiddenTarget,
        sequences: Sequence[int],
        rows: Tensor,
    ) -> None:
        """``sequences`` of the batch, ascending, contain the states; ``rows`` [M] are the states in packed order."""
        self.rows, self._head = rows, student.head
        self._batch = rollouts.reorder(torch.tensor(sequences, device=rows.device))
        self._within = _positions_within(rollouts, sequences, rows)
        self.tokens = plan.tokens[rows]
        self._temperature = plan.temperature
        logits = self._head(student.hidden[rows])
        self.before = (logits / plan.temperature).softmax(-1)
        self.push = force(plan[rows], logits) * plan.weights[rows, None]
        self.direction = self.before * (self.push - (self.before * self.push).sum(-1, keepdim=True))
        self.eta = 0.0
        self._realised: Tensor | None = None

    @property
    def realised(self) -> Tensor:
        """[M, V] change of probability. Call after ``measure``."""
        if self._realised is None:
            raise RuntimeError("the probe has not been measured")
        return self._realised

    @torch.no_grad()
    def measure(self, trunk: nn.Module) -> None:
        """Re-score the states with the updated student."""
        hidden = completion_hidden(trunk, self._batch)[self._within]
        after = (self._head(hidden) / self._temperature).softmax(-1)
        self._realised = after - self.before
        self.eta = float(self._realised.norm() / self.direction.norm().clamp(min=1e-20))

    def columns(self) -> dict[int, dict[str, Any]]:
        """Packed row -> ids and the predicted and realised change of their probability. Call after ``measure``."""
        predicted, realised = self.eta * self.direction, self.realised
        score = torch.maximum(predicted.abs(), realised.abs())
        score.scatter_(1, self.tokens[:, None], torch.inf)  # the sampled token is always shown
        ids = score.topk(min(_DESTINATIONS, score.shape[1])).indices
        shown = zip(
            self.rows.tolist(),
            ids.tolist(),
            predicted.gather(1, ids).tolist(),
            realised.gather(1, ids).tolist(),
            strict=True,
        )
        return {
            row: {"probe_ids": i, "probe_predicted": expected, "probe_realised": seen}
            for row, i, expected, seen in shown
        }


def _positions_within(rollouts: Rollouts, sequences: Sequence[int], rows: Tensor) -> Tensor:
    """Packed rows of the whole batch -> packed rows of the gathered sequences, which are in their order."""
    numbered = torch.full(rollouts.mask.shape, -1, dtype=torch.long, device=rows.device)
    numbered[rollouts.mask] = torch.arange(int(rollouts.mask.sum()), device=rows.device)
    inside = numbered[list(sequences)]
    return torch.searchsorted(inside[inside >= 0], rows)
