"""Position x step: how a quantity of all tokens was spread, from the profiles that the trainer wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from api import schemas as s
from opd_core.runs.profiles import EDGES, QUANTILES


def matrix(found: pa.Table, rows: int, columns: int) -> s.Profile:
    """The profiles of one field, by step, as at most ``rows`` position bins x ``columns`` step bins.

    Means of a bin weigh every token the same. Quantiles of several steps are the mean of the steps' quantiles.
    """
    steps = found["step"].to_pylist()
    groups = _bins(len(steps), columns)
    counts = _table(found["tokens"])
    sums = np.nan_to_num(_table(found["mean"])) * counts
    used = _used(counts)
    merged = max(1, -(-used // rows))
    counts, sums = (_merge(table[:, :used], merged, groups) for table in (counts, sums))
    quantiles = np.array([row or [np.nan] * len(QUANTILES) for row in found["quantiles"].to_pylist()], dtype=float)
    histogram = _table(found["histogram"]).sum(0) if steps else np.zeros(len(EDGES) - 1)
    width = found["bin_width"][0].as_py() * merged if steps else 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return s.Profile(
            steps=[steps[group[0]] for group in groups],
            to_steps=[steps[group[-1]] for group in groups],
            positions=[width * row for row in range(len(counts))],
            position_width=width,
            tokens=counts.astype(int).tolist(),
            mean=_plain(sums / counts),
            average=_plain(sums.sum(0) / counts.sum(0)),
            levels=list(QUANTILES),
            quantiles=_plain(_means(quantiles, groups).T),
            edges=list(EDGES),
            histogram=histogram.astype(int).tolist(),
        )


def _bins(count: int, most: int) -> list[list[int]]:
    """0..count-1 in at most ``most`` runs of the same length; the last may be shorter."""
    size = max(1, -(-count // most))
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def _table(column: Any) -> np.ndarray:
    """A column of equally long lists -> [steps, entries]; null is NaN."""
    rows = column.to_pylist()
    return np.array(rows, dtype=float) if rows else np.zeros((0, 0))


def _means(table: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Means over each group of rows, passing over rows of NaN."""
    total, known = np.nan_to_num(table), np.isfinite(table)
    pairs = [(total[list(group)].sum(0), known[list(group)].sum(0)) for group in groups]
    return np.array([part / count for part, count in pairs]).reshape(-1, len(QUANTILES))


def _used(counts: np.ndarray) -> int:
    """Position bins up to the last one with a token."""
    return int(np.flatnonzero(counts.sum(0)).max(initial=-1)) + 1 if counts.size else 0


def _merge(table: np.ndarray, positions: int, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Sums over ``positions`` neighbouring positions and over each group of steps: [position bins, groups]."""
    missing = -table.shape[1] % positions
    table = np.pad(table, ((0, 0), (0, missing)))
    table = table.reshape(len(table), table.shape[1] // positions, positions).sum(2)
    return np.array([table[list(group)].sum(0) for group in groups]).reshape(len(groups), table.shape[1]).T


def _plain(table: np.ndarray) -> Any:
    """Nested lists with None for no number."""
    return np.where(np.isfinite(table), table.astype(object), None).tolist()  # type: ignore[call-overload]
