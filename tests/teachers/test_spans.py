"""Spans of two tokenizations of one text, by hand."""

from __future__ import annotations

import pytest

from opd_core.teachers.spans import common_bytes, readable, same_spans


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([b"a", b"b", b"c"], [b"a", b"b", b"c"], {0: 0, 1: 1, 2: 2}),
        # The teacher merges: what lies within its token is nobody's; behind it both are in step again.
        ([b"1", b"2", b" +"], [b"12", b" +"], {2: 1}),
        ([b"12", b" +"], [b"1", b"2", b" +"], {1: 2}),
        # Cut across each other.
        ([b"ab", b"c", b"d"], [b"a", b"bc", b"d"], {2: 2}),
        # Blanks before a word, or by themselves.
        ([b" a", b" b"], [b" ", b"a", b" b"], {1: 2}),
        # One character of two bytes: split by one side, by both, by none.
        ([b"\xc3", b"\xa9", b"x"], [b"\xc3\xa9", b"x"], {2: 1}),
        ([b"\xc3", b"\xa9", b"x"], [b"\xc3", b"\xa9", b"x"], {0: 0, 1: 1, 2: 2}),
        # The texts part: nothing behind is the same, not even what looks alike; nor the token within which they do.
        ([b"a", b"b", b"c"], [b"a", b"x", b"c"], {0: 0}),
        ([b"a", b"bc"], [b"a", b"bd"], {0: 0}),
        ([b"a", b"b"], [b"a"], {0: 0}),
        ([], [b"a"], {}),
        ([b"a"], [], {}),
    ],
)
def test_tokens_that_begin_and_end_together(ours, theirs, expected):
    assert same_spans(ours, theirs) == expected
    assert same_spans(theirs, ours) == {j: i for i, j in expected.items()}


def test_a_blank_before_the_text_belongs_to_the_first_token_of_the_other_side():
    assert same_spans([b"7", b" +"], [b" 7", b" +"], lead=1) == {1: 1}
    assert same_spans([b"7", b" +"], [b" ", b"7", b" +"], lead=1) == {0: 1, 1: 2}
    assert same_spans([b" 7", b" +"], [b" 7", b" +"], lead=0) == {0: 0, 1: 1}


def test_what_both_begin_with():
    assert [common_bytes(*pair) for pair in ((b"", b"a"), (b"ab", b"ac"), (b"ab", b"abc"), (b"x", b"y"))] == [
        0,
        1,
        2,
        0,
    ]


def test_text_ends_before_bytes_that_are_no_character():
    assert readable([b"a", b"\xc3", b"\xa9"]) == "aé"
    assert readable([b"a", b"\xc3"]) == "a"  # cut by the length cap
    assert readable([b"a", b"\xff", b"b"]) == "a"
    assert readable([]) == ""
