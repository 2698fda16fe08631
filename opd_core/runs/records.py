"""Token records: one row per recorded sequence, lists per token. Arrow on the wire, Parquet at rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc

from opd_core.runs import parts, wire
from opd_core.runs.artifacts import CorruptArtifact, RunFiles
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
    ("origin", pa.string()),
    ("length", pa.int32()),
    ("bootstrap", pa.float32()),
    ("batch", pa.string()),
]
"""``origin``: who wrote the row (student, teacher, data). ``bootstrap``: V after the last token, null without a critic.
``batch``: what is true of the whole step, as JSON (see ``opd_core.diagnostics.records``)."""
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
    "logp_behaviour",
    "critic_outputs",
    "logp_reference",
)
"""``values`` (V) and ``critic_outputs`` (what V was made from) are null as a whole where the method has no critic,
``logp_reference`` where it looks at no reference."""
# names, once per row, and the list beside them: per token one number for each name
NAMED = {"gate_names": "gate_weights", "component_names": "component_values"}
# ids and the values beside them; the probe's lists are null where the state was not probed
_TOP = {
    "student_top_ids": ("student_top_logp", "student_top_teacher_logp", "student_top_reference_logp"),
    "teacher_top_ids": ("teacher_top_logp", "teacher_top_student_logp", "teacher_top_reference_logp"),
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
        ("replies", pa.list_(_ids)),
        *((name, pa.list_(_floats)) for names in _TOP.values() for name in names),
    ]
)
"""Token lists have one entry per action (a token that was not written for the student); named, top-k, route and probe
entries are lists themselves. ``replies``: the ids that an environment put behind an action, null where it said nothing.
"""
# What was recorded before these columns were added is still read: they are null there.
_ADDED_FOR_CRITICS = ("values", *NAMED, *NAMED.values())
_ADDED_FOR_REPLANS = (
    *("bootstrap", "batch", "logp_behaviour", "critic_outputs", "logp_reference"),
    *("student_top_reference_logp", "teacher_top_reference_logp"),
)
_ADDED_FOR_STATES = ("origin",)
_ADDED_FOR_TOOLS = ("replies",)
_ADDED = (_ADDED_FOR_TOOLS, _ADDED_FOR_STATES, _ADDED_FOR_REPLANS, _ADDED_FOR_CRITICS)
_EARLIER = [
    pa.schema([field for field in SCHEMA if field.name not in {name for names in _ADDED[: age + 1] for name in names}])
    for age in range(len(_ADDED))
]

_FLOAT_PATHS = [f"{name}.list.element" for name in TOKEN_FLOATS] + [
    f"{name}.list.element.list.element" for names in (NAMED.values(), *_TOP.values()) for name in names
]
_FOLDER = "records"
_INDEX = f"{_FOLDER}/index.json"
_GROUP_TOKENS = 4096

Row = dict[str, Any]


def encode(rows: Iterable[Row]) -> bytes:
    """Rows -> bytes for the wire. Raises ValueError for rows that do not fit SCHEMA."""
    return wire.encode(to_table(rows))


def decode(data: bytes) -> list[Row]:
    """The rows of ``encode``. Raises ValueError for anything else."""
    return cast(list[Row], decode_table(data).to_pylist())


def decode_table(data: bytes) -> pa.Table:
    """The rows of ``encode`` as a table of SCHEMA. Raises ValueError for anything else."""
    return _completed(_open(data), SCHEMA.names)


def count(data: bytes) -> int:
    """How many rows an encoded payload holds."""
    return int(_open(data).num_rows)


def _open(data: bytes) -> pa.Table:
    return wire.decode(data, "token records", SCHEMA, *_EARLIER)


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


class Recorded(NamedTuple):
    """How much of a step was recorded; ``tokens`` None = not counted."""

    sequences: int
    tokens: int | None


Contents = dict[tuple[int, int], tuple[int, int]]
"""(step, attempt) -> (sequences, tokens)."""


def part_name(first: int, last: int, attempt: int) -> str:
    """Name of the part that holds steps first..last as written by one attempt."""
    return parts.part_name(_FOLDER, first, last, attempt)


def write_part(files: RunFiles, rows: Sequence[Row], first: int, last: int, attempt: int) -> str:
    """Write the rows of steps first..last as one Parquet part; returns its name."""
    return write_tables(files, [to_table(rows)], first, last, attempt)


def write_tables(files: RunFiles, tables: Iterable[pa.Table], first: int, last: int, attempt: int) -> str:
    """Write tables of SCHEMA as one Parquet part; returns its name."""
    name = part_name(first, last, attempt)
    contents: Contents = {}
    parts.write(
        files,
        name,
        _counted(_groups(tables), contents),
        SCHEMA,
        # Floats compress best as byte planes (measured 17 against 27 bytes per token), strings as dictionaries.
        use_dictionary=["prompt", "answer", "reason", "origin", "batch"],
        use_byte_stream_split=_FLOAT_PATHS,
    )
    counted = {"size": files.size(name), "steps": [[*key, *counts] for key, counts in contents.items()]}
    files.write_json(_INDEX, {**_read_index(files), name: counted})
    return name


def _counted(groups: Iterable[pa.Table], contents: Contents) -> Iterator[pa.Table]:
    """The groups as they come; ``contents`` learns what is in them."""
    for group in groups:
        for key, recorded in _contents_of(group).items():
            sequences, tokens = contents.get(key, (0, 0))
            contents[key] = (sequences + recorded[0], tokens + recorded[1])
        yield group


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Runs of rows of about _GROUP_TOKENS tokens: whoever looks at one sequence reads no more than that."""
    held: list[pa.Table] = []
    tokens = 0
    for table in tables:
        start = 0
        for stop, length in enumerate(table["length"].to_pylist(), 1):
            tokens += length
            if tokens >= _GROUP_TOKENS:
                yield pa.concat_tables([*held, table.slice(start, stop - start)])
                held, tokens, start = [], 0, stop
        if start < table.num_rows:
            held.append(table.slice(start))
    if held:
        yield pa.concat_tables(held)


