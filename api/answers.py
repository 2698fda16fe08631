"""Answers of a worker as shapes of the HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from api import schemas as s
from api import tokens
from opd_core.runs import questions

Answer = dict[str, Any]

# What does not depend on the plan is said once, with the recorded sequence.
_SAID_ONCE = ("student_top_ids", "teacher_top_ids", "probe_ids")
_COMPARED = ("log_ratio", "return_", "value", "advantage", "gate", "coefficient")


def question(row: questions.Question, result: s.Replan | s.Probe | None = None) -> s.Question:
    """A question, with its result where there is one."""
    return s.Question(
        id=row.id,
        job_id=row.job_id,
        kind=row.kind,
        status=row.status,
        phase=row.phase,
        request=row.request,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        finished_at=None if row.finished_at is None else datetime.fromtimestamp(row.finished_at, UTC),
        error=None if row.error is None else s.JobError.model_validate(row.error),
        result=result,
    )


def replan(request: dict[str, Any], answer: Answer, vocabulary: Sequence[str]) -> s.Replan:
    """Both plans of a step's sequences."""
    return s.Replan(
        step=request["step"],
        recipe=request["recipe"],
        method=request["method"],
        sequences=[_replanned(row, vocabulary) for row in answer["rows"]],
        marks=_marks(answer["replanned"]),
        recorded_marks=_marks(answer["recorded"]),
    )


def probe(answer: Answer, vocabulary: Sequence[str]) -> s.Probe:
    """What became of a prompt."""
    return s.Probe(
        checkpoint=answer["checkpoint"],
        step=answer["step"],
        sequence=tokens.sequence(answer["row"], vocabulary),
        marks=_marks(answer["approximate"]),
        notes=answer["notes"],
    )


def _replanned(row: Answer, vocabulary: Sequence[str]) -> s.ReplannedSequence:
    recorded = tokens.sequence(row["recorded"], vocabulary)
    replanned = tokens.sequence({**row["recorded"], **row["plan"], **dict.fromkeys(_SAID_ONCE)}, vocabulary)
    pairs = zip(recorded.tokens, replanned.tokens, strict=True)
    return s.ReplannedSequence(
        recorded=recorded,
        replanned=replanned,
        difference=[_difference(before, after) for before, after in pairs],
        forces=[_forces(row, position, vocabulary) for position in range(len(recorded.tokens))],
    )


def _difference(recorded: s.Token, replanned: s.Token) -> s.TokenDifference:
    def minus(name: str) -> float | None:
        before, after = getattr(recorded, name), getattr(replanned, name)
        return None if before is None or after is None else after - before

    return s.TokenDifference(**{name: minus(name) for name in _COMPARED})


def _forces(row: Answer, position: int, vocabulary: Sequence[str]) -> list[s.Force]:
    columns = ("force_recorded", "force_replanned", "change_recorded", "change_replanned")
    numbers = zip(row["force_ids"][position], *(row[name][position] for name in columns), strict=True)
    return [
        s.Force(
            id=token,
            text=tokens.text_of(token, vocabulary),
            recorded=before,
            replanned=after,
            recorded_change=moved_before,
            replanned_change=moved_after,
        )
        for token, before, after, moved_before, moved_after in numbers
        if token >= 0  # -1 fills up places without a token
    ]


def _marks(reasons: dict[str, list[str]]) -> dict[str, s.Mark]:
    return {field: s.Mark(exact=not why, reasons=why) for field, why in reasons.items()}
