"""The status machine of a job, as one table.

::

    queued -> preparing -> running -> finalizing -> succeeded
    running <-> pausing -> paused -> queued
    queued -> paused, queued, paused -> cancelled (nobody works on them, so it happens at once)
    any active -> cancelling -> cancelled
    any active -> failed;  any active -> queued (its worker was drained or lost)
    any active -> preparing (an expired lease is claimed directly)

A run that was finished before its pause took effect has succeeded (or rests, if its worker was lost on the way:
finalizing -> paused); one whose cancel was accepted never has.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

Status = Literal[
    "queued",
    "preparing",
    "running",
    "pausing",
    "paused",
    "finalizing",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
]
DesiredState = Literal["run", "pause", "cancelled"]

STATUSES: tuple[Status, ...] = get_args(Status)
TERMINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})
# Nobody works on these, and somebody may.
WAITING: frozenset[Status] = frozenset({"queued", "paused"})
# There are steps to come, and a worker that makes them.
TRAINABLE: frozenset[Status] = frozenset({"preparing", "running", "pausing"})
# A worker holds a lease on these.
ACTIVE: frozenset[Status] = frozenset({"preparing", "running", "pausing", "finalizing", "cancelling"})

_ANY_TIME: frozenset[Status] = frozenset({"queued", "preparing", "cancelling", "failed"})
TRANSITIONS: dict[Status, frozenset[Status]] = {
    "queued": frozenset({"preparing", "paused", "cancelled", "failed"}),
    "preparing": _ANY_TIME | {"running", "pausing", "finalizing", "succeeded"},
    "running": _ANY_TIME | {"pausing", "finalizing", "succeeded"},
    "pausing": _ANY_TIME | {"running", "paused", "finalizing", "succeeded"},
    "finalizing": _ANY_TIME | {"paused", "succeeded"},
    "cancelling": frozenset({"cancelled", "failed"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


class InvalidTransition(ValueError):
    """A status change that the machine does not have. ``allowed`` lists those it has."""

    def __init__(self, frm: str, to: str) -> None:
        self.frm, self.to = frm, to
        self.allowed: list[str] = sorted(TRANSITIONS[cast(Status, frm)])
        choices = f"possible from here: {', '.join(self.allowed)}" if self.allowed else "that is final"
        super().__init__(f"a job that is {frm} cannot become {to}; {choices}")


def allowed(frm: str, to: str) -> bool:
    """Whether a job may go from one status to another. Staying is not a transition."""
    return to in TRANSITIONS[cast(Status, frm)]


def require(frm: str, to: str) -> None:
    """Raise InvalidTransition unless the change is allowed or changes nothing."""
    if frm != to and not allowed(frm, to):
        raise InvalidTransition(frm, to)
