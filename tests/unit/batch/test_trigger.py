# SPDX-License-Identifier: Apache-2.0
"""One trigger for many runs: few polls, one deadline, one outage."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.clocks import Leap
from support.modes import first_event, rebuilt
from support.waits import trigger_for

from airflow_provider_promptlayer.submission.batch import WorkflowRuns
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowBatchTrigger


def fire(run_ids: Sequence[int], until: int = 0, **how: Any) -> dict[str, Any]:
    trigger = trigger_for(
        PromptLayerWorkflowBatchTrigger,
        WorkflowRuns(run_ids, until),
        **{"poke_interval": 0.1, **how},
    )

    async def first() -> Any:
        async with asyncio.timeout(60):
            return await first_event(rebuilt(trigger))

    payload: dict[str, Any] = asyncio.run(first()).payload
    return payload


def started(server: LocalPromptLayer, workflow: str, count: int) -> list[int]:
    return [server.start_execution(workflow, {"n": 1}) for _ in range(count)]


def test_polls_few_of_many(server: LocalPromptLayer) -> None:
    """While one goes on, the others do not matter."""
    assert fire(started(server, "Slower", 60))["outcome"] == "ended"
    polls = Counter(request.query["workflow_version_execution_id"] for request in server.requests)
    assert len(polls) == 60
    # Until they end, after 200 polls, twenty alone are polled.
    assert sum(polls.values()) <= 200 + 60 + 20


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("deadline", [3600.0, -1.0], ids=["in time", "late"])
def test_fires_when_few_are_left(server: LocalPromptLayer, first: bool, deadline: float) -> None:
    """A deadline does not matter to those that may be left."""
    endless, ended = started(server, "Endless", 30), started(server, "Echo", 30)
    runs = endless + ended if first else ended + endless
    assert fire(runs, until=30, deadline=time.time() + deadline)["outcome"] == "ended"


def test_times_out_when_more_are_left(server: LocalPromptLayer, leap: Leap) -> None:
    runs, ended = started(server, "Endless", 4), server.start_execution("Echo")
    after: list[Any] = []

    def late(request: Any) -> None:
        is_it = request.query["workflow_version_execution_id"] == str(ended)
        if is_it or after:
            after.append(request)
        if len(after) == 10:  # the others twice each, so that its answer is known by now
            leap(1000.0)

    server.script(late, times=None)
    event = fire([*runs, ended], 3, deadline=time.time() + 500.0)
    assert event["outcome"] == "timed_out"
    assert "1 of 5 runs" in event["message"]


def test_a_clock_that_is_behind_gives_no_run_more_time(
    server: LocalPromptLayer, leap: Leap
) -> None:
    """Nor those that are polled after others have ended."""
    runs, endless = started(server, "Echo", 21), server.start_execution("Endless")
    polls: list[Any] = []

    def late(request: Any) -> None:
        if request.query["workflow_version_execution_id"] == str(endless):
            polls.append(request)
            if len(polls) == 2:
                leap(1000.0)

    server.script(late, times=None)
    began = time.time() + 3600.0
    event = fire([*runs, endless], began_at=began, deadline=began + 500.0)
    assert event["outcome"] == "timed_out"


def test_what_is_no_id_is_refused(server: LocalPromptLayer) -> None:
    assert fire([1, 0])["outcome"] == "refused"


def test_an_outage_of_all_is_one(server: LocalPromptLayer) -> None:
    server.script(Reply(502), times=None)
    assert fire(range(1, 41), max_outage=0.3)["outcome"] == "outage"


def test_a_run_that_alone_cannot_be_polled_does_not_end_the_wait(server: LocalPromptLayer) -> None:
    broken, goes_on, ended = *started(server, "Endless", 2), server.start_execution("Echo")
    server.script(Reply(502), execution_id=broken, times=None)
    assert fire([broken, goes_on, ended], until=1, max_outage=0.3)["outcome"] == "ended"


def test_an_outage_that_is_over_does_not_count_for_the_runs_after_it(
    server: LocalPromptLayer,
) -> None:
    runs = started(server, "Echo", 60)
    server.script(Reply(502), execution_id=runs[50], times=1)
    assert fire(runs, outage_since=time.time() - 100, max_outage=50)["outcome"] == "ended"


def test_an_outage_that_a_worker_has_met_is_over_after_hours_of_polls(
    server: LocalPromptLayer,
) -> None:
    """Another triggerer takes the wait over, and cannot know how the polls went."""
    then = time.time() - 5 * 3600.0
    server.script(Reply(502))
    how: dict[str, Any] = {
        "began_at": then,
        "outage_since": then,
        "next_poll_at": then + 20,
        "max_outage": 600,
    }
    assert fire(started(server, "Echo", 1), **how)["outcome"] == "ended"


def test_a_key_that_is_refused(server: LocalPromptLayer) -> None:
    runs = started(server, "Slow", 3)
    server.rotate_key("pl_other")
    assert fire(runs)["outcome"] == "key_refused"


def test_on_kill_names_the_runs(log: Callable[[], str]) -> None:
    trigger = trigger_for(PromptLayerWorkflowBatchTrigger, WorkflowRuns([7, 8]))
    asyncio.run(trigger.on_kill())
    said = log()
    assert "Batch of 2 workflow runs was going on when the task was deferred" in said
    assert "7, 8" in said
