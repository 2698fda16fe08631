"""Token records as shapes of the HTTP interface: sequences and tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from api import schemas as s
from opd_core.runs.plain import finite
from opd_core.runs.records import Row

SUMMARY_COLUMNS = ("n", "problem", "prompt", "completion", "answer", "correct", "truncated", "length", "log_ratio")


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
        values = row.get(name)  # an answer that an earlier version stored has fewer columns
        return finite(values[position]) if values is not None and position < len(values) else None

    def entries(ids: str, **fields: str) -> list[dict[str, Any]]:
        columns = {field: value(name) or [] for field, name in fields.items()}
        return [
            {"id": token, "text": text_of(token, vocabulary)} | {field: column[i] for field, column in columns.items()}
            for i, token in enumerate(value(ids) or [])
        ]

    def named(names: str, numbers: str) -> dict[str, Any]:
        return dict(zip(row[names] or [], value(numbers) or [], strict=True))

    token_id = row["token_ids"][position]
    reply = value("replies") or []
    probed = value("probe_ids") is not None
    return {
        "pos": position,
        "id": token_id,
        "text": text_of(token_id, vocabulary),
        "logp_student": value("logp_student"),
        "logp_teacher": value("logp_teacher"),
        "log_ratio": value("log_ratio"),
        "return": value("returns"),
        "value": value("values"),
        "advantage": value("advantages"),
        "gate": value("gates"),
        "gates": named("gate_names", "gate_weights"),
        "coefficient": value("coefficients"),
        "components": named("component_names", "component_values"),
        "entropy_student": value("entropy_student"),
        "entropy_teacher": value("entropy_teacher"),
        "kl": value("kl"),
        "student_top": entries("student_top_ids", logp="student_top_logp", teacher_logp="student_top_teacher_logp"),
        "teacher_top": entries("teacher_top_ids", logp="teacher_top_logp", student_logp="teacher_top_student_logp"),
        "route": entries("route_ids", weight="route_weights"),
        "reply": [{"id": said, "text": text_of(said, vocabulary)} for said in reply],
        "probe": entries("probe_ids", predicted="probe_predicted", realised="probe_realised") if probed else None,
    }
