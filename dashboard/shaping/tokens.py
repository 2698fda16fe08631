"""One recorded sequence: the coloured strip, and everything about the selected token."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import pandas as pd

from api.schemas import Job, Sequence, SequenceSummary, Token
from dashboard.shaping import fields
from dashboard.shaping.colors import Scale
from dashboard.shaping.fields import Field
from dashboard.shaping.text import percent, signed, token_kind, visible

EXTREMES = 24  # tokens to jump to


def strip(
    sequence: Sequence,
    field: Field,
    used: Scale,
    shown: Iterable[Field],
    *,
    place: str,
    selected: int,
    second: tuple[Field, Scale] | None = None,
) -> dict[str, Any]:
    """What the strip component draws: ``field`` as colours, the ``shown`` ones as numbers beside a token.

    ``place`` names job, step and sequence, so that a click knows where it was. ``second`` is drawn as a bar below each
    token, on a scale of its own.
    """
    shown = list(shown)
    return {
        "place": place,
        "selected": selected,
        "extremes": extremes(sequence, field),
        "bar": None
        if second is None
        else {**_scale(second[1]), "label": second[0].label, "colors": _colors(sequence, *second)},
        **_scale(used),
        "name": field.label,
        "label": f"Completion of {len(sequence.tokens)} tokens, coloured by {field.label}",
        "columns": ["student p", "teacher p", *(one.label for one in shown)],
        "tokens": [
            {
                "text": visible(token.text),
                "kind": token_kind(token.text),
                "newline": "\n" in token.text,
                "color": used.index(field.read(token)),
                "numbers": [
                    percent(_probability(token.logp_student)),
                    percent(_probability(token.logp_teacher)),
                    *(_number(one.read(token), one.signed) for one in shown),
                ],
            }
            for token in sequence.tokens
        ],
    }


def _scale(used: Scale) -> dict[str, Any]:
    return {
        "palette": "signed" if used.signed else "positive",
        "ends": [f"−{used.limit:.3g}" if used.signed else "0", f"{'+' if used.signed else ''}{used.limit:.3g}"],
    }


def _colors(sequence: Sequence, field: Field, used: Scale) -> list[int | None]:
    return [used.index(field.read(token)) for token in sequence.tokens]


def extremes(sequence: Sequence, field: Field) -> list[int]:
    """Positions of the tokens with the largest absolute values, the largest first, down to a fiftieth of it."""
    sizes = {token.pos: abs(field.read(token) or 0.0) for token in sequence.tokens}
    least = 0.02 * max(sizes.values(), default=0.0)
    return sorted((pos for pos, size in sizes.items() if size > least), key=lambda pos: (-sizes[pos], pos))[:EXTREMES]


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
    """r -> return -> value -> advantage -> gates -> coefficient, in the order in which the update makes them."""
    links = [_link("", fields.LOG_RATIO, token), _link("→ ", fields.RETURN, token)]
    if token.value is not None:
        links.append(_link("", fields.VALUE, token))
    links.append(_link("→ ", fields.ADVANTAGE, token))
    gates = [fields.one_gate(name) for name in token.gates] or [fields.all_gates([])]
    links += [_link("× ", gate, token) for gate in gates]
    return [*links, _link("→ ", fields.COEFFICIENT, token)]


def parts(token: Token) -> list[Link]:
    """What the coefficient is the sum of, by name; [] where the run recorded none."""
    return [_link("+ " if n else "= ", fields.one_part(name), token) for n, name in enumerate(token.components)]


def _link(sign: str, field: Field, token: Token) -> Link:
    return Link(sign + field.label, _number(field.read(token), field.signed), field.meaning)


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


def top_table(token: Token, who: str, compared: Compared | None = None) -> pd.DataFrame:
    """The top tokens of ``student`` or ``teacher`` with both models' probabilities, the sampled one marked.

    When the sampled token is not among them it is added below. ``compared`` adds what the support left out; where the
    force follows from the record it comes along: what the plan pushes each logit with.
    """
    if who == "student":
        rows = [(top.id, top.text, top.logp, top.teacher_logp) for top in token.student_top]
    else:
        rows = [(top.id, top.text, top.student_logp, top.logp) for top in token.teacher_top]
    if all(identifier != token.id for identifier, *_ in rows):
        rows.append((token.id, token.text, token.logp_student, token.logp_teacher))
    table = pd.DataFrame(
        {
            "token": [visible(text) for _, text, _, _ in rows],
            "student": _floats(_probability(student) for *_, student, _ in rows),
            "teacher": _floats(_probability(teacher) for *_, teacher in rows),
        }
    )
    if token.components or token.route:
        table["force"] = _floats(_force(token, identifier, _probability(student)) for identifier, _, student, _ in rows)
    if compared is not None:
        table["support"] = ["compared" if identifier in compared.ids else "left out" for identifier, *_ in rows]
    table[""] = [_mark(identifier == token.id) for identifier, *_ in rows]
    return table


def _force(token: Token, identifier: int, student: float | None) -> float | None:
    """a - (sum a) pi, with a = coefficient at the sampled token + route: the plan's push without divergence terms."""
    if student is None or token.coefficient is None:
        return None
    route = {to.id: to.weight or 0.0 for to in token.route}
    own = token.coefficient if identifier == token.id else 0.0
    return own + route.get(identifier, 0.0) - (token.coefficient + sum(route.values())) * student


