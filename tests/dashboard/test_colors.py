"""Colours say the same thing everywhere."""

from __future__ import annotations

import math

import pytest

from dashboard.shaping.colors import STEPS, Scale, diverging, ink, luminance, palettes, scale, sequential


def test_signed_scale_is_centred_and_clamps() -> None:
    used = Scale(limit=2.0, signed=True)
    assert used.index(0.0) == STEPS
    assert used.index(2.0) == used.index(99.0) == 2 * STEPS
    assert used.index(-2.0) == used.index(-99.0) == 0
    assert used.index(1.0) - STEPS == STEPS - used.index(-1.0)


def test_positive_scale_starts_at_nothing() -> None:
    used = Scale(limit=4.0, signed=False)
    assert [used.index(v) for v in (-1.0, 0.0, 4.0, 9.0)] == [0, 0, STEPS, STEPS]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_no_number_has_no_colour(value: float | None) -> None:
    assert Scale(limit=1.0, signed=True).index(value) is None


def test_scale_ends_at_the_quantile_and_counts_what_is_beyond() -> None:
    used = scale([0.01 * i for i in range(1, 101)] + [None, math.nan], signed=True)
    assert used.limit == pytest.approx(0.98)
    assert used.clamped == 2


def test_scale_of_extremes() -> None:
    assert scale([], signed=True).limit == 1.0
    assert scale([0.0, 0.0], signed=False, at_least=1.0).limit == 1.0
    # One value among many zeros must not be clamped to a scale of width zero.
    assert scale([0.0] * 99 + [-3.0], signed=True) == Scale(limit=3.0, signed=True, clamped=0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_palettes_are_blue_above_red_below_and_readable(theme: str) -> None:
    colors = diverging(theme)
    assert len(colors) == 2 * STEPS + 1
    red, blue = (lambda c: int(c[1:3], 16)), (lambda c: int(c[5:7], 16))
    assert red(colors[0]) > blue(colors[0])
    assert blue(colors[-1]) > red(colors[-1])
    assert (colors[STEPS] == "#ffffff") == (theme == "light")
    assert len(sequential(theme)) == STEPS + 1
    for kind in ("signed", "positive"):
        for background, text in palettes()[theme][kind]:
            assert text == ink(background)
            light, dark = sorted((luminance(background), luminance(text)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5
