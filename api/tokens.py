"""Token records as shapes of the HTTP interface: sequences, tokens and the routing heatmap."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from api import schemas as s
from opd_core.runs.plain import finite
from opd_core.runs.records import Row

ROUTING_COLUMNS = ("token_ids", "log_ratio", "probe_ids", "probe_predicted", "probe_realised")


def text_of(token_id: int, vocabulary: Sequence[str]) -> str:
    """The token's text, or its number where the vocabulary is not (yet) known."""
    return vocabulary[token_id] if 0 <= token_id < len(vocabulary) else f"<{token_id}>"


def summary(row: Row) -> dict[str, Any]:
    """The fields of a SequenceSummary."""
    ratios = [value for value in row["log_ratio"] or [] if value is not None and math.isfinite(value)]
    return {key: row[key] for key in s.SequenceSummary.model_fields if key in row} | {
        "log_ratio_mean": sum(ratios) / len(ratios) if ratios else None,
        "log_ratio_min": min(ratios, default=None),
    }


def sequence(row: Row, vocabulary: Sequence[str]) -> s.Sequence:
    """A recorded sequence, token by token."""
    tokens = [_token(row, position, vocabulary) for position in range(row["length"])]
    return s.Sequence.model_validate({**summary(row), "step": row["step"], "tokens": tokens})


def _token(row: Row, position: int, vocabulary: Sequence[str]) -> dict[str, Any]:
    def value(name: str) -> Any:
        values = row[name]
        return finite(values[position]) if values is not None and position < len(values) else None

    def entries(ids: str, **fields: str) -> list[dict[str, Any]]:
        columns = {field: value(name) or [] for field, name in fields.items()}
        return [
            {"id": token, "text": text_of(token, vocabulary)} | {field: column[i] for field, column in columns.items()}
            for i, token in enumerate(value(ids) or [])
        ]

    token_id = row["token_ids"][position]
    probed = value("probe_ids") is not None
    return {
        "pos": position,
        "id": token_id,
        "text": text_of(token_id, vocabulary),
        "logp_student": value("logp_student"),
        "logp_teacher": value("logp_teacher"),
        "log_ratio": value("log_ratio"),
        "return": value("returns"),
        "advantage": value("advantages"),
        "gate": value("gates"),
        "coefficient": value("coefficients"),
        "entropy_student": value("entropy_student"),
        "entropy_teacher": value("entropy_teacher"),
        "kl": value("kl"),
        "student_top": entries("student_top_ids", logp="student_top_logp", teacher_logp="student_top_teacher_logp"),
        "teacher_top": entries("teacher_top_ids", logp="teacher_top_logp", student_logp="teacher_top_student_logp"),
        "route": entries("route_ids", weight="route_weights"),
        "probe": entries("probe_ids", predicted="probe_predicted", realised="probe_realised") if probed else None,
    }


def routing(
    records: Iterable[Row], vocabulary: Sequence[str], from_step: int, to_step: int, rows: int, columns: int
) -> s.Heatmap:
    """Where the probability of suppressed tokens went, on average over the probed states that sampled them.

    Row = a sampled token with a negative log-ratio (most frequent first), column = a token whose probability changed
    (largest total change first). Interference between states makes single cells noisy: many states tell.
    """
    counts: Counter[int] = Counter()
    predicted: defaultdict[tuple[int, int], float] = defaultdict(float)
    realised: defaultdict[tuple[int, int], float] = defaultdict(float)
    for record in records:
        for position, ids in enumerate(record["probe_ids"] or []):
            if ids is None or not record["log_ratio"][position] < 0:
                continue
            token = record["token_ids"][position]
            counts[token] += 1
            for i, target in enumerate(ids):
                predicted[token, target] += finite(record["probe_predicted"][position][i]) or 0.0
                realised[token, target] += finite(record["probe_realised"][position][i]) or 0.0
    # Ties break by id, so that a live heatmap does not dance.
    sources = sorted(counts, key=lambda token: (-counts[token], token))[:rows]
    weights: Counter[int] = Counter()
    for values in (predicted, realised):
        for (source, target), value in values.items():
            if source in sources:
                weights[target] += abs(value)  # type: ignore[assignment]  # Counter's values may be floats
    targets = sorted(weights, key=lambda token: (-weights[token], token))[:columns]

    def mean(values: dict[tuple[int, int], float]) -> list[list[float]]:
        return [[values.get((source, target), 0.0) / counts[source] for target in targets] for source in sources]

    return s.Heatmap(
        from_step=from_step,
        to_step=to_step,
        states=counts.total(),
        rows=[s.HeatmapRow(id=token, text=text_of(token, vocabulary), count=counts[token]) for token in sources],
        columns=[s.HeatmapColumn(id=token, text=text_of(token, vocabulary)) for token in targets],
        predicted=mean(predicted),
        realised=mean(realised),
    )
