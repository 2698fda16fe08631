"""What a run recorded: metrics, tokens, heatmaps, health, report."""

from __future__ import annotations

from collections.abc import Iterable

from api import schemas as s
from api.client.transport import Transport


class Records(Transport):
    """What a run left behind, as data."""

    def metrics(
        self, id: str, keys: Iterable[str] | None = None, from_step: int = 0, max_points: int | None = None
    ) -> s.Metrics:
        """Scalars by step, thinned to about ``max_points`` steps."""
        wanted = ",".join(keys) if keys else None
        return self._get(s.Metrics, f"/v1/jobs/{id}/metrics", keys=wanted, from_step=from_step, max_points=max_points)

    def steps(self, id: str) -> s.Page[s.StepSummary]:
        """Steps with recorded sequences."""
        return self._get(s.Page[s.StepSummary], f"/v1/jobs/{id}/steps")

    def sequences(self, id: str, step: int) -> s.SequenceList:
        """Recorded sequences of a step."""
        return self._get(s.SequenceList, f"/v1/jobs/{id}/steps/{step}/sequences")

    def sequence(self, id: str, step: int, n: int) -> s.Sequence:
        """One recorded sequence, token by token."""
        return self._get(s.Sequence, f"/v1/jobs/{id}/steps/{step}/sequences/{n}")

    def quantities(self, id: str, step: int) -> s.QuantityList:
        """How large each number of a step's tokens is: one scale for all its sequences."""
        return self._get(s.QuantityList, f"/v1/jobs/{id}/steps/{step}/quantities")

    def routing(
        self,
        id: str,
        from_step: int | None = None,
        to_step: int | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> s.Heatmap:
        """Where the probability of suppressed tokens went: predicted and realised."""
        return self._get(
            s.Heatmap,
            f"/v1/jobs/{id}/heatmaps/routing",
            from_step=from_step,
            to_step=to_step,
            rows=rows,
            columns=columns,
        )

    def returns(
        self,
        id: str,
        field: str | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> s.Profile:
        """A quantity (log_ratio, return, advantage, value, kl...) of all tokens by position and step."""
        span = {"from_step": from_step, "to_step": to_step, "rows": rows, "columns": columns}
        return self._get(s.Profile, f"/v1/jobs/{id}/heatmaps/returns", field=field, **span)

    def gates(
        self,
        id: str,
        gate: str | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
        rows: int | None = None,
        columns: int | None = None,
    ) -> s.Gates:
        """What one gate (None: all together) let through, by position and step and token by token."""
        span = {"from_step": from_step, "to_step": to_step, "rows": rows, "columns": columns}
        return self._get(s.Gates, f"/v1/jobs/{id}/heatmaps/gates", gate=gate, **span)

    def suppressed(
        self, id: str, token: int, from_step: int | None = None, to_step: int | None = None, limit: int | None = None
    ) -> s.Occurrences:
        """Where a token was written and suppressed: step, sequence and position."""
        span = {"from_step": from_step, "to_step": to_step, "limit": limit}
        return self._get(s.Occurrences, f"/v1/jobs/{id}/tokens/{token}/suppressed", **span)

    def health(self, id: str) -> s.Health:
        """The diagnostics A1 to A11 as lights, with their values over time."""
        return self._get(s.Health, f"/v1/jobs/{id}/health")

    def report(self, id: str) -> s.Report:
        """The report of a finished run."""
        return self._get(s.Report, f"/v1/jobs/{id}/report")

    def evaluation(self, id: str) -> s.Evaluation:
        """Right or wrong for each held-out problem: the student before and after, the teacher."""
        return self._get(s.Evaluation, f"/v1/jobs/{id}/evaluation")

    def export(self, id: str) -> bytes:
        """The run as one HTML file that needs no server."""
        return self._request("GET", f"/v1/jobs/{id}/export").content
