"""Tables on the wire: one compressed Arrow IPC stream."""

from __future__ import annotations

import io

import pyarrow as pa


def encode(table: pa.Table) -> bytes:
    """The table as bytes."""
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def decode(data: bytes, what: str, *schemas: pa.Schema) -> pa.Table:
    """The table that ``encode`` was given. Raises ValueError for anything that is no table of one of the schemas."""
    try:
        table = pa.ipc.open_stream(data, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"not a payload of {what}: {error}") from error
    if not any(table.schema.equals(schema) for schema in schemas):
        raise ValueError(f"not a payload of {what}: another schema")
    return table
