"""Profiles: how a quantity of all tokens of a step was spread, by position and in size. One row per step and field.

Token records hold a sample of a step's sequences; a profile is about every token of the batch and stays small, so that
heatmaps over a thousand steps need not read a thousand steps of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from opd_core.runs import parts, wire
from opd_core.runs.artifacts import RunFiles

BINS = 64
"""At most this many position bins, of equal width."""
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
# Fine around zero and still wide enough for a return over thousands of tokens: equal steps of asinh(x).
EDGES = tuple(math.sinh(0.25 * i) for i in range(-32, 33))

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("attempt", pa.int32()),
        ("field", pa.string()),
        ("bin_width", pa.int32()),  # tokens
        ("tokens", pa.list_(pa.int32())),  # by position bin
        ("mean", pa.list_(pa.float32())),  # by position bin; null without tokens
        ("quantiles", pa.list_(pa.float32())),  # at QUANTILES; empty without a finite number
        ("histogram", pa.list_(pa.int32())),  # between EDGES; what lies outside counts in the outermost
    ]
)
_FOLDER = "profiles"

Row = dict[str, Any]


def bin_width(max_new_tokens: int) -> int:
    """Tokens per position bin: the same for all steps of a run, so that bins can be compared."""
    return math.ceil(max_new_tokens / BINS)


def to_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows -> a table of SCHEMA. Raises ValueError for rows that do not fit."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def encode(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows -> bytes for the wire."""
    return wire.encode(to_table(rows))


def decode(data: bytes) -> pa.Table:
    """What ``encode`` made. Raises ValueError for anything else."""
    return wire.decode(data, "profiles", SCHEMA)


def write_part(files: RunFiles, rows: Iterable[Mapping[str, Any]], first: int, last: int, attempt: int) -> None:
    """Write the rows of steps first..last as one Parquet part."""
    write_tables(files, [to_table(rows)], first, last, attempt)


def write_tables(files: RunFiles, tables: Iterable[pa.Table], first: int, last: int, attempt: int) -> None:
    """Write tables of SCHEMA as one Parquet part."""
    name = parts.part_name(_FOLDER, first, last, attempt)
    parts.write(files, name, [pa.concat_tables(tables)], SCHEMA, use_dictionary=["field"])


def read(files: RunFiles, first: int, last: int, field: str) -> pa.Table:
    """The profiles of one field at steps first..last (inclusive), as the newest attempts wrote them, by step."""
    tables = [SCHEMA.empty_table()]
    for part in parts.parts(files, _FOLDER):
        if part.first <= last and part.last >= first:
            table = _of_field(files.url, part.name, files.size(part.name), field)
            steps = table["step"]
            tables.append(table.filter(pc.and_(pc.greater_equal(steps, first), pc.less_equal(steps, last))))
    return parts.newest(pa.concat_tables(tables)).sort_by("step")


def fields(files: RunFiles) -> list[str]:
    """Names of the fields at rest."""
    found = parts.parts(files, _FOLDER)
    if not found:
        return []
    return list(dict.fromkeys(parts.read(files, found[-1].name, ["field"])["field"].to_pylist()))


@lru_cache(maxsize=4096)
def _of_field(url: str, name: str, size: int, field: str) -> pa.Table:
    """One field's rows of a part. Parts never change; ``size`` guards against a replaced directory."""
    del size
    table = parts.read(RunFiles(url), name, SCHEMA.names)
    return table.filter(pc.equal(table["field"], field))
