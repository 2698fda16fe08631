import io
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opd_core.runs import parts, records
from opd_core.runs.artifacts import RunFiles


def row(step, n=0, attempt=1, length=3):
    """A whole record; values differ by step, sequence and attempt."""
    value = step + n / 10 + attempt / 100
    pairs = [[1, 2]] * length
    floats = [[value, -value]] * length
    return {
        "step": step,
        "n": n,
        "attempt": attempt,
        "problem": 2**40 + n,
        "prompt": "Ann has 2 apples. 🍎",
        "completion": "2 + 1",
        "answer": None,
        "correct": None,
        "truncated": n % 2 == 0,
        "reason": "uniform",
        "origin": "student",
        "length": length,
        "bootstrap": -value,
        "batch": '{"sequences": 4}',
        "token_ids": list(range(length)),
        **{name: [value] * length for name in records.TOKEN_FLOATS},
        "gate_names": ["tip", "window"],
        "gate_weights": [[1.0, 0.5]] * length,
        "component_names": ["return", "baseline"],
        "component_values": [[value, -value]] * length,
        "student_top_ids": pairs,
        "student_top_logp": floats,
        "student_top_teacher_logp": floats,
        "student_top_reference_logp": floats,
        "teacher_top_ids": pairs,
        "teacher_top_logp": floats,
        "teacher_top_student_logp": floats,
        "teacher_top_reference_logp": floats,
        "route_ids": [[]] * length,
        "route_weights": [[]] * length,
        "probe_ids": [None, [1, 2], None],
        "probe_predicted": [None, [0.25, -0.25], None],
        "probe_realised": [None, [0.5, -0.5], None],
        "replies": [None, [1, 2], None],
    }


def close(found, expected):
    """Equal up to float32."""
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-6)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return found == expected


def same(found, expected):
    return set(found) == set(expected) and all(close(found[key], expected[key]) for key in expected)


def test_the_wire_form_comes_back():
    rows = [row(1, 0), row(1, 1)]
    found = records.decode(records.encode(rows))
    assert all(map(same, found, rows))
    assert records.count(records.encode(rows)) == 2
    assert records.decode(records.encode([])) == []


@pytest.mark.parametrize("data", [b"", b"nonsense", records.encode([row(1)])[:-200]])
def test_a_payload_that_is_none_is_refused(data):
    with pytest.raises(ValueError, match="token records"):
        records.decode(data)


def test_text_that_is_no_utf8_is_made_storable():
    (found,) = records.decode(records.encode([{**row(1), "prompt": "a\ud800b"}]))
    assert found["prompt"] == "a\ufffdb"


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises((ValueError, TypeError)):
        records.encode([{**row(1), "step": "one"}])


def test_parts_come_back_by_step_and_column(tmp_path):
    files = RunFiles(tmp_path)
    records.write_part(files, [row(step, n) for step in range(1, 11) for n in (1, 0)], 1, 10, 1)
    records.write_part(files, [row(11)], 11, 20, 1)
    assert [found["n"] for found in records.read_step(files, 3)] == [0, 1]
    assert same(records.read_step(files, 3)[0], row(3, 0))
    assert records.read_step(files, 12) == []
    assert [found["step"] for found in records.read_steps(files, 9, 11)] == [9, 9, 10, 10, 11]
    only = records.read_steps(files, 9, 9, columns=["log_ratio"])
    assert set(only[0]) == {"step", "n", "attempt", "log_ratio"}
    assert records.recorded_steps(files) == {**dict.fromkeys(range(1, 11), (2, 6)), 11: (1, 3)}


def test_the_highest_attempt_wins_step_by_step(tmp_path):
    files = RunFiles(tmp_path)
    records.write_part(files, [row(step, n) for step in range(1, 11) for n in (0, 1)], 1, 10, 1)
    records.write_part(files, [row(step, attempt=2) for step in range(6, 9)], 6, 8, 2)
    by_step = {found["step"]: found["attempt"] for found in records.read_steps(files, 1, 10)}
    assert by_step == {step: 2 if 6 <= step <= 8 else 1 for step in range(1, 11)}
    assert len(records.read_step(files, 7)) == 1
    assert records.recorded_steps(files)[7] == (1, 3)
    assert records.recorded_steps(files)[9] == (2, 6)


CRITICS = ("values", "gate_names", "gate_weights", "component_names", "component_values")
REPLANS = (
    "bootstrap",
    "batch",
    "logp_behaviour",
    "critic_outputs",
    "logp_reference",
    "student_top_reference_logp",
    "teacher_top_reference_logp",
)


def test_a_method_without_critic_gates_and_components_leaves_them_empty(tmp_path):
    files = RunFiles(tmp_path)
    none = {"values": None, "gate_names": [], "gate_weights": [[]] * 3, "component_names": []}
    plain = row(1) | none | {"component_values": [[]] * 3}
    records.write_part(files, [plain], 1, 1, 1)
    assert same(records.read_step(files, 1)[0], plain)
    assert same(records.decode(records.encode([plain]))[0], plain)


STATES = ("origin",)
TOOLS = ("replies",)


