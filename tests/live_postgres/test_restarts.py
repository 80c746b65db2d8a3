# SPDX-License-Identifier: Apache-2.0
"""Crashes and restarts while tasks wait: no wait is lost, and no run is started twice.

The runs at the local PromptLayer go on for as long as the test wants: its clock is set forward.
Task states are read from Airflow's metadata database, requests from the server.
"""

from __future__ import annotations

import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clocks import Clock

from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Node,
    Sheet,
    Table,
    Workflow,
)
from airflow_provider_promptlayer.version_compat import ON_KILL_IS_AMBIGUOUS
from dev.airflow_stack import AirflowStack
from dev.metadata_db import TASKS
from dev.postgres import PostgresServer
from dev.watchdog import signal_session

DAG_ID = "live_waits"
HELD_SECONDS = 1e6
SECONDS = 900.0
"""The deadline of each wait: many times what it takes."""

Task = tuple[str, int]


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def promptlayer(clock: Clock) -> Iterator[LocalPromptLayer]:
    workflows = [
        Workflow(
            name,
            [
                Node(
                    "Only",
                    lambda inputs, _: inputs["number"],
                    duration=HELD_SECONDS,
                    is_output_node=True,
                    status=status,
                )
            ],
        )
        for name, status in (("Held", "SUCCESS"), ("Doomed", "FAILED"))
    ]
    sheet = Sheet(
        "Held",
        [Column("Answer", cell_duration=HELD_SECONDS)],
        id="5c0a1e00-0000-4000-8000-0000000000e1",
    )
    table = Table("Held", [sheet], id="5c0a1e00-0000-4000-8000-0000000000e0")
    with LocalPromptLayer(workflows, tables=[table], clock=clock, max_requests=100_000) as server:
        yield server


@pytest.fixture(scope="module")
def stack(
    promptlayer: LocalPromptLayer,
    postgres: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowStack]:
    with AirflowStack(
        Path(__file__).parent / "dags",
        env={
            "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": promptlayer.airflow_connection_json,
            "AIRFLOW__PROMPTLAYER__DEFER_AFTER": "0",
            # One is killed in most tests, and the other one is to notice soon.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
        },
        home=tmp_path_factory.mktemp("airflow"),
        database_url=postgres.new_database("restarts"),
    ) as running:
        yield running


class Triggerers:
    """The two triggerers: the name of each one's process → the id of its job in the database."""

    def __init__(self, stack: AirflowStack) -> None:
        self._stack = stack
        self.jobs = {"triggerer-1": stack.db.newest_job("TriggererJob")}

    def start(self) -> str:
        name = self._stack.start_triggerer().name
        self.jobs[name] = self._stack.db.newest_job("TriggererJob")
        return name

    def kill(self, name: str) -> int:
        """End it without warning; return the id of its job."""
        self._stack.kill(name)
        return self.jobs.pop(name)

    def stop(self, name: str) -> int:
        """End it politely; return the id of its job."""
        self._stack.stop(name)
        return self.jobs.pop(name)


@pytest.fixture(scope="module")
def triggerers(stack: AirflowStack) -> Triggerers:
    return Triggerers(stack)


@pytest.fixture
def two_triggerers(triggerers: Triggerers) -> Triggerers:
    while len(triggerers.jobs) < 2:
        triggerers.start()
    return triggerers


