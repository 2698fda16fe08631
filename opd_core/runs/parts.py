"""Tables that grow step by step: Parquet parts ``FOLDER/steps-FIRST-LAST.aATTEMPT.parquet``, written once.

Every table has the columns ``step`` and ``attempt``. A step that was trained again after a restart may lie in several
parts: the highest attempt wins. A part holds several row groups, and a question about one step reads only its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from opd_core.runs.artifacts import RunFiles

_PART = re.compile(r"steps-(\d{6,})-(\d{6,})\.a(\d+)\.parquet")


class Part(NamedTuple):
    """A Parquet file, by its name."""

    name: str
    first: int
    last: int
    attempt: int


def part_name(folder: str, first: int, last: int, attempt: int) -> str:
    """Name of the part that holds steps first..last as written by one attempt."""
    return f"{folder}/steps-{first:06d}-{last:06d}.a{attempt}.parquet"


def parts(files: RunFiles, folder: str) -> list[Part]:
    """All parts of a folder, by first step, then attempt."""
    found = []
    for name in files.list(folder):
        if match := _PART.fullmatch(name):
            first, last, attempt = (int(group) for group in match.groups())
            found.append(Part(f"{folder}/{name}", first, last, attempt))
    return sorted(found, key=lambda part: part[1:])


def write(files: RunFiles, name: str, groups: Iterable[pa.Table], schema: pa.Schema, **options: Any) -> None:
    """Write a part, one row group per table. ``options`` go to ParquetWriter."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd", **options) as writer:
        for group in groups:
            writer.write_table(group)
    files.write_bytes(name, sink.getvalue())


def read(files: RunFiles, name: str, columns: Sequence[str], **bounds: tuple[int, int]) -> pa.Table:
    """Those of the columns that the part has, from the row groups that may hold rows within ``bounds``.

    ``bounds`` maps integer columns to (lowest, highest). Whole row groups come back: filter what was asked for.
    """
    with files.open(name) as source:
        part = pq.ParquetFile(source)
        wanted = [i for i in range(part.metadata.num_row_groups) if _may_hold(part.metadata.row_group(i), bounds)]
        # Without Arrow's thread pool: on a busy machine its threads abort a process that exits soon after a read, and
        # a trainer's exit code has a meaning.
        return part.read_row_groups(wanted, columns=list(columns), use_threads=False)


def _may_hold(group: Any, bounds: dict[str, tuple[int, int]]) -> bool:
    for i in range(group.num_columns):
        column = group.column(i)
        if column.path_in_schema in bounds and column.is_stats_set and column.statistics.has_min_max:
            lowest, highest = bounds[column.path_in_schema]
            if column.statistics.max < lowest or column.statistics.min > highest:
                return False
    return True


def newest(table: pa.Table) -> pa.Table:
    """The rows that the highest attempt of each step wrote, in their order."""
    if len(pc.unique(table["attempt"])) < 2:
        return table
    highest = table.group_by("step", use_threads=False).aggregate([("attempt", "max")])
    wanted = dict(zip(highest["step"].to_pylist(), highest["attempt_max"].to_pylist(), strict=True))
    written = zip(table["step"].to_pylist(), table["attempt"].to_pylist(), strict=True)
    return table.filter(pa.array([attempt == wanted[step] for step, attempt in written], pa.bool_()))
