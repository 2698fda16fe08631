"""Means over the run of what was really done: budgets of gates, routes, supports, importance, critic, who wrote, what
was aligned.
"""

from __future__ import annotations

from collections.abc import Mapping

_KINDS = ("gate_", "route_", "support_", "importance_", "critic_", "rows_", "aligned")


class Tally:
    """``sums`` is a JSON value, name -> [sum, number of steps], so that a resumed run goes on counting."""

    def __init__(self, sums: Mapping[str, list[float]] | None = None) -> None:
        self.sums: dict[str, list[float]] = {name: list(pair) for name, pair in (sums or {}).items()}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Count one step's statistics; other metrics are passed over."""
        for name, value in metrics.items():
            if name.startswith(_KINDS):
                total, steps = self.sums.get(name, [0.0, 0])
                self.sums[name] = [total + value, steps + 1]

    def means(self, prefix: str) -> dict[str, float]:
        """Means by name without the prefix."""
        return {
            name.removeprefix(prefix): total / steps
            for name, (total, steps) in sorted(self.sums.items())
            if name.startswith(prefix)
        }
