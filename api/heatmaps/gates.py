"""Gates over recorded tokens: which tokens they silence, how much they agree, what chance would do at their budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from api import schemas as s
from api.tokens import text_of

COLUMNS = ("token_ids", "gates", "gate_names", "gate_weights")
SILENT = 0.5  # a token below speaks at less than half of its voice


def summary(records: pa.Table, vocabulary: Sequence[str], gate: str | None, most: int) -> s.GateSummary:
    """About one gate (None: the product of all): the tokens it silences most often, and every gate's overlap with it.

    A gate that drew its tokens at random with the same budget silences every token at the overall rate; ``lift`` is how
    much more often than that a token was silenced.
    """
    names, weights, product, tokens = _columns(records)
    chosen = product if gate is None else weights[:, names.index(gate)] if gate in names else np.ones(len(tokens))
    silent = chosen < SILENT
    share = float(silent.mean()) if len(silent) else 0.0
    ids, where = np.unique(tokens, return_inverse=True)
    seen = np.bincount(where, minlength=len(ids))
    hushed = np.bincount(where, weights=silent, minlength=len(ids)).astype(int)
    order = sorted(range(len(ids)), key=lambda i: (-hushed[i], ids[i]))[:most]
    return s.GateSummary(
        tokens=len(tokens),
        silenced=share,
        mean=float(chosen.mean()) if len(chosen) else None,
        most_silenced=[
            s.SilencedToken(
                id=int(ids[i]),
                text=text_of(int(ids[i]), vocabulary),
                seen=int(seen[i]),
                silenced=int(hushed[i]),
                lift=hushed[i] / seen[i] / share,
            )
            for i in order
            if hushed[i]
        ],
        gates=names,
        overlap=_pairs(weights < SILENT, _overlap),
        chance=_pairs(weights < SILENT, _by_chance),
    )


def _pairs(silent: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], float | None]) -> list[list[float | None]]:
    """``measure`` of every pair of columns."""
    return [[measure(a, b) for b in silent.T] for a in silent.T]


def _columns(records: pa.Table) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Gate names, and per token: weight by gate, product of all, token id. A run's gates are the same in all steps."""
    named = records.filter(pc.is_valid(records["gate_names"]))
    names = named["gate_names"][0].as_py() if named.num_rows else []
    tokens = pc.list_flatten(named["token_ids"]).to_numpy()
    product = np.nan_to_num(pc.list_flatten(named["gates"]).to_numpy())
    flat = pc.list_flatten(pc.list_flatten(named["gate_weights"])).to_numpy()
    return names, np.nan_to_num(flat).reshape(len(tokens), len(names)), product, tokens


def _overlap(a: np.ndarray, b: np.ndarray) -> float | None:
    """Of the tokens that one of them silences, the share that both do."""
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else None


def _by_chance(a: np.ndarray, b: np.ndarray) -> float | None:
    """``_overlap`` of two gates that draw independently with the same budgets."""
    p, q = float(a.mean()) if len(a) else 0.0, float(b.mean()) if len(b) else 0.0
    return p * q / (p + q - p * q) if p + q else None
