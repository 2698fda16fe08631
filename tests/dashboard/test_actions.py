"""What the buttons of a run offer is what the service allows."""

from __future__ import annotations

import pytest

from api.schemas import Job
from dashboard.shaping.actions import possible
from opd_core.runs.states import STATUSES, TERMINAL, TRAINABLE, allowed
from tests.dashboard.fake_api import RUNNING, World


@pytest.mark.parametrize("status", STATUSES)
def test_only_what_the_status_machine_allows_is_offered(status: str) -> None:
    row = World().jobs[RUNNING] | {"status": status, "latest_checkpoint": "ckpt_1"}
    offered = possible(Job.model_validate(row))
    assert {"duplicate", "fork"} <= set(offered)
    assert ("pause" in offered) == (
        status not in ("paused", "pausing")
        and any(allowed(status, to) for to in ("pausing", "paused"))
        and status != "finalizing"
    )
    assert ("resume" in offered) == (status in ("paused", "pausing"))
    assert ("cancel" in offered) == (
        allowed(status, "cancelling") or (allowed(status, "cancelled") and status != "cancelling")
    )
    assert ("delete" in offered) == (status in TERMINAL)
    assert "save" not in offered or status in TRAINABLE


def test_a_run_without_a_checkpoint_cannot_be_forked_and_a_wish_is_offered_once() -> None:
    row = World().jobs[RUNNING]
    assert "fork" not in possible(Job.model_validate(row))
    assert "save" not in possible(Job.model_validate(row | {"save_wanted": True}))