@pytest.mark.parametrize(
    "added",
    [TOOLS, (*STATES, *TOOLS), (*REPLANS, *STATES, *TOOLS), (*CRITICS, *REPLANS, *STATES, *TOOLS)],
    ids=["before tools", "before states", "before replans", "before critics"],
)
def test_what_was_recorded_before_a_column_was_added_is_still_read(added, tmp_path):
    files = RunFiles(tmp_path)
    earlier = {key: value for key, value in row(1).items() if key not in added}
    old = pa.Table.from_pylist([earlier], schema=pa.schema([f for f in records.SCHEMA if f.name not in added]))
    sink = io.BytesIO()
    pq.write_table(old, sink)
    files.write_bytes(records.part_name(1, 1, 1), sink.getvalue())
    records.write_part(files, [row(2)], 2, 2, 1)
    expected = earlier | dict.fromkeys(added)
    assert same(records.read_step(files, 1)[0], expected)
    assert same(records.read_steps(files, 1, 2)[1], row(2))
    assert records.read_steps(files, 1, 2, columns=["batch"])[0]["batch"] == expected["batch"]
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, old.schema) as writer:
        writer.write_table(old)
    assert same(records.decode(sink.getvalue())[0], expected)


def test_foreign_files_beside_the_parts_are_ignored(tmp_path):
    files = RunFiles(tmp_path)
    records.write_part(files, [row(1)], 1, 1, 1)
    files.write_bytes("records/notes.txt", b"hello")
    files.write_bytes("records/steps-000001-000001.a1.parquet.bak", b"hello")
    assert records.recorded_steps(files) == {1: (1, 3)}
    assert records.part_name(1, 10, 3) == "records/steps-000001-000010.a3.parquet"


def test_steps_are_listed_without_opening_what_the_writer_counted(tmp_path, monkeypatch):
    files = RunFiles(tmp_path)
    records.write_part(files, [row(step, n) for step in (1, 2) for n in (0, 1)], 1, 2, 1)
    known = (tmp_path / "records" / "index.json").read_bytes()
    records.write_part(files, [row(2, attempt=2), row(3, attempt=2)], 2, 3, 2)
    expected = {1: (2, 6), 2: (1, 3), 3: (1, 3)}
    opened = []
    original = parts.read
    monkeypatch.setattr(
        parts, "read", lambda files, name, *a, **k: opened.append(name) or original(files, name, *a, **k)
    )
    assert records.recorded_steps(files) == expected
    assert opened == []
    for index, unknown in ((known, 1), (b"{", 2), (None, 2)):  # the writer died before it; cut off; an earlier version
        records._contents.cache_clear()
        opened.clear()
        if index is None:
            (tmp_path / "records" / "index.json").unlink()
        else:
            (tmp_path / "records" / "index.json").write_bytes(index)
        assert records.recorded_steps(files) == expected
        assert len(opened) == unknown


def test_one_sequence_is_read_from_its_own_row_group(tmp_path, monkeypatch):
    files = RunFiles(tmp_path)
    monkeypatch.setattr(records, "_GROUP_TOKENS", 3)
    records.write_part(files, [row(step, n) for step in (1, 2) for n in (0, 1, 2)], 1, 2, 1)
    read = []
    original = pq.ParquetFile.read_row_groups

    def watched(part, groups, **options):
        read.append(groups)
        return original(part, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", watched)
    assert records.recorded_steps(files) == {1: (3, 9), 2: (3, 9)}
    read.clear()
    assert same(records.read_sequence(files, 2, 1), row(2, 1))
    assert read == [[4]]


def test_short_sequences_share_a_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_GROUP_TOKENS", 6)
    name = records.write_part(RunFiles(tmp_path), [row(1, n) for n in range(5)], 1, 1, 1)
    groups = pq.ParquetFile(tmp_path / name).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [2, 2, 1]


def test_row_groups_go_on_over_the_tables_of_several_steps(tmp_path, monkeypatch):
    """Steps of a few short sequences would else be hundreds of tiny groups."""
    files = RunFiles(tmp_path)
    monkeypatch.setattr(records, "_GROUP_TOKENS", 6)
    wanted = [row(step, n) for step in (1, 2, 3) for n in range(3)]
    tables = [records.to_table(wanted[:3]), records.to_table([]), records.to_table(wanted[3:6])]
    name = records.write_tables(files, [*tables, records.to_table(wanted[6:])], 1, 3, 1)
    groups = pq.ParquetFile(tmp_path / name).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [2, 2, 2, 2, 1]
    assert all(same(found, one) for found, one in zip(records.read_steps(files, 1, 3), wanted, strict=True))


def test_a_sequence_of_an_attempt_that_was_overtaken_is_gone(tmp_path):
    files = RunFiles(tmp_path)
    records.write_part(files, [row(3, 0), row(3, 1)], 1, 10, 1)
    records.write_part(files, [row(3, 0, attempt=2)], 3, 3, 2)
    assert same(records.read_sequence(files, 3, 0), row(3, 0, attempt=2))
    assert records.read_sequence(files, 3, 1) is None
    assert records.read_sequence(files, 4, 0) is None
