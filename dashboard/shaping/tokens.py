"""One recorded sequence: the coloured strip, and everything about the selected token."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import pandas as pd

from api.schemas import Job, Sequence, SequenceSummary, Token
from dashboard.shaping.colors import Scale, scale
from dashboard.shaping.text import percent, signed, token_kind, visible


@dataclass(frozen=True)
class Field:
    """A per-token number that can colour the strip."""

    key: str  # attribute of ``Token``
    label: str
    meaning: str
    signed: bool


FIELDS = {
    field.key: field
    for field in (
        Field("log_ratio", "log-ratio r", "log p(teacher) − log π(student) of the sampled token, in nats", True),
        Field("return_", "return", "log-ratios credited to this token, summed as the recipe says", True),
        Field("advantage", "advantage", "the return after baselines and normalisation", True),
        Field("gate", "gate", "how loudly the token speaks in the update: 0 silenced, 1 as it is", False),
        Field("kl", "KL", "divergence of the two next-token distributions, in nats", False),
        Field("entropy_student", "student entropy", "uncertainty of the student here, in nats", False),
        Field("entropy_teacher", "teacher entropy", "uncertainty of the teacher here, in nats", False),
    )
}


def field_scale(field: Field, sequences: Iterable[Sequence]) -> Scale:
    """One scale for all sequences of a step, so that colours can be compared between them."""
    values = [getattr(token, field.key) for sequence in sequences for token in sequence.tokens]
    # A gate that is open everywhere must look open, not extreme: its scale starts at 1.
    return scale(values, signed=field.signed, at_least=1.0 if field.key == "gate" else 1e-6)


def scale_note(field: Field, used: Scale) -> str:
    """Says what the colours mean, and that the ends are clamped."""
    clamp = (
        f" Clamped at the step's 98 % quantile, {used.clamped} token{'s' if used.clamped != 1 else ''} beyond it."
        if used.clamped
        else ""
    )
    sides = "Red = below zero, blue = above" if used.signed else "Stronger = more"
    return f"{field.label}: {field.meaning}. {sides}; one scale for all sequences of this step.{clamp}"


def strip(sequence: Sequence, field: Field, used: Scale, *, place: str, selected: int) -> dict[str, Any]:
    """What the strip component draws. ``place`` names job, step and sequence, so that a click knows where it was."""
    shown = list(FIELDS.values())
    return {
        "place": place,
        "selected": selected,
        "palette": "signed" if used.signed else "positive",
        "ends": [f"−{used.limit:.3g}" if used.signed else "0", f"{'+' if used.signed else ''}{used.limit:.3g}"],
        "label": f"Completion of {len(sequence.tokens)} tokens, coloured by {field.label}",
        "columns": ["student p", "teacher p", *(one.label for one in shown)],
        "tokens": [
            {
                "text": visible(token.text),
                "kind": token_kind(token.text),
                "newline": "\n" in token.text,
                "color": used.index(getattr(token, field.key)),
                "numbers": [
                    percent(_probability(token.logp_student)),
                    percent(_probability(token.logp_teacher)),
                    *(_number(getattr(token, one.key), one.signed) for one in shown),
                ],
            }
            for token in sequence.tokens
        ],
    }


def _number(value: float | None, with_sign: bool) -> str:
    if value is None:
        return "–"
    return signed(value) if with_sign else f"{value:.3f}"


def place(job_id: str, step: int, n: int) -> str:
    """The name of a drawing: which sequence of which step of which run."""
    return f"{job_id}/{step}/{n}"


def read_place(name: str, job_id: str) -> tuple[int, int] | None:
    """Step and sequence of a ``place`` of this run; None for another run's, or when the browser made it up."""
    match = re.fullmatch(r"(\w+)/(\d{1,9})/(\d{1,9})", name, re.ASCII)
    return (int(match[2]), int(match[3])) if match and match[1] == job_id else None


def sequence_label(summary: SequenceSummary) -> str:
    """One line for the list of sequences; plain text, no model text in it."""
    mark = {True: "✓ right", False: "✗ wrong", None: "unscored"}[summary.correct]
    cut = ", cut off" if summary.truncated else ""
    mean = f", mean r {summary.log_ratio_mean:+.2f}" if summary.log_ratio_mean is not None else ""
    return f"#{summary.n} · problem {summary.problem} · {mark} · {summary.length} tokens{cut}{mean}"


@dataclass(frozen=True)
class Link:
    """One number of the chain from feedback to update."""

    label: str
    value: str
    meaning: str


