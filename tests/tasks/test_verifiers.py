"""Right or wrong, case by case."""

from __future__ import annotations

from decimal import Decimal

import pytest
from pydantic import ValidationError

from opd_core.spec import UserError, Verifier
from opd_core.tasks.verifiers import last_number, make_verifier


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("Paris", "Paris", True),
        ("  paris \n", "Paris", True),
        ("New\n  York", "new york", True),
        ("Straße", "STRASSE", True),
        ("ﬁne", "fine", True),  # a ligature
        ("Paris.", "Paris", False),
        ("", "Paris", False),
        ("in Paris", "Paris", False),
    ],
)
def test_exact_match(completion: str, answer: str, right: bool) -> None:
    assert make_verifier(Verifier())(completion, answer) is right


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so the answer is 42.", "42"),
        ("#### 1,200", "1200"),
        ("3 + 4 = 7", "7"),
        ("it is -3", "-3"),
        ("x=-3.50", "-3.50"),
        ("12-5", "5"),
        ("pages 3-7", "7"),
        ("$1,234,567.89!", "1234567.89"),
        ("1,23", "23"),  # not a thousands separator
        ("between 5, 6", "6"),
        (".5", "0.5"),
        ("version 2.", "2"),
        ("no number", None),
        ("", None),
    ],
)
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("5 + 9 = 14, so 14.0", "#### 14", True),
        ("14, or rather 15", "14", False),
        ("none", "14", False),
        ("none", "none", False),
    ],
)
def test_last_number_matches(completion: str, answer: str, right: bool) -> None:
    assert make_verifier(Verifier(kind="last_number"))(completion, answer) is right


@pytest.mark.parametrize(
    ("pattern", "completion", "answer", "right"),
    [
        (r"\\boxed\{([^}]*)\}", r"first \boxed{3}, then \boxed{ X }", "x", True),
        (r"\\boxed\{([^}]*)\}", r"first \boxed{x}, then \boxed{3}", "x", False),
        (r"[A-D]", "A? No: C", "c", True),
        (r"answer: (\w+)", "no idea", "a", False),
        (r"a(x)?", "a", "x", False),  # the group took no part in the match
    ],
)
def test_regex(pattern: str, completion: str, answer: str, right: bool) -> None:
    assert make_verifier(Verifier(kind="regex", pattern=pattern))(completion, answer) is right


def test_a_pattern_that_backtracks_without_end_is_an_error_and_no_hang() -> None:
    verify = make_verifier(Verifier(kind="regex", pattern=r"^(a|aa)+$"))
    assert verify("aaa", "a") is True
    with pytest.raises(UserError, match=r"task\.verifier\.pattern: '\^\(a\|aa\)\+\$' searched") as refused:
        verify("a" * 200 + "!", "a")
    assert (refused.value.code, refused.value.param) == ("slow_pattern", "task.verifier.pattern")


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "[a"])
def test_what_is_no_pattern_is_refused_in_the_spec(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"verifier\.pattern is not a regular expression"):
        Verifier(kind="regex", pattern=pattern)
