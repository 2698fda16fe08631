"""Is the run still what it was meant to be? Alarms on the length of completions, in both directions.

early_stopping    the mean length, smoothed, has stayed below half of what it was in the first steps
length_explosion  more than half of the completions, smoothed, meet the length cap, which few did at first

A pure function of the steps so far: its state is a small JSON value that a checkpoint keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIRST = 5  # steps that say what is normal
_IN_A_ROW = 5  # steps that a condition has to hold
_DECAY = 0.8
_SHORT = 0.5  # of the first steps' length
_CUT = 0.5  # share of truncated completions
_CUT_AT_FIRST = 0.25  # above this many at first, the cap was too low from the start: no alarm


def observe(
    state: Mapping[str, Any], step: int, *, length_mean: float, truncated: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Take in update ``step``: (the new state, what is found for the first time). The first state is ``{}``.

    ``length_mean`` in tokens, ``truncated`` the share of completions that met the length cap. A finding holds
    ``check``, ``since_step`` (where the condition began), ``value`` and a ``sentence``.
    """
    seen = {"steps": 0, "length": {}, "cut": {}, "found": [], **state}
    steps = seen["steps"] + 1
    length = _smoothed(seen["length"], steps, length_mean)
    cut = _smoothed(seen["cut"], steps, truncated)
    short = steps > _FIRST and length["now"] < _SHORT * length["first"]
    long = steps > _FIRST and cut["now"] > _CUT and cut["first"] <= _CUT_AT_FIRST
    found = []
    for check, condition, series, sentence in (
        ("early_stopping", short, length, _early_stopping),
        ("length_explosion", long, cut, _length_explosion),
    ):
        series["since"] = (series["since"] or step) if condition else None
        series["row"] = series["row"] + 1 if condition else 0
        if series["row"] == _IN_A_ROW and check not in seen["found"]:
            found.append(
                {
                    "check": check,
                    "since_step": series["since"],
                    "value": series["now"],
                    "sentence": sentence(series["first"], series["now"], series["since"]),
                }
            )
    names = [*seen["found"], *(finding["check"] for finding in found)]
    return {"steps": steps, "length": length, "cut": cut, "found": names}, found


def _smoothed(series: Mapping[str, Any], steps: int, value: float) -> dict[str, Any]:
    """Mean of the first steps, and the moving average that starts from it."""
    before = {"first": 0.0, "now": 0.0, "since": None, "row": 0, **series}
    if steps <= _FIRST:
        first = before["first"] + (value - before["first"]) / steps
        return {**before, "first": first, "now": first}
    return {**before, "now": _DECAY * before["now"] + (1.0 - _DECAY) * value}


def _early_stopping(first: float, now: float, since: int) -> str:
    return (
        f"early stopping: since step {since} completions have less than half of their first length ({now:.1f} tokens "
        f"on average, {first:.1f} in the first {_FIRST} steps); log-ratio returns are negative on average, so the "
        "usual cause is undiscounted credit for the future, which makes ending early pay: try credit.critic.form "
        "'differential', credit.critic.end_of_sequence 'immediate' or a smaller credit.gamma"
    )


def _length_explosion(first: float, now: float, since: int) -> str:
    return (
        f"length explosion: since step {since} most completions meet rollout.max_new_tokens ({now:.0%}, {first:.0%} "
        f"in the first {_FIRST} steps); the usual cause is credit in which going on costs nothing (immediate, or a "
        "differential critic) beside a teacher that is unsure where to end: try credit.critic.form 'split', a larger "
        "credit.gamma or a smaller optimizer.lr"
    )
