# SPDX-License-Identifier: Apache-2.0
"""The accounting of the soak notices each fault that there could be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dev.soak.accounting import Start, Task, Verdict, judge
from dev.soak.load import Marker

MARKER = Marker("round", "run")
START = Start(MARKER, "7", 100.0, 110.0, "succeeded", "out")
TASK = Task(MARKER, "success", 120.0, "7", "out")
FAILED_START = replace(START, id="6", started_at=80.0, ended_at=90.0, outcome="failed")
KILLED = Task(MARKER, "failed", 120.0, reason="no error in the log of try 3")
ASKS = replace(KILLED, reason="PromptLayerStartUncertainError: look in PromptLayer for a run")


def verdict(starts: Sequence[Start], *tasks: Task) -> Verdict:
    return judge([MARKER], starts, tasks)


def lists(found: Verdict) -> dict[str, int]:
    """Return how many cases each list has that is not empty."""
    return {name: len(value) for name, value in vars(found).items() if isinstance(value, list)}


def counts(found: Verdict) -> dict[str, int]:
    return {name: count for name, count in lists(found).items() if count}


def test_a_success_is_a_success() -> None:
    found = verdict([START], TASK)
    assert (found.succeeded, found.starts, counts(found), found.holds) == (1, 1, {}, True)


@pytest.mark.parametrize(
    ("starts", "task", "expected"),
    [
        pytest.param([START, replace(START, id="8", started_at=130.0)], TASK, "doubled", id="two"),
        pytest.param(
            [replace(FAILED_START, ended_at=105.0), START], TASK, "doubled", id="too-early"
        ),
        pytest.param([START, START], TASK, "doubled", id="the-same-request-twice"),
        pytest.param([], TASK, "false_successes", id="nothing-was-started"),
        pytest.param([START], replace(TASK, delivered=None), "false_successes", id="no-job"),
        pytest.param([START], replace(TASK, delivered="8"), "false_successes", id="another-job"),
        pytest.param([START], replace(TASK, result="in"), "false_successes", id="other-output"),
        pytest.param([START], replace(TASK, result=None), "false_successes", id="no-output"),
        pytest.param(
            [replace(START, outcome="failed")], TASK, "false_successes", id="the-job-failed"
        ),
        pytest.param(
            [replace(START, outcome="cancelled")], TASK, "false_successes", id="was-cancelled"
        ),
        pytest.param([replace(START, ended_at=121.0)], TASK, "false_successes", id="goes-on"),
        pytest.param([], Task(MARKER, "deferred"), "stuck", id="deferred"),
        pytest.param([], Task(MARKER, None), "stuck", id="not-even-scheduled"),
        pytest.param([START], KILLED, "lost", id="failed-and-says-nothing"),
        pytest.param([START], replace(KILLED, log="run 77 and -7"), "lost", id="another-id"),
    ],
)
def test_a_fault_is_noticed(starts: list[Start], task: Task, expected: str) -> None:
    found = verdict(starts, task)
    assert counts(found).get(expected) == 1
    assert not found.holds


def test_a_stuck_task_without_a_row_is_noticed() -> None:
    assert counts(verdict([])) == {"stuck": 1}


def test_a_start_that_no_task_has_asked_for_is_noticed() -> None:
    found = judge([], [START], [])
    assert counts(found) == {"stuck": 1, "lost": 1}


@pytest.mark.parametrize(
    "first", [FAILED_START, replace(FAILED_START, outcome="cancelled")], ids=["failed", "cancelled"]
)
def test_a_job_may_take_the_place_of_one_that_came_to_nothing(first: Start) -> None:
    found = verdict([START, first], TASK)
    assert (found.replaced, found.succeeded, counts(found)) == (1, 1, {})


@pytest.mark.parametrize("starts", [[], [START]], ids=["nothing", "a-run"])
@pytest.mark.parametrize(
    "reason", [ASKS.reason, "a run may be going on, which can be found in PromptLayer by"]
)
def test_a_task_that_asks_a_person_is_listed(starts: list[Start], reason: str) -> None:
    found = verdict(starts, replace(ASKS, reason=reason))
    assert counts(found) == {"uncertain": 1}
    assert reason in found.uncertain[0]
    assert found.holds


@pytest.mark.parametrize(
    "named",
    [{"log": "PromptLayer started workflow run 7."}, {"delivered": "7"}],
    ids=["in-its-log", "in-xcom"],
)
def test_a_failed_task_that_names_its_job_has_not_lost_it(named: dict[str, Any]) -> None:
    found = verdict([START], replace(KILLED, **named))
    assert (counts(found), found.holds) == ({"failed": 1}, True)


def test_a_task_fails_as_its_job_does() -> None:
    task = replace(KILLED, delivered="6", reason="PromptLayerRunFailedError: run 6 has failed")
    found = verdict([FAILED_START], task)
    assert (found.failed_as_their_jobs, counts(found)) == (1, {})


def test_an_input_that_succeeded_in_a_failed_batch_is_no_case() -> None:
    marker = Marker("round", "batch", batch_index=3)
    start, task = replace(START, marker=marker), replace(KILLED, marker=marker, delivered="7")
    assert counts(judge([marker], [start], [replace(task, reason="")])) == {}
