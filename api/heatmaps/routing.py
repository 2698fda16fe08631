"""The routing heatmap: what the plan took from suppressed tokens, where it sent it, and where probability really moved.

A token is suppressed where its log-ratio is negative. Whole columns at a time: a range of steps holds many tokens, and
the page asks again every few seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from api import schemas as s
from api.columns import by_token
from api.heatmaps import plain
from api.recorded import Selection
from api.tokens import text_of

COLUMNS = (
    "token_ids",
    "log_ratio",
    "coefficients",
    "route_ids",
    "route_weights",
    "probe_realised",
    *plain.COLUMNS,
)

Cell = tuple[int, int]  # the suppressed token and its destination


def routing(found: Selection, vocabulary: Sequence[str], rows: int, columns: int) -> s.Heatmap:
    """Where the probability of suppressed tokens went, on average over the probed states that sampled them.

    Row = a suppressed token (most frequent first), column = a token whose probability changed or that was sent
    something (largest first). Interference between states makes single cells noisy: many states tell. What the plan
    sends is averaged over all recorded states, probed or not.
    """
    suppressed = _suppressed(found.table)
    probed = suppressed.filter(pc.is_valid(suppressed["probe_ids"]))
    moved = _cells(probed, "probe_ids", "probe_predicted", "probe_realised")
    (sent,) = _cells(suppressed, "route_ids", "route_weights")
    (alone,) = _sums(plain.plain(probed), "plain")
    states = _counts(probed)
    # Ties break by id, so that a live heatmap does not dance.
    sources = sorted(states, key=lambda token: (-states[token], token))[:rows]
    targets = _destinations(sources, moved, [sent], [alone])[:columns]

    def mean(sums: Mapping[Cell, float], counts: Mapping[int, int]) -> list[list[float]]:
        return [[sums.get((source, target), 0.0) / counts[source] for target in targets] for source in sources]

    return s.Heatmap(
        from_step=found.first,
        to_step=found.last,
        steps_read=found.read,
        steps_recorded=found.recorded,
        states=probed.num_rows,
        rows=[s.HeatmapRow(id=token, text=text_of(token, vocabulary), count=states[token]) for token in sources],
        columns=[s.HeatmapColumn(id=token, text=text_of(token, vocabulary)) for token in targets],
        predicted=mean(moved[0], states),
        realised=mean(moved[1], states),
        plain=mean(alone, states),
        routed=mean(sent, _counts(suppressed)) if sent else None,
        balance=_balance(suppressed) if sent else None,
    )


def _suppressed(records: pa.Table) -> pa.Table:
    """One row per recorded token with a negative log-ratio."""
    tokens = by_token(records, COLUMNS)
    return tokens.filter(pc.less(tokens["log_ratio"], 0.0)).combine_chunks()


def _cells(tokens: pa.Table, ids: str, *values: str) -> list[dict[Cell, float]]:
    """Each of the values beside ``ids``, summed over tokens by (token, id)."""
    targets = tokens[ids].combine_chunks()
    columns = {
        "token": tokens["token_ids"].combine_chunks().take(pc.list_parent_indices(targets)),
        "target": pc.list_flatten(targets),
        **{name: pc.list_flatten(tokens[name].combine_chunks()) for name in values},
    }
    return _sums(pa.table(columns), *values)


def _sums(entries: pa.Table, *values: str) -> list[dict[Cell, float]]:
    """Each of the values of a table with ``token`` and ``target``, summed by cell."""
    for name in values:
        entries = entries.set_column(entries.schema.get_field_index(name), name, _finite(entries[name]))
    sums = entries.group_by(["token", "target"], use_threads=False)
    found = sums.aggregate([(name, "sum") for name in values]).to_pydict()
    cells = list(zip(found["token"], found["target"], strict=True))
    return [dict(zip(cells, found[f"{name}_sum"], strict=True)) for name in values]


def _destinations(sources: Sequence[int], *kinds: Sequence[Mapping[Cell, float]]) -> list[int]:
    """All destinations of these tokens, the largest first. Changes are probabilities, routes are nats: each kind counts
    by its share.
    """
    totals: defaultdict[int, float] = defaultdict(float)
    for tables in kinds:
        shown = [(cell[1], abs(size)) for table in tables for cell, size in table.items() if cell[0] in sources]
        whole = sum(size for _, size in shown) or 1.0
        for target, size in shown:
            totals[target] += size / whole
    return sorted(totals, key=lambda token: (-totals[token], token))


def _counts(tokens: pa.Table) -> dict[int, int]:
    return {found["values"]: found["counts"] for found in pc.value_counts(tokens["token_ids"]).to_pylist()}


def _balance(suppressed: pa.Table) -> s.RouteBalance:
    total = suppressed.num_rows
    taken = pc.min_element_wise(_finite(suppressed["coefficients"]), 0.0)
    given = pc.max_element_wise(_finite(pc.list_flatten(suppressed["route_weights"])), 0.0)
    without = pc.equal(pc.list_value_length(suppressed["route_ids"]), 0)
    return s.RouteBalance(
        suppressed=total,
        released=abs(pc.sum(taken).as_py()) / total,
        routed=pc.sum(given).as_py() / total,
        empty_rate=pc.sum(without).as_py() / total,
    )


def _finite(numbers: Any) -> Any:
    """0 for what is no number."""
    return pc.if_else(pc.is_finite(numbers), numbers, 0.0)
