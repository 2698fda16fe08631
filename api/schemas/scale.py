"""Where a colour scale ends: one rule for what the API measures of a step and for what a page measures itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

_QUANTILE = 0.98


def scale_limit(sizes: Sequence[float]) -> float:
    """The 98 % quantile of absolute values (at least one, in ascending order), so that one extreme pales nothing.

    Among mostly zeros and a few large values it would be 0, and all that differs would lie beyond it: the largest then.
    """
    quantile = sizes[math.ceil(_QUANTILE * len(sizes)) - 1]
    return float(quantile if quantile > 0 else sizes[-1])
