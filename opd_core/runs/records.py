"""Token records: one row per recorded sequence, lists per token. Arrow on the wire, Parquet at rest."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from opd_core.runs.artifacts import RunFiles
from opd_core.runs.plain import storable

_floats = pa.list_(pa.float32())
_ids = pa.list_(pa.int32())
_ROW_FIELDS = [
    ("step", pa.int32()),
    ("n", pa.int32()),
    ("attempt", pa.int32()),
    ("problem", pa.int64()),
    ("prompt", pa.string()),
    ("completion", pa.string()),
    ("answer", pa.string()),
    ("correct", pa.bool_()),
    ("truncated", pa.bool_()),
    ("reason", pa.string()),
    ("length", pa.int32()),
]
TOKEN_FLOATS = (
    "logp_student",
    "logp_teacher",
    "log_ratio",
    "returns",
    "values",
    "advantages",
    "gates",
    "coefficients",
    "entropy_student",
    "entropy_teacher",
    "kl",
)
"""``values`` is null as a whole where the method has no critic."""
# names, once per row, and the list beside them: per token one number for each name
NAMED = {"gate_names": "gate_weights", "component_names": "component_values"}
# ids and the values beside them; the probe's lists are null where the state was not probed
_TOP = {
    "student_top_ids": ("student_top_logp", "student_top_teacher_logp"),
    "teacher_top_ids": ("teacher_top_logp", "teacher_top_student_logp"),
    "route_ids": ("route_weights",),
    "probe_ids": ("probe_predicted", "probe_realised"),
}
SCHEMA = pa.schema(
    [
        *_ROW_FIELDS,
        ("token_ids", _ids),
        *((name, _floats) for name in TOKEN_FLOATS),
        *((name, pa.list_(pa.string())) for name in NAMED),
        *((name, pa.list_(_floats)) for name in NAMED.values()),
        *((name, pa.list_(_ids)) for name in _TOP),
        *((name, pa.list_(_floats)) for names in _TOP.values() for name in names),
    ]
)
"""Token lists have one entry per completion token; named, top-k, route and probe entries are lists themselves."""
# What was recorded before these columns were added is still read: they are null there.
_ADDED = ("values", *NAMED, *NAMED.values())
_EARLIER = pa.schema([field for field in SCHEMA if field.name not in _ADDED])

_FLOAT_PATHS = [f"{name}.list.element" for name in TOKEN_FLOATS] + [
    f"{name}.list.element.list.element" for names in (NAMED.values(), *_TOP.values()) for name in names
]
_FOLDER = "records"
_PART = re.compile(r"steps-(\d{6,})-(\d{6,})\.a(\d+)\.parquet")

Row = dict[str, Any]


def encode(rows: Iterable[Row]) -> bytes:
    """Rows -> one compressed Arrow IPC stream. Raises ValueError for rows that do not fit SCHEMA."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(
        sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    ) as writer:
        writer.write_table(to_table(rows))
    return sink.getvalue()


def decode(data: bytes) -> list[Row]:
    """The rows of ``encode``. Raises ValueError for anything else."""
    return cast(list[Row], _completed(_open(data), SCHEMA.names).to_pylist())


def count(data: bytes) -> int:
    """How many rows an encoded payload holds."""
    return int(_open(data).num_rows)


