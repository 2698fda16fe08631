from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_core.runs.states import ACTIVE, STATUSES, TERMINAL, TRANSITIONS, InvalidTransition, allowed, require

statuses = st.sampled_from(STATUSES)


def test_the_table_covers_every_status():
    assert set(TRANSITIONS) == set(STATUSES)


@given(frm=statuses, to=statuses)
def test_require_agrees_with_the_table(frm, to):
    if frm == to or allowed(frm, to):
        require(frm, to)
    else:
        with pytest.raises(InvalidTransition) as caught:
            require(frm, to)
        assert caught.value.allowed == sorted(TRANSITIONS[frm])


@given(path=st.lists(statuses, min_size=1, max_size=12))
def test_a_walk_through_the_machine_keeps_the_promises(path):
    walked = ["queued"]
    for status in path:
        if allowed(walked[-1], status):
            walked.append(status)
    for before, after in pairwise(walked):
        assert before not in TERMINAL, "a terminal status is left"
        if before == "cancelling":
            assert after in TERMINAL - {"succeeded"}, "a cancelled job goes on or succeeds"
        if after == "succeeded":
            assert before in ACTIVE, "a job succeeds without a worker"


@given(frm=statuses)
def test_every_job_can_end(frm):
    reachable, frontier = {frm}, [frm]
    while frontier:
        fresh = TRANSITIONS[frontier.pop()] - reachable
        reachable |= fresh
        frontier += fresh
    assert reachable & TERMINAL


def test_any_active_job_can_fail_and_all_but_cancelling_can_be_cancelled_or_requeued():
    for status in ACTIVE:
        assert allowed(status, "failed")
    for status in ACTIVE - {"cancelling"}:
        assert allowed(status, "cancelling")
        assert allowed(status, "queued")
