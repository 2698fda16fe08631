"""How large the numbers of a step's tokens are: what a page needs to colour one sequence on the scale of all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from api import schemas as s
from api.columns import by_token, entries

_COLUMN = {
    "log_ratio": "log_ratio",
    "return": "returns",
    "value": "values",
    "advantage": "advantages",
    "gate": "gates",
    "coefficient": "coefficients",
    "kl": "kl",
    "entropy_student": "entropy_student",
    "entropy_teacher": "entropy_teacher",
}
_NAMED = {"gate": ("gate_names", "gate_weights"), "part": ("component_names", "component_values")}
_PROBED = ("token_ids", "probe_ids", "probe_realised")
COLUMNS = ("n", *_COLUMN.values(), *(column for pair in _NAMED.values() for column in pair), *_PROBED)


def quantities(table: pa.Table) -> list[s.Quantity]:
    """Each number that some token of these rows has (columns: ``COLUMNS``)."""
    found = ((name, values[np.isfinite(values)]) for name, values in _numbers(table))
    return [_quantity(name, values) for name, values in found if len(values)]


def _numbers(table: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of all tokens, as the token's schema names them; NaN where a token has none."""
    for name, column in _COLUMN.items():
        yield name, _flat(table[column])
    for kind, (names, numbers) in _NAMED.items():
        named = table.filter(pc.is_valid(table[names]))
        entries = named[names][0].as_py() if named.num_rows else []  # a run's names are the same in all rows
        values = _flat(pc.list_flatten(named[numbers])).reshape(-1, len(entries)) if entries else np.zeros((0, 0))
        for name, of_one in zip(entries, values.T, strict=True):
            yield f"{kind}:{name}", of_one
    yield "realised", _realised(table)


def _realised(table: pa.Table) -> np.ndarray:
    """How far the probed tokens' own probabilities moved, in percentage points."""
    tokens = by_token(table, _PROBED)
    rows, ids, moved = entries(tokens, "probe_ids", "probe_realised")
    own = pc.equal(ids, tokens["token_ids"].combine_chunks().take(rows))
    return 100.0 * np.asarray(moved.filter(own).to_numpy(zero_copy_only=False))


def _flat(lists: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.list_flatten(lists).to_numpy(), dtype=float)


def _quantity(name: str, values: np.ndarray) -> s.Quantity:
    sizes = np.sort(np.abs(values))
    limit = s.scale_limit(sizes.tolist())
    if name.startswith("gate"):
        limit = max(limit, 1.0)  # a gate that is open everywhere must look open, not extreme
    return s.Quantity(
        name=name,
        tokens=len(values),
        lowest=values.min(),
        highest=values.max(),
        limit=limit,
        beyond=int((sizes > limit).sum()),
    )