@dataclass(frozen=True)
class Compared:
    """The tokens of the vocabulary that the method's support compares at one state."""

    ids: frozenset[int]


def compared(token: Token, job: Job) -> Compared | None:
    """What a top-k support compares here; None where it is the whole vocabulary or the sampled token."""
    support = job.resolved_spec.get("method", {}).get("support", {})
    kind, k = support.get("kind"), int(support.get("k") or 0)
    student = [top.id for top in token.student_top[:k]]
    teacher = [top.id for top in token.teacher_top[:k]]
    if kind == "adaptive":
        held, chosen = 0.0, []
        for top in token.teacher_top[:k]:
            if held >= float(support.get("mass") or 1.0):
                break
            chosen.append(top.id)
            held += _probability(top.student_logp) or 0.0
        return Compared(frozenset(chosen))
    kinds = {
        "student_top_k": set(student),
        "teacher_top_k": set(teacher),
        "union": {*student, *teacher},
        "intersection": set(student) & set(teacher),
    }
    return Compared(frozenset(kinds[kind])) if kind in kinds else None


def _probability(logp: float | None) -> float | None:
    return None if logp is None else math.exp(logp)


def _floats(values: Iterable[float | None]) -> pd.Series:
    # Floats even when every value is missing: a column of None would be of no type and could not be sorted.
    return pd.Series(list(values), dtype="float64")


def route_table(token: Token) -> pd.DataFrame | None:
    """Where the plan sends the probability that this token gives up; None without a route.

    ``plain`` is what softmax alone would push the same destination with: taking c off a logit gives every other one
    c π(v). Known where the destination is among the recorded favourites.
    """
    if not token.route:
        return None
    student = {one.id: one.student_logp for one in token.teacher_top} | {one.id: one.logp for one in token.student_top}
    pushed = None if token.coefficient is None else -token.coefficient
    table = pd.DataFrame(
        {
            "token": [visible(to.text) for to in token.route],
            "weight": _floats(to.weight for to in token.route),
            "plain": _floats(_times(pushed, _probability(student.get(to.id))) for to in token.route),
        }
    )
    return table.sort_values("weight", ascending=False, key=abs, ignore_index=True)


def _times(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


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


def neighbour(values: Seq[int], current: int, by: int) -> int | None:
    """The value ``by`` places on in an ascending list; None beyond its ends."""
    at = bisect_left(values, current) + by
    return values[at] if 0 <= at < len(values) else None
