"""Mathematical answers, equal where they mean the same: 1/2, 0.5 and \\frac{2}{4}. By math-verify and SymPy."""

from __future__ import annotations

import logging
import signal
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

_LIMIT_S = 2.0
"""For reading and comparing: some expressions never come back. Processor time: a busy machine changes no verdict."""
_AGAIN_S = 0.1
"""The signal comes again and again: what it raises inside a destructor or a callback of the collector is lost."""

logging.getLogger("math_verify").setLevel(logging.ERROR)


class _TimeUp(BaseException):
    """No Exception: math-verify would take it for something that cannot be read."""


def math_matches(completion: str, answer: str) -> bool:
    """The last expression of the completion means what the answer means.

    What is in \\boxed{} counts before anything else. An answer is read as an expression also without $ or \\boxed{}.
    What cannot be read or takes too long is wrong. The time limit is a signal: call it from the main thread.
    """
    signal.signal(signal.SIGVTALRM, _time_up)
    try:
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT_S, _AGAIN_S)
            return _matches(completion, answer)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _TimeUp:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)  # it may have struck just before the line above
        return False


def _time_up(*_: object) -> None:
    raise _TimeUp


def _matches(completion: str, answer: str) -> bool:
    wanted = _read(answer)
    found = parse(completion, parsing_timeout=None)
    return bool(wanted and found and verify(wanted, found, timeout_seconds=None))


@lru_cache(maxsize=65_536)
def _read(answer: str) -> Any:
    # Bare LaTeX would be searched for a number: of 2\sqrt{2} it would take the 2.
    marked = answer if "$" in answer or "\\boxed" in answer else f"${answer}$"
    return parse(marked, parsing_timeout=None) or parse(answer, parsing_timeout=None)
