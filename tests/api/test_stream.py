"""Live streams: replay, resume, gaps, the end, and a broker that goes away."""

import json
import threading
import time

import anyio
import pytest
import redis

from api.stream import Viewer
from opd_core.runs.live import LiveWriter, live_key
from tests.api.test_jobs import problem_of


@pytest.fixture
def live(broker):
    writer = LiveWriter(broker.url)
    yield writer
    writer.close()


@pytest.fixture
def attempt(store, job_id):
    """The job is claimed."""
    return store.claim(job_id, "w1", 30).attempt


def parse(text):
    """(id, type, data) of each event; comments are skipped."""
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            events.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return events


def watch(http, job_id, meanwhile=None, **options):
    """All events of a stream that ends by itself. Once it is read ``meanwhile`` happens in another thread."""
    reading, read = threading.Event(), Viewer._read

    async def noticed(viewer, *given, **patience):
        reading.set()
        return await read(viewer, *given, **patience)

    def then():
        if reading.wait(30) and meanwhile is not None:
            meanwhile()

    other = threading.Thread(target=then)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Viewer, "_read", noticed)
        other.start()
        answer = http.get(f"/v1/jobs/{job_id}/stream", **options)
        other.join()
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    return parse(answer.text)


def kinds(events):
    return [kind for _, kind, _ in events]


def test_a_finished_job_sends_its_state_and_the_end(http, job_id, store, attempt):
    error = {"code": "empty_data", "message": "no rows", "category": "user"}
    store.set_progress(job_id, attempt, {"step": 3, "total": 9, "accuracy": 0.5})
    store.finish(job_id, attempt, "failed", error)
    events = watch(http, job_id)
    assert kinds(events) == ["status", "progress", "end"]
    assert events[0][2] == {"status": "failed", "phase": "failed", "attempt": 1}
    assert (events[1][2]["step"], events[1][2]["accuracy"]) == (3, 0.5)
    assert events[2][2]["status"] == "failed"
    assert events[2][2]["error"]["code"] == "empty_data"


def test_updates_arrive_live_until_the_end(http, job_id, store, live, attempt):
    def work():
        live.publish(job_id, "progress", {"step": 1})
        live.publish(job_id, "metrics", {"step": 1, "values": {"loss": float("nan")}})
        store.finish(job_id, attempt, "succeeded")
        live.publish(job_id, "end", {"status": "succeeded"})

    events = watch(http, job_id, meanwhile=work)
    assert kinds(events) == ["status", "progress", "metrics", "status", "end"]
    assert events[2][2] == {"step": 1, "values": {"loss": None}}
    assert events[-1][2]["status"] == "succeeded"
    assert len({event_id for event_id, kind, _ in events if kind in ("progress", "metrics")}) == 2


def test_an_end_that_the_database_does_not_know_is_no_end(http, job_id, store, live, attempt):
    live.publish(job_id, "progress", {"step": 1})

    def work():
        live.publish(job_id, "end", {"status": "succeeded"})
        live.publish(job_id, "progress", {"step": 2})
        store.finish(job_id, attempt, "failed", {"code": "x"})

    events = watch(http, job_id, meanwhile=work)
    assert kinds(events) == ["status", "progress", "status", "end"]
    assert events[1][2] == {"step": 2}
    assert events[-1][2]["status"] == "failed"


def test_a_viewer_that_comes_back_misses_nothing(http, job_id, store, live, attempt):
    for step in range(6):
        live.publish(job_id, "progress", {"step": step})
    store.finish(job_id, attempt, "succeeded")
    whole = watch(http, job_id, params={"after": "0-0"})
    assert [data["step"] for _, kind, data in whole if kind == "progress"] == list(range(6))
    third = whole[2][0]
    for options in ({"headers": {"Last-Event-ID": third}}, {"params": {"after": third}}):
        rest = watch(http, job_id, **options)
        assert [data["step"] for _, kind, data in rest if kind == "progress"] == [3, 4, 5]
        assert kinds(rest)[-1] == "end"
        assert "resync" not in kinds(rest)


def test_a_viewer_that_reads_too_slowly_is_told_and_goes_on(app, http, job_id, store, live, broker, attempt):
    for step in range(300):
        live.publish(job_id, "progress", {"step": step})
    first = first_id(broker, job_id)
    anyio.run(_read_slowly, app, job_id, first, broker, live, store, attempt)


async def _read_slowly(app, job_id, first, broker, live, store, attempt):
    """The viewer takes one update, then nothing until the stream has moved on; nothing piles up meanwhile."""
    viewer = Viewer(app.state.services, job_id, first, None)
    events = viewer.events(store.get_job(job_id))
    seen = [await anext(events)]
    for step in range(300, 900):
        live.publish(job_id, "progress", {"step": step})
    redis.Redis.from_url(broker.url).xtrim(live_key(job_id), maxlen=400, approximate=False)
    store.finish(job_id, attempt, "succeeded")
    live.publish(job_id, "end", {"status": "succeeded"})
    seen += [event async for event in events]
    steps = [json.loads(event.raw_data)["step"] for event in seen if event.event == "progress"]
    missed = [index for index, event in enumerate(seen) if event.event == "resync"]
    assert steps == [*range(1, 201), *range(500, 900)]
    assert len(missed) == 1
    assert json.loads(seen[missed[0] - 1].raw_data)["step"] == 200
    assert seen[-1].event == "end"


