# SPDX-License-Identifier: Apache-2.0
"""A deferred evaluation whose task is ended or cleared, in Airflow's own triggerer loop.

The loop is real, and cancels the trigger again and again, as it does until the trigger has ended.
What the triggerer's other process would answer is scripted.
"""

from __future__ import annotations

import asyncio
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger
from asgiref.sync import sync_to_async
from support.modes import FakeTaskInstance, rebuilt
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

pytestmark = pytest.mark.skipif(
    not hasattr(BaseTrigger, "on_kill"), reason="this Airflow tells no trigger"
)

CANCELS = 30
"""How often Airflow has cancelled a trigger at the least by the time at which it has ended."""

ENDLESS = [
    Sheet(f"Endless {number}", [Column("Answer", cell_duration=math.inf)]) for number in range(4)
]
BRIEF = Sheet("Brief", [Column("Answer")])
TABLE = Table("Table", [*ENDLESS, BRIEF])
WORKFLOW = Workflow("Endless", [Node("Only", duration=math.inf, is_output_node=True)])


@dataclass
class TriggererTaskInstance(FakeTaskInstance):
    """What the triggerer hands to a trigger."""

    id: str = "01a21799-5302-7865-89c1-7642ea434ce0"
    context_carrier: None = None


@dataclass
class Supervisor:
    """The process that answers a triggerer's questions about states."""

    states: dict[str, str | None] = field(default_factory=lambda: {"task": "failed"})
    answers: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def get_task_states(self, **of: Any) -> dict[str, Any]:
        self.asked.append(of)
        assert self.answers.wait(30)
        if self.errors:
            raise self.errors.pop(0)
        return {run_id: dict(self.states) for run_id in of["run_ids"]}


@pytest.fixture
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
def log(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    said: list[str] = []

    def so_far() -> str:
        said.append(capsys.readouterr().out)
        return "".join(said)

    return so_far


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


class Triggerer:
    """Airflow's loop around triggers."""

    def __init__(self) -> None:
        from airflow.jobs.triggerer_job_runner import TriggerRunner

        self.runner = TriggerRunner()
        self.tasks: list[asyncio.Task[None]] = []

    def run(self, *triggers: Any) -> None:
        for trigger in triggers:
            number = len(self.tasks)
            self.runner.triggers[number] = {"name": "trigger", "events": 0}  # type: ignore[typeddict-item]
            self.tasks.append(asyncio.create_task(self.runner.run_trigger(number, trigger)))

    async def kill(self) -> None:
        """Cancel each again and again until all have ended."""
        cancels = 0
        while not all(task.done() for task in self.tasks) or cancels < CANCELS:
            for task in self.tasks:
                task.cancel(version_compat.USER_ACTION)
            cancels += 1
            await asyncio.sleep(0.001)


async def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.005)


async def all_is_done() -> None:
    await until(lambda: not on_kill._running)


def polled(server: LocalPromptLayer) -> Callable[[], bool]:
    """Return the question whether an answer has arrived: before the second poll, the first one."""
    return lambda: server.count("GET") > 1


def kill(server: LocalPromptLayer, *triggers: Any) -> None:
    """Let the triggers poll, and then cancel them as the triggerer does."""

    async def play() -> None:
        triggerer = Triggerer()
        triggerer.run(*triggers)
        await until(polled(server))
        await triggerer.kill()
        await all_is_done()

    asyncio.run(play())


def test_the_message_of_a_cancel_is_airflows() -> None:
    from airflow.jobs import triggerer_job_runner

    assert triggerer_job_runner._USER_ACTION_CANCEL_MSG == version_compat.USER_ACTION


