"""Right or wrong, case by case."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from decimal import Decimal

import pytest
from pydantic import ValidationError

from opd_core.spec import UserError, Verifier
from opd_core.tasks import math_answers
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


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        (r"so it is \boxed{\frac{1}{2}}", "0.5", True),
        ("the answer is 1/2", r"$\frac{1}{2}$", True),
        ("the answer is 1/2", r"\frac{2}{4}", True),
        (r"$x = \sqrt{8}$", r"$2\sqrt{2}$", True),
        ("the answer is 3. No, the answer is 4", "4", True),
        (r"\boxed{3}, \boxed{4}", "$3, 4$", True),  # several boxes are one list
        (r"\boxed{3}", "4", False),
        (r"\boxed{2\sqrt{2}}", r"2\sqrt{2}", True),
        (r"\boxed{2}", r"2\sqrt{2}", False),  # the number in a bare answer is not the answer
        (r"\boxed{(1, 2)}", "(1, 2)", True),
        ("2", "(1, 2)", False),
        (r"\boxed{3}", "x = 3", True),
        ("3", r"\boxed{3}", True),
        ("1200", "#### 1,200", True),
        ("none", "4", False),
        ("none", "none", False),
        ("the answer is 9**9**9**9", "4", False),  # nobody waits for it
    ],
)
def test_math(completion: str, answer: str, right: bool) -> None:
    assert make_verifier(Verifier(kind="math"))(completion, answer) is right


def _busy(seconds: float) -> bool:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return True


def test_the_time_of_a_mathematical_answer_is_the_processors(monkeypatch) -> None:
    monkeypatch.setattr(math_answers, "_LIMIT_S", 0.1)
    monkeypatch.setattr(math_answers, "verify", lambda *_, **__: time.sleep(0.4) is None)
    assert math_answers.math_matches("1", "1")
    monkeypatch.setattr(math_answers, "verify", lambda *_, **__: _busy(5.0))
    assert not math_answers.math_matches("1", "1")


def test_a_time_limit_that_struck_in_a_destructor_strikes_again(monkeypatch) -> None:
    def deaf(*_, **__) -> bool:
        with suppress(math_answers._TimeUp):
            _busy(5.0)
        return _busy(5.0)

    monkeypatch.setattr(math_answers, "_LIMIT_S", 0.1)
    monkeypatch.setattr(math_answers, "verify", deaf)
    assert not math_answers.math_matches("1", "1")
    assert _busy(0.3)  # and not once it is over


def test_an_answer_that_was_cut_off_while_it_was_read_is_read_again(monkeypatch) -> None:
    read = math_answers.parse
    monkeypatch.setattr(math_answers, "_LIMIT_S", 0.1)
    monkeypatch.setattr(math_answers, "parse", lambda *_, **__: _busy(5.0))
    assert not math_answers.math_matches("12345", "12345")
    monkeypatch.setattr(math_answers, "parse", read)
    assert math_answers.math_matches("12345", "12345")


def test_programs_are_not_run_unless_the_operator_allows_it() -> None:
    with pytest.raises(UserError, match="OPD_RUN_CODE") as caught:
        make_verifier(Verifier(kind="unit_tests"))
    assert (caught.value.param, caught.value.code) == ("task.verifier.kind", "not_allowed")


def test_programs_need_a_sandbox(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("OPD_RUN_CODE", "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="apt install bubblewrap"):
        make_verifier(Verifier(kind="unit_tests"))
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match="no namespaces here"):
        make_verifier(Verifier(kind="unit_tests"))


@pytest.fixture
def unit_tests(monkeypatch):
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap")
    monkeypatch.setenv("OPD_RUN_CODE", "true")
    monkeypatch.setenv("OPD_API_TOKEN", "secret")
    try:
        return make_verifier(Verifier(kind="unit_tests"))
    except UserError as error:  # a container whose host forbids namespaces
        pytest.skip(error.message)


TESTS = "assert add(2, 3) == 5\nassert add(-1, 1) == 0"


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("def add(a, b):\n    return a + b", True),
        ("Sure:\n```python\ndef add(a, b):\n    return a + b\n```\nThat is all.", True),
        ("```python\ndef add(a, b):\n    return 0\n```\nBetter:\n```\ndef add(a, b):\n    return a + b\n", True),
        ("def add(a, b):\n    return a - b", False),
        ("def add(a, b:", False),
        ("def add(a, b):\n    while True: pass", False),
        ("import os\nos._exit(0)", False),
        ("import sys\nsys.exit(0)", False),
        ("x = bytearray(2**31)\ndef add(a, b):\n    return a + b", False),
        ("print('x' * 100)\ndef add(a, b):\n    return a + b", True),
    ],
)
def test_unit_tests(unit_tests, completion: str, right: bool) -> None:
    assert unit_tests(completion, TESTS) is right


@pytest.mark.parametrize(
    "attempt",
    [
        "import urllib.request as u\nu.urlopen('http://127.0.0.1:1', timeout=2)",
        "import socket\ns = socket.create_connection(('192.0.2.1', 80), 2)",
        "open('/etc/passwd').read()",
        "open('/usr/x', 'w')",
        f"open({__file__!r}).read()",
        "import os\nassert os.environ.get('OPD_API_TOKEN')",
        "import os\nassert len([p for p in os.listdir('/proc') if p.isdigit()]) > 5",
        "open('/tmp/x', 'wb').write(bytes(2**26))",
        "import torch",
    ],
)
def test_a_program_sees_nothing_but_the_standard_library(unit_tests, attempt: str) -> None:
    assert unit_tests("", "pass") is True
    assert unit_tests(attempt, "pass") is False


@pytest.mark.parametrize("limit", ["RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_CORE"])
def test_a_program_cannot_lift_its_limits(unit_tests, limit: str) -> None:
    held = f"""
import resource
soft, hard = resource.getrlimit(resource.{limit})
assert soft == hard <= 2**29
try:
    resource.setrlimit(resource.{limit}, (hard + 1, hard + 1))
except ValueError:
    pass
else:
    raise AssertionError
"""
    assert unit_tests(held, "pass") is True


def test_scratch_space_is_there_and_goes_with_the_program(unit_tests) -> None:
    assert unit_tests("open('x', 'w').write('1')", "assert open('/tmp/x').read() == '1'")
    assert not unit_tests("", "assert open('/tmp/x').read() == '1'")
