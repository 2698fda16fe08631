"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Iterable

from api import schemas as s
from api.client.transport import Transport


class Comparisons(Transport):
    """Curves on one axis, and the problems that runs share."""

    def compare(
        self, jobs: Iterable[str], x: s.Axis = "step", keys: Iterable[str] | None = None, max_points: int | None = None
    ) -> s.Comparison:
        """2 to 8 runs: curves against one axis, head-to-head with seeds as one row, differences of their specs."""
        wanted = ",".join(keys) if keys else None
        return self._get(s.Comparison, "/v1/compare", jobs=",".join(jobs), x=x, keys=wanted, max_points=max_points)

    def shared_problems(self, left: str, right: str, step: int, limit: int | None = None) -> s.Page[s.SharedProblem]:
        """Problems that both runs recorded near a step, nearest first."""
        jobs = f"{left},{right}"
        return self._get(s.Page[s.SharedProblem], "/v1/compare/problems", jobs=jobs, step=step, limit=limit)