def test_a_viewer_is_told_when_updates_were_trimmed(http, job_id, store, live, broker, attempt):
    for step in range(6):
        live.publish(job_id, "progress", {"step": step})
    first = first_id(broker, job_id)
    redis.Redis.from_url(broker.url).xtrim(live_key(job_id), maxlen=2, approximate=False)
    store.finish(job_id, attempt, "succeeded")
    events = watch(http, job_id, params={"after": first})
    assert kinds(events) == ["resync", "status", "progress", "progress", "end"]
    assert [data["step"] for _, kind, data in events if kind == "progress"] == [4, 5]
    redis.Redis.from_url(broker.url).delete(live_key(job_id))
    events = watch(http, job_id, params={"after": first})
    assert kinds(events) == ["resync", "status", "end"]
    assert "gone" in events[0][2]["reason"]


def first_id(broker, job_id):
    return redis.Redis.from_url(broker.url).xrange(live_key(job_id), count=1)[0][0].decode()


def test_types_filter_but_the_end_always_comes(http, job_id, store, live, attempt):
    live.publish(job_id, "progress", {"step": 1})
    live.publish(job_id, "accuracy", {"before": 0.5})
    store.finish(job_id, attempt, "succeeded")
    events = watch(http, job_id, params={"after": "0-0", "types": "accuracy,checkpoint"})
    assert kinds(events) == ["accuracy", "end"]


def test_without_a_broker_status_progress_and_end_still_come(http, job_id, store, broker, attempt):
    broker.stop()

    def work():
        store.set_phase(job_id, attempt, "training", "running")
        store.set_progress(job_id, attempt, {"step": 1})
        time.sleep(3.0)  # the database is asked once a second
        store.finish(job_id, attempt, "succeeded")

    events = watch(http, job_id, meanwhile=work)
    assert kinds(events) == ["status", "status", "progress", "status", "end"]
    assert [data["status"] for _, kind, data in events if kind == "status"] == ["preparing", "running", "succeeded"]


def test_what_a_broker_that_comes_back_holds_is_sent_before_the_end(http, job_id, store, broker, attempt):
    def work():
        broker.stop()
        time.sleep(0.5)
        broker.start()
        writer = LiveWriter(broker.url)
        writer.publish(job_id, "accuracy", {"before": 0.5})
        store.finish(job_id, attempt, "succeeded")
        writer.close()

    events = watch(http, job_id, meanwhile=work)
    assert kinds(events)[-1] == "end"
    assert "accuracy" in kinds(events)


def test_a_position_that_is_none_is_refused(http, job_id):
    assert problem_of(http.get(f"/v1/jobs/{job_id}/stream?after=yesterday"), 422)["param"] == "after"
    bad = http.get(f"/v1/jobs/{job_id}/stream", headers={"Last-Event-ID": "x"})
    assert problem_of(bad, 422)["param"] == "Last-Event-ID"


def test_a_lost_broker_costs_updates_and_says_so_once(broker, job_id, monkeypatch, capfd):
    monkeypatch.setattr("opd_core.runs.live._PAUSE_S", 0.0)
    writer = LiveWriter(broker.url)
    broker.stop()
    for step in range(5):
        writer.publish(job_id, "progress", {"step": step})
    assert writer.dropped == 5
    broker.start()
    writer.publish(job_id, "progress", {"step": 5})
    assert writer.dropped == 5
    logged = capfd.readouterr().err
    assert logged.count("broker_away") == 1
    assert logged.count("broker_back") == 1
    entries = redis.Redis.from_url(broker.url).xrange(live_key(job_id))
    assert [fields[b"type"] for _, fields in entries] == [b"progress", b"lost"]
    assert json.loads(entries[1][1][b"data"])["lost"] == 5
    writer.close()


def test_an_update_that_the_broker_refuses_is_dropped_alone(broker, job_id):
    from opd_core.runs import records
    from tests.runs.test_records import row

    writer = LiveWriter(broker.url)
    payload = records.encode([row(5)])
    writer.publish_records(job_id, 5, 1, payload)
    writer.publish_records(job_id, 5, 1, payload)  # ids must rise
    assert writer.dropped == 1
    writer.publish_records(job_id, 6, 1, payload)
    assert writer.dropped == 1
    LiveWriter(None).publish(job_id, "progress", {})


def test_streams_end_by_themselves(broker, job_id, live):
    live.publish(job_id, "progress", {"step": 1})
    assert 3600 < redis.Redis.from_url(broker.url).ttl(live_key(job_id)) <= 24 * 3600