class Batch:
    """One DAG run with many waits, and what is known of it on both sides."""

    def __init__(
        self,
        stack: AirflowStack,
        server: LocalPromptLayer,
        clock: Clock,
        *,
        held: int,
        doomed: int,
        started: int,
    ) -> None:
        self.stack, self.server, self.clock = stack, server, clock
        self._posts_before = self._posts()
        self.watched = [
            server.start_execution(name, {"number": number})
            for number, name in enumerate(["Held"] * held + ["Doomed"] * doomed)
        ]
        self.numbers = list(range(1000, 1000 + started))
        self.run_id = stack.trigger_dag(DAG_ID, {"runs": self.watched, "numbers": self.numbers})
        self.expected: dict[Task, str | None] = {
            **{("watch", index): "success" for index in range(held)},
            **{("watch", held + index): "failed" for index in range(doomed)},
            **{("start", index): "success" for index in range(started)},
        }

    def states(self) -> dict[Task, str | None]:
        states = self.stack.task_states(DAG_ID, self.run_id)
        return {task: state for task, state in states.items() if task in self.expected}

    def are_all(self, state: str) -> bool:
        states = self.states()
        return len(states) == len(self.expected) and set(states.values()) == {state}

    def wait_until_deferred(self) -> None:
        self.stack.wait_for(
            lambda: self.are_all("deferred") and not self.stack.db.occupied_slots(),
            SECONDS,
            f"{len(self.expected)} deferred tasks",
        )

    def owners(self) -> dict[Task, tuple[int, int | None]]:
        """Return which trigger each task waits for, and the triggerer's job that has it."""
        found = self.stack.db.rows(
            f"SELECT ti.task_id, ti.map_index, t.id, t.triggerer_id FROM {TASKS} AS ti"
            " JOIN trigger t ON ti.trigger_id = t.id WHERE ti.run_id = :run_id",
            run_id=self.run_id,
        )
        return {
            (row["task_id"], row["map_index"]): (row["id"], row["triggerer_id"]) for row in found
        }

    def are_owned_by(self, jobs: set[int]) -> bool:
        return {job for _, job in self.owners().values()} <= jobs

    def executions(self) -> dict[Task, int]:
        """Return the run at PromptLayer that each task waits for."""
        mine = {("watch", index): run for index, run in enumerate(self.watched)}
        for task, runs in self.started().items():
            mine[task] = runs[0]
        return mine

    def started(self) -> dict[Task, list[int]]:
        """Return the runs that the server was asked to start, by the task that asked."""
        found = defaultdict(list)
        for number, execution in self.server.executions.items():
            metadata = execution.metadata
            if metadata.get("airflow_run_id") == self.run_id:
                assert metadata["airflow_dag_id"] == DAG_ID
                task = metadata["airflow_task_id"], int(metadata["airflow_map_index"])
                found[task].append(number)
        return dict(found)

    def polls(self) -> dict[Task, int]:
        """Return how often the server was asked for the results of each task's run."""
        seen = Counter(
            request.query["workflow_version_execution_id"]
            for request in self.server.requests
            if request.method == "GET" and "workflow_version_execution_id" in request.query
        )
        return {task: seen[str(run)] for task, run in self.executions().items()}

    def end_runs(self) -> None:
        """Let all runs end at PromptLayer, now."""
        self.clock.skip(HELD_SECONDS)

    def check_ending(self) -> None:
        """All waits end as their runs did, and none of the runs was started twice."""
        self.stack.wait_for(
            lambda: self.stack.db.dag_run_state(DAG_ID, self.run_id) in ("success", "failed"),
            SECONDS,
            "the DAG run to end",
        )
        assert self.states() == self.expected
        assert self._posts() - self._posts_before == len(self.numbers)
        assert {task: len(runs) for task, runs in self.started().items()} == {
            ("start", index): 1 for index in range(len(self.numbers))
        }
        for index, number in enumerate(self.numbers):
            xcoms = self.stack.xcoms(DAG_ID, self.run_id, "start", index)
            assert xcoms["promptlayer_execution_id"] == self.started()["start", index][0]
            assert xcoms["return_value"] == {"Only": number}
        tries = self.stack.db.rows(
            f"SELECT DISTINCT try_number FROM {TASKS} AS ti WHERE run_id = :run_id",
            run_id=self.run_id,
        )
        assert tries == [{"try_number": 1}]

    def _posts(self) -> int:
        return self.server.count("POST")


def test_fifty_waits_outlive_a_killed_triggerer(
    stack: AirflowStack,
    promptlayer: LocalPromptLayer,
    clock: Clock,
    two_triggerers: Triggerers,
) -> None:
    batch = Batch(stack, promptlayer, clock, held=20, doomed=5, started=25)
    batch.wait_until_deferred()
    jobs = two_triggerers.jobs
    stack.wait_for(lambda: batch.are_owned_by(set(jobs.values())), SECONDS, "owners")
    of_each = Counter(job for _, job in batch.owners().values())
    victim = max(jobs, key=lambda name: of_each[jobs[name]])

    dead = two_triggerers.kill(victim)

    at_death = batch.owners()
    lost = {task for task, (_, job) in at_death.items() if job == dead}
    assert lost
    assert len(at_death) == 50
    (heir,) = jobs.values()
    stack.wait_for(lambda: batch.are_owned_by({heir}), SECONDS, "the heir to take over")
    taken_over = batch.owners()
    assert {task: trigger for task, (trigger, _) in taken_over.items()} == {
        task: trigger for task, (trigger, _) in at_death.items()
    }
    before = batch.polls()
    stack.wait_for(
        lambda: all(batch.polls()[task] > before[task] for task in lost),
        SECONDS,
        "a poll of each run whose triggerer died",
    )
    assert batch.are_all("deferred")

    batch.end_runs()
    batch.check_ending()
    print(  # noqa: T201 - shown with -s: what the closing note of a release quotes
        f"\n50 waits, {len(lost)} of them in the triggerer that was killed; "
        f"{promptlayer.count('POST')} POSTs, {promptlayer.count('GET')} GETs"
    )


