"""Token records as flat columns: from a row per sequence to a row per token, and from there to its entries."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc


def by_token(records: pa.Table, columns: Iterable[str]) -> pa.Table:
    """One row per token, with these columns of its sequence's lists."""
    return pa.table({name: pc.list_flatten(records[name].combine_chunks()) for name in columns})


def entries(tokens: pa.Table, ids: str, values: str) -> tuple[pa.Array, pa.Array, pa.Array]:
    """What is listed beside each token, one after another: the token's row, the id, the value."""
    targets, numbers = tokens[ids].combine_chunks(), pc.list_flatten(tokens[values].combine_chunks())
    return pc.list_parent_indices(targets), pc.list_flatten(targets), numbers.cast(pa.float64())
