"""Mathematical answers, equal where they mean the same: 1/2, 0.5 and \\frac{2}{4}. By math-verify and SymPy."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

_SECONDS = 2
"""For parsing and for comparing: some expressions never come back."""

logging.getLogger("math_verify").setLevel(logging.ERROR)


def math_matches(completion: str, answer: str) -> bool:
    """The last expression of the completion means what the answer means.

    What is in \\boxed{} counts before anything else. An answer is read as an expression also without $ or \\boxed{}.
    What cannot be read or takes too long is wrong. The time-out is a signal: call it from the main thread.
    """
    wanted = _read(answer)
    found = parse(completion, parsing_timeout=_SECONDS)
    return bool(wanted and found and verify(wanted, found, timeout_seconds=_SECONDS))


@lru_cache(maxsize=65_536)
def _read(answer: str) -> Any:
    # Bare LaTeX would be searched for a number: of 2\sqrt{2} it would take the 2.
    marked = answer if "$" in answer or "\\boxed" in answer else f"${answer}$"
    return parse(marked, parsing_timeout=_SECONDS) or parse(answer, parsing_timeout=_SECONDS)
