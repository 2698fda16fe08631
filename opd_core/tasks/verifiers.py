"""Built-in verifiers: is a completion's text right, given the reference answer?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal

import regex

from opd_core.spec import UserError, Verifier
from opd_core.tasks.unit_tests import check_sandbox, unit_tests_pass

_PATTERN_S = 1.0
"""A pattern that searches one completion for longer (of processor time) ends the job: some never come back."""
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|[-+]?\.\d+")


def make_verifier(spec: Verifier) -> Callable[[str, str], bool]:
    """The function ``verify(completion, answer)`` for a spec. UserError for one that cannot work here."""
    if spec.kind == "exact_match":
        return exact_match
    if spec.kind == "last_number":
        return last_number_matches
    if spec.kind == "math":
        from opd_core.tasks.math_answers import math_matches  # SymPy takes a second to import

        return math_matches
    if spec.kind == "unit_tests":
        check_sandbox()
        return unit_tests_pass
    assert spec.pattern is not None
    try:
        pattern = regex.compile(spec.pattern)
    except regex.error as error:
        raise _bad_pattern("bad_pattern", f"{spec.pattern!r} is not a regular expression ({error})") from error
    return lambda completion, answer: regex_matches(pattern, completion, answer)


def normalise(text: str) -> str:
    """Unicode NFKC, lower case, runs of white space as one blank, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def exact_match(completion: str, answer: str) -> bool:
    """The whole completion is the answer, both normalised."""
    return normalise(completion) == normalise(answer)


def last_number(text: str) -> Decimal | None:
    """The last number in a text: sign, thousands separators and decimals understood; None if there is none.

    A minus sign directly after a digit or letter is a dash or an operator ("12-5", "page-3"), not a sign.
    """
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007  (only the last match is wanted)
        pass
    if last is None:
        return None
    number = last.group().replace(",", "")
    if number[0] in "+-" and last.start() > 0 and text[last.start() - 1].isalnum():
        number = number[1:]
    return Decimal(number)


def last_number_matches(completion: str, answer: str) -> bool:
    """The last number of the completion equals the last number of the answer ("#### 1,200" equals "1200.0")."""
    found = last_number(completion)
    return found is not None and found == last_number(answer)


def regex_matches(pattern: regex.Pattern[str], completion: str, answer: str) -> bool:
    """The first group (or the whole) of the pattern's last match is the answer, both normalised.

    Raises UserError for a pattern that backtracks without end. ``re`` could not be stopped; ``regex`` can.
    """
    last = None
    try:
        for last in pattern.finditer(completion, timeout=_PATTERN_S):  # noqa: B007
            pass
    except TimeoutError as error:
        raise _bad_pattern(
            "slow_pattern",
            f"{pattern.pattern!r} searched a completion of {len(completion)} characters for more than {_PATTERN_S:g} s;"
            " alternatives that match the same text inside a repetition, like (a|aa)+, do that",
        ) from error
    if last is None:
        return False
    found = last.group(1) if pattern.groups else last.group()
    return found is not None and normalise(found) == normalise(answer)


def _bad_pattern(code: str, message: str) -> UserError:
    return UserError(f"task.verifier.pattern: {message}", param="task.verifier.pattern", code=code)
