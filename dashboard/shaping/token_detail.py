"""Everything about one token: the chain from feedback to update, both models' favourites, route and realised change."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from api.schemas import Job, Token
from dashboard.shaping import fields
from dashboard.shaping.fields import Field
from dashboard.shaping.text import number, percent, probability, visible


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
    return Link(sign + field.label, number(field.read(token), field.signed), field.meaning)


def is_direct(job: Job) -> bool:
    """Whether the recipe moves whole distributions and puts no coefficient on sampled tokens."""
    objective = job.resolved_spec.get("method", {}).get("objective", {})
    return bool(objective.get("route") == "direct")


def verdict(token: Token) -> str:
    """The feedback in one sentence of numbers (no model text)."""
    student, teacher = percent(probability(token.logp_student)), percent(probability(token.logp_teacher))
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
            "student": _floats(probability(student) for *_, student, _ in rows),
            "teacher": _floats(probability(teacher) for *_, teacher in rows),
        }
    )
    if token.components or token.route:
        table["force"] = _floats(_force(token, identifier, probability(student)) for identifier, _, student, _ in rows)
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
            held += probability(top.student_logp) or 0.0
        return Compared(frozenset(chosen))
    kinds = {
        "student_top_k": set(student),
        "teacher_top_k": set(teacher),
        "union": {*student, *teacher},
        "intersection": set(student) & set(teacher),
    }
    return Compared(frozenset(kinds[kind])) if kind in kinds else None


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
            "plain": _floats(_times(pushed, probability(student.get(to.id))) for to in token.route),
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
