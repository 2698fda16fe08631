"""Text from models and users, made visible and harmless; numbers, made short."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, datetime

_GLYPHS = {" ": "·", "\t": "⇥", "\n": "↵", "\r": "␍", "\u00a0": "⍽"}
# How tokenizers spell their special tokens: <eos>, <|im_end|>, [PAD], </s>.
_SPECIAL = re.compile(r"^(<[^<>\s]+>|\[[A-Z_]+\])$")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$:<>&@^=])")


def _glyph(char: str) -> str:
    """The character itself if it shows, else a name for it: C0 controls as ␀…␡, the rest as ‹U+202E›."""
    if char in _GLYPHS:
        return _GLYPHS[char]
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    # Other, format (bidi, zero width), surrogate, private use; and every separator that is not a plain space.
    if unicodedata.category(char)[0] in "CZ":
        return f"‹U+{code:04X}›"
    return char


def visible(text: str) -> str:
    """The text with whitespace, control, bidi and other invisible characters as glyphs."""
    return "".join(map(_glyph, text)) or "∅"


def readable(text: str) -> str:
    """The text for reading: spaces, tabs and line breaks stay, everything else invisible becomes a glyph."""
    return "".join(char if char in " \t\n" else _glyph(char) for char in text)


def token_kind(text: str) -> str:
    """``special`` (a tokenizer's own token), ``space`` (nothing but invisible characters) or ``text``."""
    if _SPECIAL.match(text):
        return "special"
    if all(char.isspace() or unicodedata.category(char)[0] in "CZ" for char in text):
        return "space"
    return "text"


def words(name: str) -> str:
    """``ta_opd`` -> ``ta opd``."""
    return name.replace("_", " ")


def escape_markdown(text: str) -> str:
    """The text such that Streamlit's markdown shows it literally: for error sentences, names and labels."""
    return _MARKDOWN.sub(r"\\\1", readable(text)).replace("\n", " ")


def compact(value: float | None, unit: str = "") -> str:
    """1234567 -> ``1.23 M``; None -> ``–``."""
    if value is None:
        return "–"
    for scale, suffix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {suffix}{unit}"
    return f"{value:.3g}{' ' + unit if unit else ''}"


def percent(value: float | None, digits: int = 1) -> str:
    """0.4321 -> ``43.2 %``; None -> ``–``. What rounds to nothing but is not nothing keeps two digits."""
    if value is None:
        return "–"
    if 0 < abs(value) < 0.5 * 10 ** -(digits + 2):
        return f"{100 * value:.1e} %"
    return f"{100 * value:.{digits}f} %"


def signed(value: float | None, digits: int = 3) -> str:
    """1.5 -> ``+1.500``; None -> ``–``."""
    return "–" if value is None else f"{value:+.{digits}f}"


def number(value: float | None, with_sign: bool) -> str:
    """1.5 -> ``+1.500`` with a sign, ``1.500`` without; None -> ``–``."""
    if value is None:
        return "–"
    return signed(value) if with_sign else f"{value:.3f}"


def probability(logp: float | None) -> float | None:
    """exp; None stays None."""
    return None if logp is None else math.exp(logp)


def duration(seconds: float | None) -> str:
    """3725 -> ``1 h 2 min``; None -> ``–``."""
    if seconds is None:
        return "–"
    whole = max(0, round(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {whole % 60} s"
    return f"{whole} s"


def age(seconds: float | None) -> str:
    """3725 -> ``1 h``: the largest unit alone; None -> ``–``."""
    return "–" if seconds is None else " ".join(duration(seconds).split()[:2])


def file_size(size: int) -> str:
    """1536 -> ``1.5 KiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def seconds_since(moment: datetime | None, now: datetime | None = None) -> float | None:
    """Seconds between then and now; None when there is no then."""
    return None if moment is None else ((now or datetime.now(UTC)) - moment).total_seconds()
