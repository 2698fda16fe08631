"""Colour scales: one diverging, one sequential, each for a light and a dark page; safe for colour-blind eyes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from api.schemas import scale_limit

STEPS = 20  # colours on each side of zero

# ColorBrewer RdBu: red = negative = pushed down, blue = positive = pulled up.
_DIVERGING = {
    "light": ["#b2182b", "#ef8a62", "#fddbc7", "#ffffff", "#d1e5f0", "#67a9cf", "#2166ac"],
    "dark": ["#f0604d", "#b0402f", "#5c2f2a", "#1a212b", "#233f5c", "#2f6fae", "#5ba4ea"],
}
_SEQUENTIAL = {
    "light": ["#ffffff", "#dadaeb", "#9e9ac8", "#54278f"],
    "dark": ["#1a212b", "#41366b", "#7b62c4", "#c3b1f5"],
}


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def blend(stops: list[str], position: float) -> str:
    """The colour at ``position`` (0 to 1) between evenly spaced ``stops``."""
    place = position * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    part = place - left
    mixed = (a + (b - a) * part for a, b in zip(_rgb(stops[left]), _rgb(stops[left + 1]), strict=True))
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def luminance(color: str) -> float:
    """Relative luminance of ``#rrggbb`` as WCAG defines it, 0 (black) to 1 (white)."""
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (value / 255 for value in _rgb(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink(background: str) -> str:
    """Black or white, whichever reads better on that background: never below 4.5 to 1."""
    on = luminance(background)
    return "#000000" if (on + 0.05) / 0.05 >= 1.05 / (on + 0.05) else "#ffffff"


def diverging(theme: str) -> list[str]:
    """``2 * STEPS + 1`` colours from most negative to most positive; the middle one is neutral."""
    return [blend(_DIVERGING[theme], i / (2 * STEPS)) for i in range(2 * STEPS + 1)]


def sequential(theme: str) -> list[str]:
    """``STEPS + 1`` colours from nothing to most."""
    return [blend(_SEQUENTIAL[theme], i / STEPS) for i in range(STEPS + 1)]


def palettes() -> dict[str, dict[str, list[tuple[str, str]]]]:
    """theme -> ``signed`` | ``positive`` -> (background, ink) per colour index."""
    return {
        theme: {
            "signed": [(color, ink(color)) for color in diverging(theme)],
            "positive": [(color, ink(color)) for color in sequential(theme)],
        }
        for theme in ("light", "dark")
    }


@dataclass(frozen=True)
class Scale:
    """Where the colours end. ``limit`` > 0 gets the strongest colour; what lies beyond is clamped to it."""

    limit: float
    signed: bool
    clamped: int = 0

    def index(self, value: float | None) -> int | None:
        """The value's place in ``diverging`` (signed) or ``sequential``; None for no number."""
        if value is None or not math.isfinite(value):
            return None
        part = max(-1.0 if self.signed else 0.0, min(1.0, value / self.limit))
        return round(part * STEPS) + (STEPS if self.signed else 0)


def scale(values: Iterable[float | None], *, signed: bool, at_least: float = 1e-6) -> Scale:
    """The scale that ends where the API's scales end (``at_least`` when all values are tiny)."""
    sizes = sorted(abs(value) for value in values if value is not None and math.isfinite(value))
    if not sizes:
        return Scale(limit=max(1.0, at_least), signed=signed)
    limit = max(scale_limit(sizes), at_least)
    return Scale(limit=limit, signed=signed, clamped=sum(size > limit for size in sizes))
