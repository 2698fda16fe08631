"""Part of an update, before it is aggregated: what each stage of the plan hands on. Packed rows, no gradients.

The force of a draft on the logits of one row is f = a - (sum a) pi + sum_k w_k f_k with a = (sum of components) e_y +
route: see plan.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from opd_core.objective.support import TokenSet
from opd_core.objective.targets import Target
from opd_core.spec.variables.objective import Divergence
from opd_core.spec.variables.support import Remainder


@dataclass(frozen=True)
class DivergenceTerm:
    """weight_n x divergence(student_n, target_n) on every row n, over the whole vocabulary or a set of tokens.

    ``parameter`` is beta of the jsd, alpha of the skew KLs, order of the alpha family. ``excluded`` token ids are taken
    out of both distributions first.
    """

    kind: Divergence
    weight: Tensor  # [N]
    target: Target  # N rows
    parameter: float = 0.5
    tokens: TokenSet | None = None  # N rows; None = the whole vocabulary
    remainder: Remainder = "tail"
    target_temperature: float = 1.0
    excluded: tuple[int, ...] = ()

    def __getitem__(self, rows: slice | Tensor) -> DivergenceTerm:
        tokens = None if self.tokens is None else self.tokens[rows]
        return replace(self, weight=self.weight[rows], target=self.target[rows], tokens=tokens)

    def scaled(self, scale: Tensor) -> DivergenceTerm:
        """The term with its weights multiplied by ``scale`` [N]."""
        return replace(self, weight=self.weight * scale)


@dataclass(frozen=True)
class SparseForce:
    """Probability that is pushed to (or from) other tokens than the sampled one: signed, unnormalised."""

    ids: Tensor  # [N, K]
    weights: Tensor  # [N, K]


@dataclass(frozen=True)
class Draft:
    """Named coefficients on log pi(y), routes, divergence terms, and what is worth reporting."""

    components: Mapping[str, Tensor] = field(default_factory=dict)  # name -> [N]
    routes: tuple[SparseForce, ...] = ()
    divergences: tuple[DivergenceTerm, ...] = ()
    statistics: Mapping[str, float] = field(default_factory=dict)

    def scaled(self, scale: Tensor) -> Draft:
        """Every force multiplied by ``scale`` [N]."""
        return replace(
            self,
            components={name: part * scale for name, part in self.components.items()},
            routes=tuple(SparseForce(route.ids, route.weights * scale[:, None]) for route in self.routes),
            divergences=tuple(term.scaled(scale) for term in self.divergences),
        )

    def plus(self, other: Draft) -> Draft:
        """Both forces. Components of one name add up."""
        components = dict(self.components)
        for name, part in other.components.items():
            components[name] = components[name] + part if name in components else part
        return Draft(
            components,
            self.routes + other.routes,
            self.divergences + other.divergences,
            {**self.statistics, **other.statistics},
        )


def share(part: Tensor, of: Tensor) -> float:
    """The share of the bool tensor ``of`` that is also ``part``; 0 where there is nothing to share."""
    return float((part & of).sum()) / max(1, int(of.sum()))


def mean(values: Tensor) -> float:
    """The mean of [N] values; 0 where there is none."""
    return float(values.mean()) if len(values) else 0.0


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's; 0 where one of them does not vary."""
    if len(a) < 2:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def one_route(routes: tuple[SparseForce, ...], tokens: Tensor, like: Tensor) -> SparseForce:
    """All routes side by side; [N, 0] where there is none."""
    if not routes:
        nothing = tokens.new_zeros((len(tokens), 0))
        return SparseForce(nothing, nothing.to(like.dtype))
    return SparseForce(torch.cat([r.ids for r in routes], 1), torch.cat([r.weights for r in routes], 1))
