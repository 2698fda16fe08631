"""The loop over a service that loses, fails and forgets jobs."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from api import schemas as s
from api.client import ApiError
from cli.bench.cells import Cell, matrix
from cli.bench.ledger import Ledger
from cli.bench.plan import read
from cli.bench.run import Standing, run
from opd_core.spec import UserError
from tests.bench.test_plan import plan

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class FakeClient:
    """Jobs run to their end in two looks; those of an arm called 'breaks' fail."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.looks: dict[str, int] = {}
        self.bodies: dict[str, dict[str, Any]] = {}

    def submit(self, spec: dict[str, Any], idempotency_key: str) -> s.Job:
        if idempotency_key not in self.keys:
            self.keys.append(idempotency_key)
        job = f"job_{self.keys.index(idempotency_key)}"
        self.bodies[job] = spec
        return self.job(job)

    def job(self, id: str) -> s.Job:
        if id not in self.bodies:
            raise ApiError(404, "not_found", "Not found", "no such job")
        looks = self.looks[id] = self.looks.get(id, -1) + 1
        spec = self.bodies[id]
        ended = "failed" if spec["metadata"]["arm"] == "breaks" else "succeeded"
        return s.Job(
            id=id,
            name=spec["name"],
            status=ended if looks > 1 else "running",
            phase="",
            desired_state="run",
            attempt=1,
            queue="cpu",
            recipe=spec["recipe"],
            created_at=NOW,
            progress={"step": 10 * looks, "total": 20, "teacher_tokens": 0},
            error={"code": "x", "message": "it broke", "category": "system"} if ended == "failed" else None,
            spec=spec,
            resolved_spec=spec,
        )

    def evaluation(self, id: str) -> s.Evaluation:
        if self.bodies[id]["metadata"]["arm"] == "breaks":
            raise ApiError(404, "not_found", "Not found", "not examined")
        known = {"correct": [True, False], "length": [3, 4], "truncated": [False, False]}
        before, after = ({**known, "samples_solved": solved} for solved in ([3, 0], [4, 1]))
        return s.Evaluation(problems=[1, 2], teacher=[True, True], before=before, after=after)

    def metrics(self, id: str) -> s.Metrics:
        series = {"accuracy": [0.5, None, 0.5], "length_mean": [None, 3.0, 5.0], "size_temporal": [None, 1.0, 2.0]}
        return s.Metrics(steps=[0, 1, 2], series=series)

    def attempts(self, id: str) -> s.Page[s.Attempt]:
        return s.Page[s.Attempt](data=[])

    def report(self, id: str) -> s.Report:
        return s.Report(accuracy={"after": 0.5}, seed=self.bodies[id]["seed"])


@pytest.fixture
def world(tmp_path: Path):
    asked = read(plan(controls=[], arms=[{"name": name, "recipe": "tml-opd"} for name in ("works", "breaks")]))
    ledger = Ledger(tmp_path / "out", asked)
    said: list[str] = []
    told: list[Standing] = []

    def go(client: FakeClient, cells: list[Cell] | None = None) -> None:
        cells = matrix(asked).cells if cells is None else cells
        run(client, cells, ledger, tell=told.append, say=said.append, poll_s=0)  # type: ignore[arg-type]

    return go, ledger, said, told


def test_failures_are_kept_and_counted(world):
    go, ledger, said, told = world
    go(FakeClient())
    records = {record.label: record for record in ledger.records()}
    assert {label: record.status for label, record in records.items()} == {
        f"{arm}.base.s{seed}": status
        for arm, status in (("works", "succeeded"), ("breaks", "failed"))
        for seed in (0, 1)
    }
    assert records["breaks.base.s0"].error == "it broke"
    assert records["breaks.base.s0"].outcomes is None
    examined = records["works.base.s1"].outcomes
    assert (examined.samples_solved_before, examined.samples_solved) == ([3, 0], [4, 1])
    assert records["works.base.s1"].end == {"length_mean": 4.0}
    assert records["works.base.s1"].sizes == {"size_temporal": 1.5}
    assert (told[-1].finished, told[-1].failed, told[-1].fraction) == (4, 2, 4)
    assert 0 < told[0].fraction < 4  # half of each run is half a run
    assert "it broke" in "\n".join(said)


def test_what_has_ended_is_not_asked_for_again(world):
    go, _ledger, _, _ = world
    go(FakeClient())
    again = FakeClient()
    go(again)
    assert not again.keys


@pytest.mark.parametrize("noted", [True, False])
def test_a_run_whose_record_was_removed_is_run_again(world, noted):
    """By the same service, which knows the job that has ended; also where the first process died behind the record."""
    go, ledger, _, _ = world
    client = FakeClient()
    go(client)
    if not noted:
        ledger.kept.clear()
        go(client)
    first = {record.label: record.job for record in ledger.records()}
    (ledger.folder / "runs" / "works.base.s0.json").unlink()
    go(client)
    second = {record.label: record.job for record in ledger.records()}
    assert len(client.keys) == 5
    assert first.items() - second.items() == {("works.base.s0", first["works.base.s0"])}
    go(client)
    assert len(client.keys) == 5


def test_a_job_that_the_service_no_longer_knows_is_submitted_again(world):
    go, ledger, _, _ = world
    cells = matrix(read(plan(controls=[]))).cells[:1]
    ledger.set_job(cells[0], "job_of_a_service_that_is_gone")
    client = FakeClient()
    go(client, cells)
    assert client.keys == [cells[0].key]
    assert [record.job for record in ledger.records()] == ["job_0"]


class Queue(FakeClient):
    """One job runs at a time, in the order given; each ends the third time that it is looked at while it runs."""

    def __init__(self, first: str | None = None) -> None:
        super().__init__()
        self.first = first
        self.places: list[int] = []  # in the queue, of every job that was asked for while it waited

    def job(self, id: str) -> s.Job:
        waiting = [one for one in self.bodies if self.looks.get(one, -1) < 2]
        runs = self.first if self.first in waiting else waiting[0] if waiting else None
        if id == runs or id not in waiting:
            return super().job(id)
        self.places.append(waiting.index(id))
        found = super().job(id)
        self.looks[id] -= 1
        return found.model_copy(update={"status": "queued"})


def test_jobs_that_wait_behind_others_are_not_asked_for(world):
    go, ledger, _, _ = world
    cells = matrix(read(plan(controls=[], seeds=list(range(6))))).cells
    client = Queue()
    go(client, cells)
    assert len(ledger.records()) == len(cells) == 12
    # Eight of twelve stand further back: they are looked at as they are submitted and by the first sweep.
    assert len([place for place in client.places if place > 3]) == 2 * 8


def test_one_that_ends_out_of_its_turn_is_found_by_the_sweep(world, monkeypatch):
    go, ledger, _, _ = world
    monkeypatch.setattr("cli.bench.run._SWEEP_S", 0.0)
    cells = matrix(read(plan(controls=[], seeds=list(range(6))))).cells
    go(Queue(first="job_11"), cells)
    assert [record.job for record in sorted(ledger.records(), key=lambda r: r.job)][-1] == "job_9"
    assert len(ledger.records()) == 12


def test_a_directory_belongs_to_one_plan(tmp_path):
    Ledger(tmp_path, read(plan()))
    with pytest.raises(UserError, match="holds the plan 'small'"):
        Ledger(tmp_path, read(plan(name="other")))
    (tmp_path / "runs" / "broken.json").write_text("{}")
    with pytest.raises(UserError, match=r"broken\.json"):
        Ledger(tmp_path, read(plan())).records()