def _open(data: bytes) -> pa.Table:
    try:
        table = pa.ipc.open_stream(data, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a payload of token records: {error}") from error
    if not (table.schema.equals(SCHEMA) or table.schema.equals(_EARLIER)):
        raise ValueError("not a payload of token records: another schema")
    return table


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows -> a table of SCHEMA. Raises ValueError for rows that do not fit."""
    return pa.Table.from_pylist([{**row, **_texts(row)} for row in rows], schema=SCHEMA)


def _completed(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Exactly these columns, null where the table was written without."""
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table.select(columns)


def _texts(row: Row) -> Row:
    # A data file may hold lone surrogates; Arrow's strings are UTF-8.
    return {key: storable(row[key]) for key in ("prompt", "completion", "answer") if row.get(key) is not None}


def part_name(first: int, last: int, attempt: int) -> str:
    """Name of the part that holds steps first..last as written by one attempt."""
    return f"{_FOLDER}/steps-{first:06d}-{last:06d}.a{attempt}.parquet"


def write_part(files: RunFiles, rows: Iterable[Row], first: int, last: int, attempt: int) -> str:
    """Write the rows of steps first..last as one Parquet part; returns its name."""
    sink = io.BytesIO()
    pq.write_table(
        to_table(rows),
        sink,
        compression="zstd",
        # Floats compress best as byte planes (measured 17 against 27 bytes per token), strings as dictionaries.
        use_dictionary=["prompt", "answer", "reason"],
        use_byte_stream_split=_FLOAT_PATHS,
    )
    name = part_name(first, last, attempt)
    files.write_bytes(name, sink.getvalue())
    return name


class Part(NamedTuple):
    """A Parquet file of token records, by its name."""

    name: str
    first: int
    last: int
    attempt: int


def parts(files: RunFiles) -> list[Part]:
    """All parts of a run, by first step, then attempt."""
    found = []
    for name in files.list(_FOLDER):
        if match := _PART.fullmatch(name):
            first, last, attempt = (int(group) for group in match.groups())
            found.append(Part(f"{_FOLDER}/{name}", first, last, attempt))
    return sorted(found, key=lambda part: part[1:])


def read_step(files: RunFiles, step: int) -> list[Row]:
    """The recorded sequences of one step, by ``n``; [] when nothing was recorded."""
    return read_steps(files, step, step)


def read_steps(files: RunFiles, first: int, last: int, columns: Sequence[str] | None = None) -> list[Row]:
    """Recorded sequences of steps first..last (inclusive), by step and ``n``.

    A step that was trained again after a restart may lie in several parts: the highest attempt wins.
    ``columns`` limits what is read; ``step``, ``n`` and ``attempt`` always come along.
    """
    rows = cast(list[Row], read_table(files, first, last, columns).to_pylist())
    return sorted(rows, key=lambda row: (row["step"], row["n"]))


def read_table(files: RunFiles, first: int, last: int, columns: Sequence[str] | None = None) -> pa.Table:
    """What ``read_steps`` reads, in no order, for questions about many tokens: no object is made per number."""
    wanted = SCHEMA.names if columns is None else list(dict.fromkeys(["step", "n", "attempt", *columns]))
    tables = [pa.schema([SCHEMA.field(name) for name in wanted]).empty_table()]
    for part in parts(files):
        if part.first <= last and part.last >= first:
            table = _completed(_read(files.read_bytes(part.name), wanted), wanted)
            tables.append(
                table.filter(pc.and_(pc.greater_equal(table["step"], first), pc.less_equal(table["step"], last)))
            )
    table = pa.concat_tables(tables)
    written = list(zip(table["step"].to_pylist(), table["attempt"].to_pylist(), strict=True))
    newest: dict[int, int] = {}
    for step, attempt in written:
        newest[step] = max(attempt, newest.get(step, 0))
    return table.filter(pa.array([attempt == newest[step] for step, attempt in written], pa.bool_()))


def recorded_steps(files: RunFiles) -> dict[int, int]:
    """Step -> number of recorded sequences, for every step at rest."""
    newest: dict[int, tuple[int, int]] = {}
    for part in parts(files):
        for step, attempt, sequences in _contents(files.url, part.name, files.size(part.name)):
            newest[step] = max(newest.get(step, (0, 0)), (attempt, sequences))
    return {step: sequences for step, (_, sequences) in sorted(newest.items())}


@lru_cache(maxsize=4096)
def _contents(url: str, name: str, size: int) -> tuple[tuple[int, int, int], ...]:
    """(step, attempt, sequences) of a part. Parts never change; ``size`` guards against a replaced directory."""
    del size
    table = _read(RunFiles(url).read_bytes(name), ["step", "attempt"])
    sequences = Counter((row["step"], row["attempt"]) for row in table.to_pylist())
    return tuple((step, attempt, count) for (step, attempt), count in sequences.items())


def _read(data: bytes, columns: list[str]) -> pa.Table:
    """The columns that the part has."""
    # Without Arrow's thread pool: on a busy machine its threads abort a process that exits soon after a read, and a
    # trainer's exit code has a meaning.
    return pq.ParquetFile(io.BytesIO(data)).read(columns=columns, use_threads=False)
