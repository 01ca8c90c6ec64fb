"""The states of a job, as data: which may follow which."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from controlplane.resources.fine_tuning_jobs import states
from controlplane.resources.fine_tuning_jobs.states import TRANSITIONS, mark

TABLE = """
    CREATING        PENDING FAILED PAUSING CANCELLING DELETING
    RESUMING        PENDING FAILED PAUSING CANCELLING DELETING
    PENDING         RUNNING FAILED PAUSING CANCELLING DELETING
    RUNNING         RE_QUEUEING WRITING_RESULTS FAILED PAUSING CANCELLING DELETING
    RE_QUEUEING     RUNNING WRITING_RESULTS FAILED PAUSING CANCELLING DELETING
    WRITING_RESULTS COMPLETED EARLY_STOPPED FAILED DELETING
    COMPLETED       DELETING
    EARLY_STOPPED   DELETING
    FAILED          RESUMING DELETING
    PAUSING         PAUSED RESUMING FAILED CANCELLING DELETING
    PAUSED          RESUMING CANCELLING DELETING
    CANCELLING      CANCELLED DELETING
    CANCELLED       RESUMING DELETING
    DELETING
"""
ALLOWED = {line.split()[0]: set(line.split()[1:]) for line in TABLE.strip().splitlines()}


def test_every_state_has_its_row():
    assert TRANSITIONS.keys() == ALLOWED.keys()


@pytest.mark.parametrize("before", ALLOWED)
def test_a_job_goes_where_its_row_says_and_nowhere_else(before):
    for after in ALLOWED:
        row = SimpleNamespace(state=before)
        if after in ALLOWED[before] | {before}:
            mark(row, after, reason="WHY", message="because")
            assert (row.state, row.status_code, row.reason) == (after, "OK", "WHY")
        else:
            with pytest.raises(ValueError, match=f"from {before} to {after}"):
                mark(row, after)


def test_every_job_can_come_to_its_end():
    """From each state there is a way to one where nothing is held any more."""
    for state in TRANSITIONS:
        reached = {state}
        while more := {after for known in reached for after in TRANSITIONS[known]} - reached:
            reached |= more
        assert "DELETING" in reached


def test_what_holds_a_place_is_never_at_rest():
    assert not set(states.PLACED) & {"PAUSED", "CANCELLED", "FAILED", "COMPLETED", *states.QUEUED}
    assert set(states.PLACED) | set(states.QUEUED) <= set(states.ACTIVE)
