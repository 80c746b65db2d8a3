# SPDX-License-Identifier: Apache-2.0
"""A deferred evaluation whose task is ended or cleared, in Airflow's own triggerer loop.

The loop is real, and cancels the trigger again and again until the trigger has ended. The
supervisor's answers are scripted.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from unittest.mock import Mock

import pytest
from asgiref.sync import sync_to_async
from support.modes import first_event, rebuilt
from support.needs import needs_on_kill
from support.triggerer import Supervisor, Triggerer, TriggererTaskInstance, until
from support.waits import trigger_for

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.tables import SheetOperation
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.exceptions import (
    PromptLayerTransientError,
    PromptLayerUnknownConnectionError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.submission.batch import WorkflowRuns
from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Node,
    Reply,
    Sheet,
    Table,
    Workflow,
)
from airflow_provider_promptlayer.triggers import on_kill
from airflow_provider_promptlayer.triggers.promptlayer import (
    PromptLayerTableOperationTrigger,
    PromptLayerWorkflowBatchTrigger,
    PromptLayerWorkflowTrigger,
)

pytestmark = needs_on_kill

Log: TypeAlias = Callable[[], str]

ENDLESS = [
    Sheet(f"Endless {number}", [Column("Answer", cell_duration=math.inf)]) for number in range(4)
]
BRIEF = Sheet("Brief", [Column("Answer")])
TABLE = Table("Table", [*ENDLESS, BRIEF])
WORKFLOW = Workflow("Endless", [Node("Only", duration=math.inf, is_output_node=True)])


@pytest.fixture(autouse=True)
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    supervisor = Supervisor()
    supervisor.answers.set()
    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", staticmethod(supervisor.get_task_states)
    )
    monkeypatch.setattr(version_compat, "ON_KILL_IS_AMBIGUOUS", True)
    monkeypatch.setattr(on_kill, "_GATHER_SECONDS", 0.0)
    yield supervisor
    supervisor.answers.set()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer([WORKFLOW], tables=[TABLE]) as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        yield server


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Log:
    return lambda: capsys.readouterr().out


def waiting(
    server: LocalPromptLayer, sheet: Sheet = ENDLESS[0], map_index: int = -1, **how: Any
) -> Any:
    """Return the trigger of a task's own operation."""
    trigger = rebuilt(
        trigger_for(
            PromptLayerTableOperationTrigger,
            SheetOperation(TABLE.id, sheet.id, server.start_operation(TABLE.id, sheet.id)),
            **{"poke_interval": 0.01, "submitted_by_this_task": True, **how},
        )
    )
    trigger.task_instance = TriggererTaskInstance(map_index=map_index)
    return trigger


def is_cancelled(server: LocalPromptLayer) -> bool:
    (only,) = server.operations.values()
    return only.cancelled_at is not None


async def all_is_done() -> None:
    await until(lambda: not on_kill._running)