class TestRepeatedCancels:
    def test_do_not_keep_it_from_being_cancelled(
        self, server: LocalPromptLayer, supervisor: Supervisor, log: Callable[[], str]
    ) -> None:
        kill(server, waiting(server))
        assert is_cancelled(server)
        assert server.count("DELETE") == 1
        assert "was cancelled" in log()

    def test_nor_before_on_kill_is_called(
        self, server: LocalPromptLayer, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow writes a line first, from a pool of threads in which it may have to queue."""
        from airflow.jobs.triggerer_job_runner import TriggerRunner

        class Log:
            def info(self, *_: Any, **__: Any) -> None:
                pass

            async def ainfo(self, *_: Any, **__: Any) -> None:
                await asyncio.sleep(3600)

        monkeypatch.setattr(TriggerRunner, "log", Log())
        kill(server, waiting(server))
        assert is_cancelled(server)

    def test_nor_while_the_first_question_takes_long(
        self, server: LocalPromptLayer, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Longer than Airflow waits: the trigger has ended by the time of the answer."""
        monkeypatch.setattr(on_kill, "_ON_KILL_SECONDS", 0.05)
        supervisor.answers.clear()

        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(waiting(server))
            await until(polled(server))
            await triggerer.kill()
            assert not is_cancelled(server)
            supervisor.answers.set()
            await all_is_done()

        asyncio.run(play())
        assert is_cancelled(server)

    def test_nor_where_promptlayer_is_not_reached_at_once(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        server.script(Reply(503), method="DELETE", times=2)
        kill(server, waiting(server))
        assert is_cancelled(server)

    def test_a_triggerer_that_stops_cancels_nothing(
        self, server: LocalPromptLayer, supervisor: Supervisor, log: Callable[[], str]
    ) -> None:
        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(waiting(server))
            await until(polled(server))
            for task in triggerer.tasks:
                task.cancel()
            await asyncio.wait(triggerer.tasks)

        asyncio.run(play())
        assert not is_cancelled(server)
        assert "no longer waits" not in log()

    def test_a_triggerer_that_stops_meanwhile_says_so(
        self, server: LocalPromptLayer, supervisor: Supervisor, log: Callable[[], str]
    ) -> None:
        supervisor.answers.clear()

        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(waiting(server))
            await until(polled(server))
            for task in triggerer.tasks:
                task.cancel(version_compat.USER_ACTION)
            await until(lambda: len(on_kill._running) > 1)  # besides the early question
            asyncio.get_running_loop().call_soon(supervisor.answers.set)

        asyncio.run(play())
        assert not is_cancelled(server)
        assert "The triggerer stops before it could cancel table operation" in log()


class TestTheConnection:
    def test_is_not_read_again(
        self, server: LocalPromptLayer, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(waiting(server))
            await until(polled(server))
            monkeypatch.setattr(PromptLayerHook, "_aread_connection", read_again)
            await triggerer.kill()
            await all_is_done()

        reads: list[PromptLayerHook] = []
        read = PromptLayerHook._aread_connection

        async def read_again(hook: PromptLayerHook) -> Any:
            reads.append(hook)
            return await read(hook)

        asyncio.run(play())
        assert is_cancelled(server)
        assert not reads

    def test_is_asked_for_again_where_the_wait_has_not_read_it(
        self, server: LocalPromptLayer, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow says that there is none also where its own server could not be asked."""
        read = PromptLayerHook._aread_connection
        failures = [PromptLayerUnknownConnectionError("none"), PromptLayerTransientError("away")]

        async def read_later(hook: PromptLayerHook) -> Any:
            if failures:
                raise failures.pop()
            return await read(hook)

        monkeypatch.setattr(PromptLayerHook, "_aread_connection", read_later)

        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(waiting(server, next_poll_at=time.time() + 3600))
            await until(lambda: bool(supervisor.asked))
            await triggerer.kill()
            await all_is_done()

        asyncio.run(play())
        assert not failures
        assert is_cancelled(server)

    def test_may_be_read_just_then(
        self, server: LocalPromptLayer, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """asgiref, by which Airflow reads it, drops the message by which Airflow tells a user."""
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
    def test_is_asked_again(self, server: LocalPromptLayer, supervisor: Supervisor) -> None:
        trigger = waiting(server)
        supervisor.errors = [OSError("away")] * 3  # the first is of the wait's beginning
        kill(server, trigger)
        assert is_cancelled(server)
        assert not supervisor.errors

    def test_is_given_up_in_the_end_and_nothing_is_cancelled(
        self,
        server: LocalPromptLayer,
        supervisor: Supervisor,
        log: Callable[[], str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(retries, "ASKING_AIRFLOW", retries.ASKING_AIRFLOW.within(0.1))
        supervisor.errors = [OSError("away")] * 100
        kill(server, waiting(server))
        assert not is_cancelled(server)
        assert "Could not ask Airflow" in log()
        assert "cancel it in PromptLayer" in log()

    def test_is_asked_when_the_first_wait_begins_and_delays_no_poll(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        supervisor.answers.clear()

        async def play() -> None:
            triggerer = Triggerer()
            triggerer.run(*(waiting(server, sheet) for sheet in ENDLESS))
            await until(lambda: bool(supervisor.asked) and server.count("GET") > 10)
            assert len(supervisor.asked) == 1
            supervisor.answers.set()
            await triggerer.kill()
            await all_is_done()

        asyncio.run(play())

    def test_is_asked_early_until_there_is_an_answer(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        supervisor.errors = [OSError("away")]

        async def play() -> None:
            triggerer = Triggerer()
            for sheet, questions in zip(ENDLESS, (1, 2, 2), strict=False):
                triggerer.run(waiting(server, sheet))
                before = server.count("GET")
                await until(lambda before=before: server.count("GET") > before + 5)  # type: ignore[misc]
                await all_is_done()
                assert len(supervisor.asked) == questions
            await triggerer.kill()
            await all_is_done()

        asyncio.run(play())

    @pytest.mark.parametrize("what", ["sensor", "workflow run", "batch"])
    def test_is_not_asked_where_nothing_can_be_cancelled(
        self, what: str, server: LocalPromptLayer, supervisor: Supervisor, log: Callable[[], str]
    ) -> None:
        run_id = server.start_execution(WORKFLOW.name)
        how: dict[str, Any] = {"poke_interval": 0.01, "submitted_by_this_task": True}
        trigger: Any = {
            "sensor": lambda: waiting(server, submitted_by_this_task=False),
            "workflow run": lambda: trigger_for(
                PromptLayerWorkflowTrigger, WorkflowRun(run_id), **how
            ),
            "batch": lambda: trigger_for(
                PromptLayerWorkflowBatchTrigger, WorkflowRuns([run_id]), **how
            ),
        }[what]()
        trigger.task_instance = TriggererTaskInstance()
        kill(server, trigger)
        assert not supervisor.asked
        assert server.count("DELETE") == 0
        said = log()
        assert re.search(r"was going on when it was last polled, [\d.]+ seconds? ago\.", said)
        assert ("cannot cancel it" in said) == (what != "sensor")

    def test_is_one_for_all_instances_of_a_mapped_task(
        self, server: LocalPromptLayer, supervisor: Supervisor
    ) -> None:
        supervisor.states = {"task_0": "failed", "task_1": "deferred", "task_2": "success"}
        triggers = [
            waiting(server, sheet, map_index=index) for index, sheet in enumerate(ENDLESS)
        ]  # the last one's task instance is gone

        async def play() -> None:
            await asyncio.gather(*(trigger.on_kill() for trigger in triggers))

        asyncio.run(play())
        assert supervisor.asked == [
            {"dag_id": "dag", "task_ids": ["task"], "run_ids": ["manual__1"], "map_index": None}
        ]
        assert [
            server.operations[trigger.state.job.id].cancelled_at is None for trigger in triggers
        ] == [False, True, False, False]

    def test_joins_none_that_was_asked_before(
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


class TestNobodyHasEndedIt:
    """A triggerer that was held up is told of a wait that another one has taken over, and ended."""

    def test_an_evaluation_that_is_done_is_not_cancelled(
        self, server: LocalPromptLayer, supervisor: Supervisor, log: Callable[[], str]
    ) -> None:
        trigger = waiting(server, BRIEF)
        supervisor.states = {"task": "success"}
        asyncio.run(trigger.on_kill())
        assert server.count("DELETE") == 0
        assert "had ended and was not cancelled" in log()

    def test_a_time_out_cancels_nothing(
        self, server: LocalPromptLayer, supervisor: Supervisor, log: Callable[[], str]
    ) -> None:
        trigger = waiting(server, deadline=time.time() - 1)
        asyncio.run(trigger.on_kill())
        assert not is_cancelled(server)
        assert "is not cancelled" in log()

    def test_a_wait_that_has_ended_here_says_nothing(
        self, server: LocalPromptLayer, supervisor: Supervisor, log: Callable[[], str]
    ) -> None:
        trigger = waiting(server, deadline=time.time() - 1)

        async def play() -> None:
            async for _ in trigger.run():
                await trigger.on_kill()

        asyncio.run(play())
        assert "is not cancelled" not in log()

    @pytest.mark.parametrize("is_polled", [True, False])
    def test_a_workflow_run_is_not_said_to_go_on(
        self,
        is_polled: bool,
        server: LocalPromptLayer,
        supervisor: Supervisor,
        log: Callable[[], str],
    ) -> None:
        trigger = PromptLayerWorkflowTrigger(workflow_version_execution_id=7)
        if is_polled:
            trigger._polled_at = time.time() - 47
        asyncio.run(trigger.on_kill())
        when = r"it was last polled, [\d.]+ seconds? ago" if is_polled else "the task was deferred"
        said = log()
        assert re.search(rf"Workflow run 7 was going on when {when}\.", said)
        assert "user" not in said
        assert "goes on" not in said


class TestAClear:
    """What it means depends on whether Airflow keeps the task's state."""

    @pytest.mark.parametrize("reattaches_after_clear", [True, False])
    def test_that_drops_the_state_cancels_without_a_question(
        self,
        reattaches_after_clear: bool,
        server: LocalPromptLayer,
        supervisor: Supervisor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(version_compat, "ON_KILL_IS_AMBIGUOUS", False)
        kill(server, waiting(server, reattaches_after_clear=reattaches_after_clear))
        assert is_cancelled(server)
        assert not supervisor.asked

    @pytest.mark.parametrize(
        ("keeps", "reattaches_after_clear", "says"),
        [
            (True, True, "its next try goes back to it."),
            (True, False, "its next try starts another one."),
            (False, True, "starts another one, unless Airflow was told to keep the task's state."),
            (False, False, "its next try starts another one."),
        ],
    )
    def test_of_a_run_that_cannot_be_cancelled_is_told(
        self,
        keeps: bool,
        reattaches_after_clear: bool,
        says: str,
        supervisor: Supervisor,
        log: Callable[[], str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(version_compat, "ON_KILL_IS_AMBIGUOUS", keeps)
        trigger = trigger_for(
            PromptLayerWorkflowTrigger,
            WorkflowRun(7),
            submitted_by_this_task=True,
            reattaches_after_clear=reattaches_after_clear,
        )
        asyncio.run(trigger.on_kill())
        assert says in log()