def read_step(files: RunFiles, step: int) -> list[Row]:
    """The recorded sequences of one step, by ``n``; [] when nothing was recorded."""
    return read_steps(files, step, step)


def read_steps(files: RunFiles, first: int, last: int, columns: Sequence[str] | None = None) -> list[Row]:
    """Recorded sequences of steps first..last (inclusive), by step and ``n``, as the newest attempt wrote them.

    ``columns`` limits what is read; ``step``, ``n`` and ``attempt`` always come along.
    """
    rows = cast(list[Row], read_table(files, first, last, columns).to_pylist())
    return sorted(rows, key=lambda row: (row["step"], row["n"]))


def read_table(files: RunFiles, first: int, last: int, columns: Sequence[str] | None = None) -> pa.Table:
    """What ``read_steps`` reads, in no order, for questions about many tokens: no object is made per number."""
    wanted = SCHEMA.names if columns is None else list(dict.fromkeys(["step", "n", "attempt", *columns]))
    tables = [pa.schema([SCHEMA.field(name) for name in wanted]).empty_table()]
    for part in parts.parts(files, _FOLDER):
        if part.first <= last and part.last >= first:
            table = _completed(parts.read(files, part.name, wanted, step=(first, last)), wanted)
            tables.append(
                table.filter(pc.and_(pc.greater_equal(table["step"], first), pc.less_equal(table["step"], last)))
            )
    return parts.newest(pa.concat_tables(tables))


def read_sequence(files: RunFiles, step: int, n: int) -> Row | None:
    """One recorded sequence, as the newest attempt at its step wrote it; None when there is none."""
    index = _read_index(files)
    held = [
        (attempt, part.name)
        for part in parts.parts(files, _FOLDER)
        if part.first <= step <= part.last
        for found, attempt in _held(files, part.name, index)
        if found == step
    ]
    if not held:
        return None
    table = parts.read(files, max(held)[1], SCHEMA.names, step=(step, step), n=(n, n))
    return row_of(_completed(table, SCHEMA.names), step, n)


def row_of(table: pa.Table, step: int, n: int) -> Row | None:
    """The row of that sequence; None when the table does not hold it."""
    found = table.filter(pc.and_(pc.equal(table["step"], step), pc.equal(table["n"], n))).to_pylist()
    return cast(Row, found[0]) if found else None


def recorded_steps(files: RunFiles) -> dict[int, Recorded]:
    """What was recorded of every step at rest."""
    newest: dict[int, tuple[int, Recorded]] = {}
    index = _read_index(files)
    for part in parts.parts(files, _FOLDER):
        for (step, attempt), counts in _held(files, part.name, index).items():
            newest[step] = max(newest.get(step, (0, Recorded(0, 0))), (attempt, Recorded(*counts)))
    return {step: recorded for step, (_, recorded) in sorted(newest.items())}


def _read_index(files: RunFiles) -> dict[str, Any]:
    """What each part holds, as its writer counted it: opening a thousand parts takes seconds.

    Only a shortcut. A part that it does not know (the writer died in between, or is of an earlier version) is opened.
    """
    try:
        return _parsed(files.url, files.size(_INDEX))
    except (FileNotFoundError, CorruptArtifact):
        return {}


@lru_cache(maxsize=64)
def _parsed(url: str, size: int) -> dict[str, Any]:
    """Parsed once for each length of the file: it only ever grows."""
    del size
    return cast(dict[str, Any], RunFiles(url).read_json(_INDEX))


def _held(files: RunFiles, name: str, index: dict[str, Any]) -> Contents:
    size, known = files.size(name), index.get(name)
    if known is None or known["size"] != size:
        return _contents(files.url, name, size)
    return {(step, attempt): (sequences, tokens) for step, attempt, sequences, tokens in known["steps"]}


@lru_cache(maxsize=4096)
def _contents(url: str, name: str, size: int) -> Contents:
    """What is in a part. Parts never change; ``size`` guards against a replaced directory."""
    del size
    return _contents_of(parts.read(RunFiles(url), name, ["step", "attempt", "length"]))


def _contents_of(table: pa.Table) -> Contents:
    found = table.group_by(["step", "attempt"], use_threads=False).aggregate([("length", "count"), ("length", "sum")])
    return {(row["step"], row["attempt"]): (row["length_count"], row["length_sum"]) for row in found.to_pylist()}
