"""The list of runs in words and numbers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from api.schemas import Attempt, Event, Job
from dashboard.shaping import runs as shape
from tests.dashboard.fake_api import DONE, FAILED, QUEUED, RUNNING, START, World, attempts, events


@pytest.fixture
def jobs() -> dict[str, Job]:
    """The fake service's jobs."""
    return {job_id: Job.model_validate(job) for job_id, job in World().jobs.items()}


def test_progress_in_words(jobs: dict[str, Job]) -> None:
    assert shape.progress_text(jobs[QUEUED]) == "Waiting for a free worker"
    assert shape.progress_text(jobs[RUNNING]) == "Step 12 of 60 · 19 s left"
    assert shape.progress_text(jobs[DONE]) == "Did all 60 steps"
    assert shape.progress_text(jobs[DONE], 65.0) == "Did all 60 steps in 1 min 5 s of training"
    assert shape.progress_text(jobs[FAILED]) == "Failed after 0 steps"
    preparing = jobs[QUEUED].model_copy(update={"status": "preparing", "phase": "loading models"})
    assert shape.progress_text(preparing) == "loading models"


def test_fraction(jobs: dict[str, Job]) -> None:
    assert [shape.fraction(jobs[i]) for i in (QUEUED, RUNNING, DONE)] == [0.0, 0.2, 1.0]


def test_accuracy(jobs: dict[str, Job]) -> None:
    assert shape.accuracy_text(jobs[QUEUED]) == "–"
    assert shape.accuracy_text(jobs[RUNNING]) == "24 % → 56 % of 98 %"


def test_search_and_status(jobs: dict[str, Job]) -> None:
    every = list(jobs.values())
    assert [job.id for job in shape.matching(every, statuses=["failed", "queued"])] == [QUEUED, FAILED]
    assert [job.id for job in shape.matching(every, text="TML live")] == [RUNNING]
    assert shape.matching(every, text="nothing like it") == []


def test_table(jobs: dict[str, Job]) -> None:
    table = shape.table(list(jobs.values()), {DONE: shape.Trend((0.2, 0.9), 2e12, 65.0)}, START + timedelta(minutes=5))
    assert table[table["Run"] == "sweep-03"].iloc[0]["Tokens"] == "–"
    row = table[table["Run"] == "demo-forward-kl"].iloc[0]
    assert (row["Gap closed"], row["Tokens"], row["Compute"]) == ("96 %", "61.2 k / 61.2 k", "2 TFLOP")
    assert row["Now"] == "Did all 60 steps in 1 min 5 s of training"
    assert (row["Status"], row["Progress"], row["Trend"], row["Age"]) == (["succeeded"], 100.0, [0.2, 0.9], "5 min")


def test_every_status_has_a_badge(jobs: dict[str, Job]) -> None:
    statuses = Job.model_fields["status"].annotation.__args__
    assert list(statuses) == shape.status_options()[0]
    assert shape.badge("hibernating")[0] == "gray"


def test_headline_computes_the_gap_while_running(jobs: dict[str, Job]) -> None:
    figures = {figure.label: figure for figure in shape.headline(jobs[RUNNING])}
    assert figures["Gap closed"].value == "43 %"
    assert figures["Student now"].delta == "+31.5 points"
    assert "Student after" in {figure.label for figure in shape.headline(jobs[DONE])}
    assert {figure.value for figure in shape.headline(jobs[QUEUED])} == {"–"}


def test_budget(jobs: dict[str, Job]) -> None:
    values = [figure.value for figure in shape.budget(jobs[DONE], shape.Trend((), 1.9e13, 65.0))]
    assert values == ["61.2 k", "61.2 k", "8.12 k", "19 TFLOP", "1 min 5 s", "2 min 6 s"]
    assert shape.budget(jobs[QUEUED], shape.Trend())[4].value == "–"


def test_events_newest_first(jobs: dict[str, Job]) -> None:
    rows = [Event.model_validate(event) for event in events(World().jobs[DONE], 60)]
    table = shape.event_table(rows)
    assert list(table["message"])[-1] == "Job accepted."
    assert table["time"].is_monotonic_decreasing


@pytest.mark.parametrize(
    ("changes", "end"),
    [({}, "–"), ({"exit_code": 2}, "exit code 2"), ({"signal": 9}, "killed by signal 9"), ({"reason": "lost"}, "lost")],
)
def test_how_an_attempt_ended(changes: dict[str, object], end: str) -> None:
    row = attempts(World().jobs[DONE])[0] | changes
    assert shape.attempt_table([Attempt.model_validate(row)])["end"][0] == end
