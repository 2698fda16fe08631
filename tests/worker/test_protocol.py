"""Messages to records."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from opd_core.runs import profiles, records
from tests.worker.conftest import Bench
from worker.messages import MalformedLine, parse
from worker.protocol import Recorder


@pytest.fixture
def recorder(bench: Bench) -> Recorder:
    return Recorder(bench.claim(bench.submit()), bench.store, bench.live)  # type: ignore[arg-type]


def line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def only_job(bench: Bench) -> Any:
    return bench.store.list_jobs()[0][0]


@pytest.mark.parametrize(
    "text",
    [
        b"Loading weights: 100%\n",
        b"[]\n",
        b'{"phase": "training"}\n',
        b'{"type": "teleport"}\n',
        b'{"type": "progress", "step": "many", "total": 3}\n',
        b'{"type": "metrics", "step": 1, "values": {"loss": NaN}}\n',
        b'{"type": "records", "step": 1, "payload": "***"}\n',
        b"\xff\xfe\n",
    ],
)
def test_what_is_no_message_is_named(text: bytes) -> None:
    with pytest.raises(MalformedLine):
        parse(text)


def test_unknown_extra_fields_are_fine() -> None:
    assert parse(line(type="phase", phase="training", colour="red")).type == "phase"


def test_malformed_lines_do_not_fill_the_log(bench: Bench, recorder: Recorder) -> None:
    for number in range(50):
        recorder.take(f"noise {number}\n".encode())
    events = bench.events(only_job(bench), "malformed_line")
    assert len(events) == 10
    assert "not shown" in events[-1].message


def test_phases_move_the_status(bench: Bench, recorder: Recorder) -> None:
    seen = []
    for phase in ("loading models", "training", "finalizing", "writing the model card"):
        recorder.take(line(type="phase", phase=phase))
        job = only_job(bench)
        seen.append((job.status, job.phase))
    assert seen == [
        ("preparing", "loading models"),
        ("running", "training"),
        ("finalizing", "finalizing"),
        ("finalizing", "writing the model card"),
    ]


def test_an_impossible_status_is_a_warning(bench: Bench, recorder: Recorder) -> None:
    recorder.take(line(type="phase", phase="finalizing"))
    recorder.take(line(type="phase", phase="training"))
    assert only_job(bench).status == "finalizing"
    assert len(bench.events(only_job(bench), "malformed_line")) == 1


def test_cancelling_survives_a_phase(bench: Bench, recorder: Recorder) -> None:
    bench.store.request_cancel(only_job(bench).id)
    recorder.take(line(type="phase", phase="training"))
    assert only_job(bench).status == "cancelling"


def test_accuracies_are_merged(bench: Bench, recorder: Recorder) -> None:
    recorder.take(line(type="accuracy", before=0.2, teacher=1.0))
    recorder.take(line(type="progress", step=5, total=10, accuracy=0.5))
    recorder.take(line(type="accuracy", after=0.9, gap_recovered=0.875))
    accuracy = only_job(bench).accuracy
    assert accuracy == {"before": 0.2, "teacher": 1.0, "latest": 0.5, "after": 0.9, "gap_recovered": 0.875}


def test_records_reach_the_live_stream_as_bytes(bench: Bench, recorder: Recorder) -> None:
    payload, spread = records.encode([]), profiles.encode([])
    recorder.take(line(type="records", step=3, payload=_ascii(payload)))
    recorder.take(line(type="records", step=4, payload=_ascii(payload), profile=_ascii(spread)))
    assert bench.live.records == [(3, 1, payload, None), (4, 1, payload, spread)]


def test_a_profile_that_is_none_is_refused(bench: Bench, recorder: Recorder) -> None:
    recorder.take(line(type="records", step=3, payload=_ascii(records.encode([])), profile=_ascii(b"nonsense")))
    assert bench.live.records == []


def _ascii(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def test_removed_checkpoints_are_forgotten(bench: Bench, recorder: Recorder) -> None:
    for step in (1, 2):
        name = f"step-{step:06d}.a1"
        recorder.take(line(type="checkpoint", step=step, name=name, kind="training", size_bytes=0, files=[]))
    recorder.take(line(type="checkpoint_removed", name="step-000001.a1"))
    assert [checkpoint.step for checkpoint in bench.store.list_checkpoints(only_job(bench).id)] == [2]


def test_a_stale_attempt_writes_nothing(bench: Bench, recorder: Recorder) -> None:
    job = only_job(bench)
    bench.store.requeue(job.id, 1, crashed=False)
    bench.claim(job)
    before = bench.job(job)
    recorder.take(line(type="progress", step=9, total=10))
    recorder.take(line(type="phase", phase="training"))
    recorder.take(line(type="metrics", step=9, values={"loss": 1.0}))
    assert bench.job(job) == before
    assert bench.store.get_metrics(job.id) == []
