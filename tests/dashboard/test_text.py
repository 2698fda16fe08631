"""Text that models and users wrote is shown for what it is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dashboard.shaping.text import (
    compact,
    duration,
    escape_markdown,
    file_size,
    percent,
    readable,
    seconds_since,
    token_kind,
    visible,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" the", "·the"),
        ("\n", "↵"),
        ("\t", "⇥"),
        ("a\u202eb", "a‹U+202E›b"),
        ("\u200b", "‹U+200B›"),
        ("\u2066", "‹U+2066›"),
        ("\x00\x1b", "␀␛"),
        ("\x7f", "␡"),
        ("\x85", "‹U+0085›"),
        ("\ud800", "‹U+D800›"),
        ("\ue000", "‹U+E000›"),
        ("\u3000", "‹U+3000›"),
        ("", "∅"),
        ("<img src=x>", "<img·src=x>"),
        ("Zürich 東京", "Zürich·東京"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    visible(text).encode()  # what is shown can be sent


def test_readable_keeps_the_layout_but_hides_nothing() -> None:
    assert readable("a b\n\tc\u202e\r\ud800") == "a b\n\tc‹U+202E›␍‹U+D800›"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<eos>", "special"),
        ("<|im_end|>", "special"),
        ("[PAD]", "special"),
        (" ", "space"),
        ("\u202e", "space"),
        ("<img src=x>", "text"),
        ("a", "text"),
    ],
)
def test_token_kind(text: str, kind: str) -> None:
    assert token_kind(text) == kind


def test_escape_markdown_leaves_no_character_that_means_something() -> None:
    hostile = "**b** _i_ `c` [a](javascript:x) <img> $x$ :red[y] :material/x: # h\n- l ![i](u) ~s~ &lt; a|b"
    escaped = escape_markdown(hostile)
    for char in "*_`[]()<>$:#-!~&|":
        assert escaped.count(char) == escaped.count("\\" + char)
    assert "\n" not in escaped
    assert escape_markdown("plain words 42") == "plain words 42"


def test_numbers() -> None:
    assert [compact(v) for v in (None, 0, 12.345, 1500, 2_340_000)] == ["–", "0", "12.3", "1.5 k", "2.34 M"]
    assert compact(1.86e13, "FLOP") == "18.6 TFLOP"
    assert [percent(v) for v in (None, 0.0, 0.4321, 1.0)] == ["–", "0.0 %", "43.2 %", "100.0 %"]
    assert percent(1e-7) == "1.0e-05 %"
    assert [duration(v) for v in (None, 9.4, 126, 3725, 90000)] == ["–", "9 s", "2 min 6 s", "1 h 2 min", "1 d 1 h"]
    assert [file_size(v) for v in (12, 1536, 5 * 2**30)] == ["12 B", "1.5 KiB", "5.0 GiB"]


def test_seconds_since() -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    assert seconds_since(None) is None
    assert seconds_since(then, datetime(2026, 1, 1, 0, 1, tzinfo=UTC)) == 60
