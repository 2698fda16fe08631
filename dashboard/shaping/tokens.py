"""One recorded sequence as a strip of coloured tokens, and the ways from token to token, sequence and step."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import Any

from api.schemas import Sequence, SequenceSummary
from dashboard.shaping.colors import Scale
from dashboard.shaping.fields import Field
from dashboard.shaping.text import number, percent, probability, token_kind, visible

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
                "newline": "\n" in (token.reply[-1].text if token.reply else token.text),
                "reply": [visible(said.text) for said in token.reply],
                "color": used.index(field.read(token)),
                "numbers": [
                    percent(probability(token.logp_student)),
                    percent(probability(token.logp_teacher)),
                    *(number(one.read(token), one.signed) for one in shown),
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
