"""Where a token was written and suppressed: the way from a heatmap's row back to the sequences."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from api import schemas as s
from api.recorded import Selection

COLUMNS = ("token_ids", "log_ratio", "coefficients", "probe_ids")


def occurrences(found: Selection, token: int, most: int) -> s.Occurrences:
    """The recorded places where this token has a negative log-ratio, the most negative first."""
    table = found.table
    parents = pc.list_parent_indices(table["token_ids"].combine_chunks())
    starts = table["token_ids"].combine_chunks().offsets.take(parents)
    tokens = pa.table(
        {
            "step": table["step"].combine_chunks().take(parents),
            "n": table["n"].combine_chunks().take(parents),
            "pos": pc.subtract(pa.array(range(len(parents)), pa.int64()), _from_zero(starts)),
            **{name: pc.list_flatten(table[name].combine_chunks()) for name in COLUMNS},
        }
    )
    here = pc.and_(pc.equal(tokens["token_ids"], token), pc.less(tokens["log_ratio"], 0.0))
    tokens = tokens.filter(here)
    shown = tokens.sort_by([("log_ratio", "ascending"), ("step", "descending"), ("n", "ascending")]).slice(0, most)
    return s.Occurrences(
        token=token,
        total=tokens.num_rows,
        data=[
            s.Occurrence(
                step=row["step"],
                sequence=row["n"],
                pos=row["pos"],
                log_ratio=row["log_ratio"],
                coefficient=row["coefficients"],
                probed=row["probe_ids"] is not None,
            )
            for row in shown.to_pylist()
        ],
    )


def _from_zero(starts: Sequence[int]) -> pa.Array:
    """List offsets counted from the first one: a slice of a longer column keeps the column's own."""
    array = pa.array(starts, pa.int64())
    return pc.subtract(array, array[0]) if len(array) else array