def chain(token: Token) -> list[Link]:
    """r -> return -> advantage -> gate -> coefficient, in the order in which the update makes them."""
    return [
        Link("log-ratio r", signed(token.log_ratio), FIELDS["log_ratio"].meaning),
        Link("→ return", signed(token.return_), FIELDS["return_"].meaning),
        Link("→ advantage", signed(token.advantage), FIELDS["advantage"].meaning),
        Link("× gate", _number(token.gate, False), FIELDS["gate"].meaning),
        Link(
            "= coefficient",
            signed(token.coefficient),
            "weight of log π(token) in the update: above zero makes the token more likely here",
        ),
    ]


def is_direct(job: Job) -> bool:
    """Whether the recipe moves whole distributions and puts no coefficient on sampled tokens."""
    objective = job.resolved_spec.get("method", {}).get("objective", {})
    return bool(objective.get("route") == "direct")


def verdict(token: Token) -> str:
    """The feedback in one sentence of numbers (no model text)."""
    student, teacher = percent(_probability(token.logp_student)), percent(_probability(token.logp_teacher))
    if token.log_ratio is None:
        return f"The student gave this token {student}, the teacher {teacher}."
    if abs(token.log_ratio) < 0.01:
        return f"Both models agree on this token: {student} (student) and {teacher} (teacher)."
    side = "likes it better" if token.log_ratio > 0 else "likes it less"
    factor = math.exp(min(abs(token.log_ratio), 60.0))
    times = f"{factor:.2f}" if factor < 10 else f"{factor:,.0f}"
    return f"The student gave this token {student}, the teacher {teacher}: the teacher {side}, by a factor of {times}."


def _mark(is_sampled: bool) -> str:
    return "◀ sampled" if is_sampled else ""


def top_table(token: Token, who: str) -> pd.DataFrame:
    """The top tokens of ``student`` or ``teacher`` with both models' probabilities, the sampled one marked.

    When the sampled token is not among them it is added below.
    """
    if who == "student":
        rows = [(top.id, top.text, top.logp, top.teacher_logp) for top in token.student_top]
    else:
        rows = [(top.id, top.text, top.student_logp, top.logp) for top in token.teacher_top]
    if all(identifier != token.id for identifier, *_ in rows):
        rows.append((token.id, token.text, token.logp_student, token.logp_teacher))
    return pd.DataFrame(
        {
            "token": [visible(text) for _, text, _, _ in rows],
            "student": _floats(_probability(student) for *_, student, _ in rows),
            "teacher": _floats(_probability(teacher) for *_, teacher in rows),
            "": [_mark(identifier == token.id) for identifier, *_ in rows],
        }
    )


def _probability(logp: float | None) -> float | None:
    return None if logp is None else math.exp(logp)


def _floats(values: Iterable[float | None]) -> pd.Series:
    # Floats even when every value is missing: a column of None would be of no type and could not be sorted.
    return pd.Series(list(values), dtype="float64")


def route_table(token: Token) -> pd.DataFrame | None:
    """Where the plan sends the probability that this token gives up; None without a route."""
    if not token.route:
        return None
    return pd.DataFrame(
        {"token": [visible(to.text) for to in token.route], "weight": _floats(to.weight for to in token.route)}
    ).sort_values("weight", ascending=False, key=abs, ignore_index=True)


def probe_table(token: Token) -> pd.DataFrame | None:
    """Predicted and realised change of probability, largest first; None where the state was not probed."""
    if not token.probe:
        return None
    table = pd.DataFrame(
        {
            "token": [visible(row.text) for row in token.probe],
            "predicted": _floats(row.predicted for row in token.probe),
            "realised": _floats(row.realised for row in token.probe),
            "": [_mark(row.id == token.id) for row in token.probe],
        }
    )
    return table.sort_values("realised", ascending=False, key=abs, ignore_index=True)


def nearest(steps: Seq[int], wanted: int | None) -> int | None:
    """The recorded step closest to the wanted one (the last one for None); None when nothing is recorded."""
    if not steps:
        return None
    if wanted is None:
        return steps[-1]
    return min(steps, key=lambda step: (abs(step - wanted), -step))


def extreme(sequence: Sequence, field: Field) -> int | None:
    """Position of the token with the largest absolute value of the field; None for an empty sequence."""
    values = [(abs(getattr(token, field.key) or 0.0), -token.pos) for token in sequence.tokens]
    return -max(values)[1] if values else None