def kill(
    server: LocalPromptLayer,
    *triggers: Any,
    once: Callable[[], bool] | None = None,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Let the triggers poll, and then cancel them as the triggerer does.

    :param once: when; else after the first answer, which has arrived before the second poll.
    :param before: called just before the cancels.
    :param after: called when the triggers have ended.
    """

    async def play() -> None:
        triggerer = Triggerer()
        triggerer.run(*triggers)
        await until(once or (lambda: server.count("GET") > 1))
        before()
        await triggerer.kill()
        after()
        await all_is_done()

    asyncio.run(play())


def test_the_message_of_a_cancel_is_airflows() -> None:
    from airflow.jobs import triggerer_job_runner

    assert triggerer_job_runner._USER_ACTION_CANCEL_MSG == version_compat.USER_ACTION


class TestRepeatedCancels:
    @pytest.mark.parametrize("failures", [0, 2])
    def test_do_not_prevent_the_cancellation(
        self, failures: int, server: LocalPromptLayer, log: Log
    ) -> None:
        if failures:
            server.script(Reply(503), method="DELETE", times=failures)
        kill(server, waiting(server))
        assert is_cancelled(server)
        assert server.count("DELETE") == 1 + failures
        assert "was cancelled" in log()

    def test_do_not_prevent_it_before_on_kill_is_called(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow first writes a line, for which it may have to wait for a thread."""
        from airflow.jobs.triggerer_job_runner import TriggerRunner

        log = Mock()
        log.ainfo = lambda *_, **__: asyncio.sleep(3600)
        monkeypatch.setattr(TriggerRunner, "log", log)
        kill(server, waiting(server))
        assert is_cancelled(server)

    def test_do_not_prevent_it_while_the_first_question_takes_long(
        self, server: LocalPromptLayer, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Longer than Airflow waits: the trigger has ended by the time of the answer."""
        monkeypatch.setattr(on_kill, "_ON_KILL_SECONDS", 0.05)
        supervisor.answers.clear()

        def answer() -> None:
            assert not is_cancelled(server)
            supervisor.answers.set()

        kill(server, waiting(server), after=answer)
        assert is_cancelled(server)

    @pytest.mark.parametrize("is_killed", [False, True])
    def test_a_triggerer_that_stops_cancels_nothing(
        self, is_killed: bool, server: LocalPromptLayer, supervisor: Supervisor, log: Log
    ) -> None:
        """And says so if a user has ended the task just before."""
        supervisor.answers.clear()

        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(waiting(server))
            await until(lambda: server.count("GET") > 1)
            for task in triggerer.tasks:
                task.cancel(version_compat.USER_ACTION if is_killed else None)
            if is_killed:
                await until(lambda: len(on_kill._running) > 1)  # besides the early question
            else:
                await asyncio.wait(triggerer.tasks)
            asyncio.get_running_loop().call_soon(supervisor.answers.set)

        asyncio.run(play())
        assert not is_cancelled(server)
        said = log()
        assert ("The triggerer stops before it could cancel table operation" in said) == is_killed
        assert is_killed or "no longer waits" not in said


class TestTheConnection:
    def test_is_not_read_again(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forbid() -> None:
            monkeypatch.setattr(PromptLayerHook, "_aread_connection", None)

        kill(server, waiting(server), before=forbid)
        assert is_cancelled(server)

    def test_is_asked_for_again_where_the_wait_has_not_read_it(
        self, server: LocalPromptLayer, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow says that there is none also if its own server was away."""
        read = PromptLayerHook._aread_connection
        failures = [PromptLayerUnknownConnectionError("none"), PromptLayerTransientError("away")]

        async def read_later(hook: PromptLayerHook) -> Any:
            if failures:
                raise failures.pop()
            return await read(hook)

        monkeypatch.setattr(PromptLayerHook, "_aread_connection", read_later)
        trigger = waiting(server, next_poll_at=time.time() + 3600)
        kill(server, trigger, once=lambda: bool(supervisor.asked))
        assert not failures
        assert is_cancelled(server)

    def test_may_be_under_way_when_the_cancel_comes(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow reads it through asgiref, which drops the message of the cancel."""
        begins, is_read = threading.Event(), threading.Event()
        read = PromptLayerHook.get_connection

        def read_slowly(conn_id: str) -> Any:
            begins.set()
            assert is_read.wait(30)
            return read(conn_id)

        async def read_apart(_: type[PromptLayerHook], conn_id: str) -> Any:
            return await sync_to_async(read_slowly)(conn_id)

        monkeypatch.setattr(PromptLayerHook, "aget_connection", classmethod(read_apart))

        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(waiting(server))
            await until(begins.is_set)
            killed = asyncio.create_task(triggerer.kill())
            await asyncio.wait({*triggerer.tasks}, timeout=0.1)
            is_read.set()
            await killed
            await all_is_done()

        asyncio.run(play())
        assert is_cancelled(server)


class TestTheQuestion:
    @pytest.mark.parametrize("failures", [3, 100])
    def test_is_asked_again_and_given_up_in_the_end(
        self,
        failures: int,
        server: LocalPromptLayer,
        supervisor: Supervisor,
        log: Log,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if failures > 3:
            monkeypatch.setattr(retries, "ASKING_AIRFLOW", retries.ASKING_AIRFLOW.within(0.1))
        supervisor.errors = [OSError("away")] * failures  # the first is of the wait's beginning
        kill(server, waiting(server))
        warns = re.search(r"Could not ask Airflow.*cancel it in PromptLayer", log(), re.DOTALL)
        found = (bool(supervisor.errors), bool(warns), not is_cancelled(server))
        assert found == (failures > 3,) * 3

    def test_is_asked_when_the_first_wait_begins_and_delays_no_poll(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        supervisor.answers.clear()

        def answer() -> None:
            assert len(supervisor.asked) == 1
            supervisor.answers.set()

        triggers = [waiting(server, sheet) for sheet in ENDLESS]
        polled = lambda: bool(supervisor.asked) and server.count("GET") > 10  # noqa: E731
        kill(server, *triggers, once=polled, before=answer)

    def test_is_asked_early_until_there_is_an_answer(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        supervisor.errors = [OSError("away")]

        async def play() -> None:
            triggerer = Triggerer()
            for sheet, questions in zip(ENDLESS, (1, 2, 2), strict=False):
                triggerer.run(waiting(server, sheet))
                polls = server.count("GET") + 5
                await until(lambda polls=polls: server.count("GET") > polls)  # type: ignore[misc]
                await all_is_done()
                assert len(supervisor.asked) == questions
            await triggerer.kill()
            await all_is_done()

        asyncio.run(play())

    @pytest.mark.parametrize("what", ["sensor", "workflow run", "batch"])
    def test_is_not_asked_where_nothing_can_be_cancelled(
        self, what: str, server: LocalPromptLayer, supervisor: Supervisor, log: Log
    ) -> None:
        how: dict[str, Any] = {"poke_interval": 0.01, "submitted_by_this_task": True}
        run_id = server.start_execution(WORKFLOW.name)
        if what == "sensor":
            trigger = waiting(server, submitted_by_this_task=False)
        elif what == "batch":
            trigger = trigger_for(PromptLayerWorkflowBatchTrigger, WorkflowRuns([run_id]), **how)
        else:
            trigger = trigger_for(PromptLayerWorkflowTrigger, WorkflowRun(run_id), **how)
        trigger.task_instance = TriggererTaskInstance()
        kill(server, trigger)
        assert (supervisor.asked, server.count("DELETE")) == ([], 0)
        said = log()
        assert re.search(r"was going on when it was last polled, [\d.]+ seconds? ago\.", said)
        assert ("cannot cancel it" in said) == (what != "sensor")

    def test_is_one_for_all_instances_of_a_mapped_task(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        supervisor.states = {"task_0": "failed", "task_1": "deferred", "task_2": "success"}
        # The last one's task instance is gone.
        triggers = [waiting(server, sheet, index) for index, sheet in enumerate(ENDLESS)]

        async def play() -> None:
            await asyncio.gather(*(trigger.on_kill() for trigger in triggers))

        asyncio.run(play())
        assert supervisor.asked == [
            {"dag_id": "dag", "task_ids": ["task"], "run_ids": ["manual__1"], "map_index": None}
        ]
        operations = [server.operations[trigger.state.job.id] for trigger in triggers]
        assert [each.cancelled_at is None for each in operations] == [False, True, False, False]

    def test_does_not_join_one_that_was_asked_before(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        """Its answer may be of a time when the user had not yet ended the task."""
        first, second = waiting(server, ENDLESS[0]), waiting(server, ENDLESS[1])
        supervisor.states = {"task": "deferred"}
        supervisor.answers.clear()

        async def play() -> None:
            killed = [asyncio.create_task(first.on_kill())]
            await until(lambda: bool(supervisor.asked))
            killed.append(asyncio.create_task(second.on_kill()))
            await asyncio.sleep(0)
            supervisor.answers.set()
            await killed[0]
            supervisor.states = {"task": "failed"}
            await killed[1]

        asyncio.run(play())
        assert len(supervisor.asked) == 2


class TestTakenOver:
    """A triggerer that was held up is told that another one has taken a wait over, and ended it."""

    def test_an_evaluation_that_is_done_is_not_cancelled(
        self, server: LocalPromptLayer, supervisor: Supervisor, log: Log
    ) -> None:
        supervisor.states = {"task": "success"}
        asyncio.run(waiting(server, BRIEF).on_kill())
        assert server.count("DELETE") == 0
        assert "had ended and was not cancelled" in log()

    @pytest.mark.parametrize("has_ended_here", [False, True])
    def test_a_time_out_cancels_nothing(
        self, has_ended_here: bool, server: LocalPromptLayer, log: Log
    ) -> None:
        """The log says so, unless the wait has ended in this triggerer."""
        trigger = waiting(server, deadline=time.time() - 1)

        async def play() -> None:
            if has_ended_here:
                await first_event(trigger)
            await trigger.on_kill()

        asyncio.run(play())
        assert not is_cancelled(server)
        assert ("not cancelling it" in log()) != has_ended_here

    @pytest.mark.parametrize("is_polled", [True, False])
    def test_the_log_says_only_what_is_known(self, is_polled: bool, log: Log) -> None:
        trigger = PromptLayerWorkflowTrigger(workflow_version_execution_id=7)
        if is_polled:
            trigger._polled_at = time.time() - 47
        asyncio.run(trigger.on_kill())
        when = r"it was last polled, [\d.]+ seconds? ago" if is_polled else "the task was deferred"
        said = log()
        assert re.search(rf"Workflow run 7 was going on when {when}\.", said)
        assert not re.search("user|ended|goes on", said)


class TestAClear:
    """The next try goes back to the job if Airflow keeps the task's state."""

    @pytest.mark.parametrize("reattaches", [True, False])
    def test_that_drops_the_state_cancels_without_a_question(
        self,
        reattaches: bool,
        server: LocalPromptLayer,
        supervisor: Supervisor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(version_compat, "ON_KILL_IS_AMBIGUOUS", False)
        kill(server, waiting(server, reattaches_after_clear=reattaches))
        assert is_cancelled(server)
        assert not supervisor.asked

    @pytest.mark.parametrize(
        ("keeps", "reattaches", "says"),
        [
            (True, True, "its next try goes back to it."),
            (True, False, "its next try starts another one."),
            (False, True, "starts another one, unless Airflow was told to keep the task's state."),
            (False, False, "its next try starts another one."),
        ],
    )
    def test_of_a_run_that_cannot_be_cancelled_is_logged(
        self, keeps: bool, reattaches: bool, says: str, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(version_compat, "CLEAR_KEEPS_STATE", keeps)
        how = {"submitted_by_this_task": True, "reattaches_after_clear": reattaches}
        trigger = trigger_for(PromptLayerWorkflowTrigger, WorkflowRun(7), **how)
        asyncio.run(trigger.on_kill())
        assert says in log()
