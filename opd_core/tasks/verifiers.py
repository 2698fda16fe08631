"""Built-in verifiers: is a completion's text right, given the reference answer?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal

from opd_core.spec import Verifier

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|[-+]?\.\d+")


def make_verifier(spec: Verifier) -> Callable[[str, str], bool]:
    """The function ``verify(completion, answer)`` for a spec."""
    if spec.kind == "exact_match":
        return exact_match
    if spec.kind == "last_number":
        return last_number_matches
    assert spec.pattern is not None
    pattern = re.compile(spec.pattern)
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


def regex_matches(pattern: re.Pattern[str], completion: str, answer: str) -> bool:
    """The first group (or the whole) of the pattern's last match is the answer, both normalised."""
    last = None
    for last in pattern.finditer(completion):  # noqa: B007
        pass
    if last is None:
        return False
    found = last.group(1) if pattern.groups else last.group()
    return found is not None and normalise(found) == normalise(answer)
