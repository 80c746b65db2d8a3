# SPDX-License-Identifier: Apache-2.0
"""The first seconds of a wait, in which a deferrable task polls in its worker."""

from __future__ import annotations

import datetime
import math
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from support.cancelling import is_cancelled
from support.clocks import passing_asleep, timed_by_polls
from support.kinds import Serve, new_server
from support.modes import FakeTaskInstance, Store, resume_as_ended, run_task, sensor
from support.starts import RUN_TABLE, RUN_WORKFLOW, Start, deferred, every_start
from support.waits import state_for

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow

WORKFLOWS = [
    Workflow("Good", [Node("Answer", "good tea", duration=1.0, is_output_node=True)]),
    Workflow("Endless", [Node("A", duration=math.inf, is_output_node=True)]),
]


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(timed_by_polls(WORKFLOWS))


@pytest.fixture(autouse=True)
def _sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    passing_asleep(monkeypatch)
    monkeypatch.delenv("AIRFLOW__PROMPTLAYER__DEFER_AFTER")


@pytest.mark.parametrize(
    ("arguments", "map_index", "polls"),
    [
        ({}, -1, 4),
        ({}, 3, 1),  # other instances of the mapped task may be waiting for the slot
        ({"defer_after": 0}, -1, 1),
        ({"defer_after": 0.0, "poke_interval": 0.1}, -1, 1),
        ({"defer_after": datetime.timedelta(seconds=31)}, -1, 11),
        ({"defer_after": 31}, 3, 11),
        ({"defer_after": 31, "poke_interval": 32}, -1, 1),  # no poll to stay for
        ({"execution_timeout": datetime.timedelta(seconds=16)}, -1, 2),
        ({"mode": "reschedule"}, -1, 4),  # which a deferrable task ignores
    ],
    ids=str,
)
def test_polls_for_so_long(
    arguments: dict[str, Any], map_index: int, polls: int, server: LocalPromptLayer
) -> None:
    run_id = server.start_execution("Endless")
    began_at = time.time()
    with pytest.raises(TaskDeferred) as left:
        sensor(run_id, **{"poke_interval": 3, **arguments}).execute(
            {"ti": FakeTaskInstance(map_index=map_index)}  # type: ignore[typeddict-item]
        )
    assert server.count("GET") == polls
    # The intervals and the deadline of the triggerer are those of the wait that has begun here.
    assert left.value.trigger.state.began_at == began_at


@pytest.mark.parametrize(("map_index", "polls"), [(-1, 11), (3, 1)])
def test_a_site_says_for_how_long_and_not_which_tasks(
    map_index: int,
    polls: int,
    server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__PROMPTLAYER__DEFER_AFTER", "31")
    task = sensor(server.start_execution("Endless"), poke_interval=3)
    with pytest.raises(TaskDeferred):
        task.execute({"ti": FakeTaskInstance(map_index=map_index)})  # type: ignore[typeddict-item]
    assert server.count("GET") == polls


def test_the_start_is_a_part_of_execution_timeout(serve: Serve) -> None:
    """Else a task whose start was put off would be failed before it defers."""
    server = serve(new_server())
    server.script(Reply(429, "{}", {"Retry-After": "8"}), method="POST", times=2)
    timeout = datetime.timedelta(seconds=40)
    deferred(RUN_WORKFLOW.make("never", poke_interval=2, execution_timeout=timeout), Store())
    assert server.count("GET") == 1


def test_a_short_job_ends_there(server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Good")
    ending = run_task(lambda: sensor(run_id, poke_interval=3))
    assert (ending.kind, ending.value, ending.worker_visits) == ("success", run_id, 1)


@pytest.mark.parametrize(("site", "defer_after"), [(None, None), ("10", None), (None, 10)], ids=str)
@every_start
def test_a_job_that_the_task_has_started_ends_there_if_a_retry_would_find_it(
    start: Start,
    site: str | None,
    defer_after: int | None,
    serve: Serve,
    store: Store | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a worker that died meanwhile would have the retry pay for another one."""
    if site is not None:
        monkeypatch.setenv("AIRFLOW__PROMPTLAYER__DEFER_AFTER", site)
    server = serve(new_server(by_polls=True))
    ending = start.run(store, poke_interval=3, defer_after=defer_after)
    visits = 2 if store is None and defer_after is None else 1
    assert (ending.kind, ending.worker_visits) == ("success", visits)
    assert len(start.started(server)) == 1


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_sensor_needs_no_task_instance(deferrable: bool, server: LocalPromptLayer) -> None:
    """People call execute so in unit tests of their own."""
    run_id = server.start_execution("Good")
    task = sensor(run_id, deferrable=deferrable, poke_interval=3)
    assert task.execute({}) == run_id


def test_a_job_is_cancelled_there(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(new_server())
    task = RUN_TABLE.make("never", defer_after=10)

    def end(_: float) -> None:
        task.on_kill()
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", end)
    with pytest.raises(KeyboardInterrupt):
        task.execute({"ti": FakeTaskInstance()})
    assert is_cancelled(server)


def test_the_time_may_be_up_there(server: LocalPromptLayer) -> None:
    ending = run_task(lambda: sensor(server.start_execution("Endless"), timeout=5))
    assert (ending.kind, ending.worker_visits) == ("timeout", 1)
    assert "within 5 s" in ending.message


def test_an_outage_goes_on_in_the_triggerer(server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Endless")
    server.go_away()
    began_at = time.time()
    with pytest.raises(TaskDeferred) as left:
        sensor(run_id, poke_interval=3).execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    assert left.value.trigger.state.outage_since == began_at


def test_once_only(server: LocalPromptLayer) -> None:
    """A worker that the triggerer has called too early defers again at once."""
    run_id = server.start_execution("Endless")
    with pytest.raises(TaskDeferred):
        resume_as_ended(run_id, state=state_for(WorkflowRun(run_id)), poke_interval=3)
    assert server.count("GET") == 1
