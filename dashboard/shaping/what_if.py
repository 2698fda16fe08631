"""A step under two methods: the recorded plan, the re-planned one, and what lies between them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import yaml

from api.schemas import Force, Mark, Question, ReplannedSequence, Token
from api.schemas import Sequence as Recorded
from dashboard.shaping import fields
from dashboard.shaping.colors import Scale, scale
from dashboard.shaping.fields import Field
from dashboard.shaping.matrix import matrix
from dashboard.shaping.text import signed, visible, words

LONGEST_HEATMAP = 256  # positions


class NotAMapping(ValueError):
    """The text of the changes cannot be read; the sentence says why."""


def changes(text: str) -> dict[str, Any]:
    """Changes to a method, written as YAML or JSON. Raises NotAMapping."""
    if not text.strip():
        return {}
    try:
        # JSON first: YAML 1.1 reads JSON's 1e-3 as a string.
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise NotAMapping(f"This is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise NotAMapping("Write a mapping, for example credit: {estimator: discounted, gamma: 0.5}")
    return found


def waiting(question: Question, seconds: float) -> str:
    """What is going on, in one line of plain text."""
    state = "Waiting" if question.status == "waiting" else "Working"
    return f"{state} for {seconds:.0f} s: {question.phase}"


def why_not(question: Question) -> str:
    """Why there is no answer, and what to do."""
    error = question.error
    if error is None:
        return "There is no answer."
    hints = {
        "worker_lost": "Ask again; if it happens again, look at the log of the worker that answers.",
        "crashed": "Look at the log of the worker that answers (logs/aside.log of an embedded service).",
        "too_long": "Ask about fewer sequences or fewer tokens, or give OPD_QUESTION_S more seconds.",
    }
    return f"{error.message}. {hints.get(error.code, '')}".strip()


def offered(pair: ReplannedSequence) -> dict[str, Field]:
    """What both plans can be coloured by: numbers of the plan, not of the models."""
    of_models = {"log_ratio", "return_", "kl", "entropy_student", "entropy_teacher"}
    found = fields.offered([pair.recorded, pair.replanned])
    chosen = {key: field for key, field in found.items() if key not in of_models}
    # A plan without gates lets everything through, and that may be what the other one changes.
    return chosen or {fields.ADVANTAGE.key: fields.ADVANTAGE}


def between(pair: ReplannedSequence) -> Recorded:
    """Re-planned minus recorded, as a sequence that can be coloured. What one of them lacks is no number."""
    tokens = [_minus(after, before) for before, after in zip(pair.recorded.tokens, pair.replanned.tokens, strict=True)]
    return pair.recorded.model_copy(update={"tokens": tokens})


def _minus(after: Token, before: Token) -> Token:
    def plain(name: str) -> float | None:
        a, b = getattr(after, name), getattr(before, name)
        return None if a is None or b is None else a - b

    def by_name(name: str, otherwise: float) -> dict[str, float | None]:
        a, b = getattr(after, name), getattr(before, name)
        # A gate that is not there lets everything through; a part that is not there is nothing.
        return {key: _less(a.get(key, otherwise), b.get(key, otherwise)) for key in [*b, *(k for k in a if k not in b)]}

    update = {name: plain(name) for name in ("return_", "value", "advantage", "gate", "coefficient", "log_ratio")}
    return before.model_copy(
        update={**update, "gates": by_name("gates", 1.0), "components": by_name("components", 0.0)}
    )


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def of_difference(field: Field) -> Field:
    """The field, read from ``between``."""
    meaning = f"re-planned minus as trained: {field.meaning}"
    return replace(field, label=f"change of {field.label}", meaning=meaning, signed=True)


def heatmap(difference: Recorded, shown: Mapping[str, Field], *, theme: str) -> tuple[dict[str, Any], Scale]:
    """Position x field; every field counts in its own largest change, so that all rows can be read."""
    tokens = difference.tokens[:LONGEST_HEATMAP]
    rows = []
    for field in shown.values():
        values = [field.read(token) for token in tokens]
        largest = max((abs(value) for value in values if value is not None and math.isfinite(value)), default=0.0)
        for token, value in zip(tokens, values, strict=True):
            share = None if value is None else value / largest if largest else 0.0
            rows.append(
                (str(token.pos), field.label, share, "–" if value is None else f"{value:+.4f}", visible(token.text))
            )
    used = scale([1.0], signed=True, at_least=1.0)
    option = matrix(
        pd.DataFrame(rows, columns=["position", "field", "share", "change", "token"]),
        axes=("position", "field", "share"),
        categories=([str(token.pos) for token in tokens], [field.label for field in shown.values()]),
        names=("position", ""),
        tooltip="{@field} at {@position}: {@change}",
        used=used,
        theme=theme,
    )
    option["visualMap"]["text"] = ["row's largest rise", "row's largest fall"]
    return option, used


def numbers(before: Token, after: Token, shown: Mapping[str, Field], marks: Mapping[str, Mark]) -> pd.DataFrame:
    """Both plans' numbers of one token, as they are shown, with what is approximate. A method that has no such number
    has a dash.
    """
    listed = [fields.LOG_RATIO, fields.RETURN, *shown.values()]
    pairs = [(field, field.read(before), field.read(after)) for field in listed]
    return pd.DataFrame(
        {
            "number": [field.label for field in listed],
            "as trained": [signed(a, 4) for _, a, _ in pairs],
            "re-planned": [signed(b, 4) for *_, b in pairs],
            "change": [signed(_less(b, a), 4) for _, a, b in pairs],
            "": [
                "exact" if (mark := mark_of(field, marks)) is None or mark.exact else "approximate" for field in listed
            ],
        }
    )


def mark_of(field: Field, marks: Mapping[str, Mark]) -> Mark | None:
    """The mark of what the field shows; parts are as exact as the coefficient that they make up."""
    if field.key.startswith("part:"):
        return marks.get("coefficient")
    return marks.get({"return_": "return"}.get(field.key, field.key))


def approximate(marks: Mapping[str, Mark]) -> list[tuple[str, str]]:
    """(fields, why): those that share their reasons together."""
    together: dict[tuple[str, ...], list[str]] = {}
    for field, mark in marks.items():
        if not mark.exact:
            together.setdefault(tuple(mark.reasons), []).append(words(field.replace(":", " ")))
    return [(", ".join(names), "; ".join(reasons)) for reasons, names in together.items()]


def exact(marks: Mapping[str, Mark]) -> list[str]:
    """Fields that are what the trainer would have computed."""
    return [words(field.replace(":", " ")) for field, mark in marks.items() if mark.exact]


def forces(found: Sequence[Force], sampled: int) -> pd.DataFrame:
    """What both plans push, and to first order move, at one state."""

    def column(name: str) -> pd.Series:
        return pd.Series([getattr(one, name) for one in found], dtype="float64")

    return pd.DataFrame(
        {
            "token": [visible(one.text) for one in found],
            "as trained": column("recorded"),
            "re-planned": column("replanned"),
            "change": column("replanned") - column("recorded"),
            "moved": column("recorded_change"),
            "would move": column("replanned_change"),
            "": ["◀ sampled" if one.id == sampled else "" for one in found],
        }
    )


def routes(before: Token, after: Token) -> pd.DataFrame | None:
    """Where both plans send what the token gives up; None where neither sends anything."""
    texts = {to.id: visible(to.text) for to in (*before.route, *after.route)}
    if not texts:
        return None
    sent = [{to.id: to.weight for to in token.route} for token in (before, after)]
    table = pd.DataFrame(
        {
            "token": list(texts.values()),
            "as trained": pd.Series([sent[0].get(token, 0.0) for token in texts], dtype="float64"),
            "re-planned": pd.Series([sent[1].get(token, 0.0) for token in texts], dtype="float64"),
        }
    )
    return table.sort_values("re-planned", ascending=False, key=abs, ignore_index=True)