def test_waits_outlive_a_killed_scheduler(
    stack: AirflowStack, promptlayer: LocalPromptLayer, clock: Clock, two_triggerers: Triggerers
) -> None:
    """The runs end while there is no scheduler: the next one finds the tasks ready to go on."""
    batch = Batch(stack, promptlayer, clock, held=3, doomed=1, started=4)
    batch.wait_until_deferred()

    stack.kill("scheduler")
    batch.end_runs()
    stack.wait_for(
        lambda: set(batch.states().values()) == {"scheduled"}, SECONDS, "all triggers to fire"
    )
    stack.start_scheduler()

    batch.check_ending()


def test_waits_outlive_a_rolling_restart_of_the_triggerers(
    stack: AirflowStack, promptlayer: LocalPromptLayer, clock: Clock, two_triggerers: Triggerers
) -> None:
    batch = Batch(stack, promptlayer, clock, held=3, doomed=1, started=4)
    batch.wait_until_deferred()
    triggers = {task: trigger for task, (trigger, _) in batch.owners().items()}

    for name in list(two_triggerers.jobs):
        two_triggerers.stop(name)
        two_triggerers.start()
        current = set(two_triggerers.jobs.values())
        stack.wait_for(
            lambda current=current: batch.are_owned_by(current),  # type: ignore[misc]
            SECONDS,
            f"the triggers of {name} to be taken over",
        )
    assert {task: trigger for task, (trigger, _) in batch.owners().items()} == triggers
    assert batch.are_all("deferred")

    batch.end_runs()
    batch.check_ending()


def test_a_triggerer_that_was_held_up_cancels_nothing(
    stack: AirflowStack, promptlayer: LocalPromptLayer, clock: Clock, two_triggerers: Triggerers
) -> None:
    """Airflow up to 3.3 then calls on_kill of its triggers, as if a user had ended the tasks."""
    dag = "live_held_operation"
    stack.wait_for_dag(dag)
    run_id = stack.trigger_dag(dag)

    def owner() -> int | None:
        found = stack.db.rows(
            f"SELECT t.triggerer_id FROM {TASKS} AS ti JOIN trigger t ON ti.trigger_id = t.id"
            " WHERE ti.run_id = :run_id",
            run_id=run_id,
        )
        return found[0]["triggerer_id"] if found else None

    def polls() -> int:
        return sum("/operations/" in request.raw_path for request in promptlayer.requests)

    stack.wait_for(lambda: owner() and polls() > 2, SECONDS, "polls from a triggerer")
    name = next(name for name, job in two_triggerers.jobs.items() if job == owner())
    held_up = stack.component(name)

    def log_says(what: str) -> bool:
        return what in stack.task_log(dag, run_id, "cells")

    signal_session(held_up.pid, signal.SIGSTOP)
    try:
        stack.wait_for(
            lambda: owner() not in (None, two_triggerers.jobs[name]), SECONDS, "the other one"
        )
    finally:
        signal_session(held_up.pid, signal.SIGCONT)
    # Else the test would show nothing: Airflow does cancel the trigger, up to 3.3 as if by a user.
    cancelled = "by user action" if ON_KILL_IS_AMBIGUOUS else "reassigned to another triggerer"
    stack.wait_for(lambda: log_says(cancelled), SECONDS, "the cancellation of the trigger")
    after = polls()
    stack.wait_for(lambda: polls() > after + 2, SECONDS, "polls from the other triggerer")

    if ON_KILL_IS_AMBIGUOUS:  # the held-up triggerer asks Airflow first
        stack.wait_for(lambda: log_says("not cancelling it"), SECONDS, "what the triggerer says")
    else:
        assert not log_says("not cancelling it")
    (operation,) = promptlayer.operations.values()
    assert operation.cancelled_at is None
    assert promptlayer.count("DELETE") == 0
    assert stack.task_states(dag, run_id) == {("cells", -1): "deferred"}
    clock.skip(HELD_SECONDS)
    assert stack.wait_for_dag_run(dag, run_id, SECONDS) == "success"
