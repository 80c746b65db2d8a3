# SPDX-License-Identifier: Apache-2.0
"""How a wait for a workflow run ends, the same in every mode of waiting.

At this server a second passes with each poll: a run that ends still runs at the first poll and has
ended at the second.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    TaskDeferred,
)
from support.arguments import AT_RUN_TIME
from support.clocks import timed_by_polls
from support.connections import connect
from support.kinds import BRIEF, OUTPUTS, SECRET, Serve, at, new_server
from support.modes import (
    MODES,
    TASK_MODES,
    Ending,
    FakeTaskInstance,
    Store,
    first_event,
    rebuilt,
    resume_as_ended,
    run_task,
    sensor,
)
from support.starts import RUN_SCORECARD, RUN_TABLE, RUN_WORKFLOW, deferred
from support.waits import state_for

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow
from airflow_provider_promptlayer.version_compat import RescheduleException

every_mode = pytest.mark.parametrize("mode", MODES)


OUTPUT = Node("Answer", SECRET, duration=BRIEF, is_output_node=True)
NO_OUTPUT = Node(
    "Answer", status="FAILED", duration=BRIEF, is_output_node=True, error_message="too hot"
)
BROKEN = Node("Side", status="FAILED", error_message="boom", raw_error_message="Traceback …")

WORKFLOWS = [
    Workflow("Good", [OUTPUT]),
    Workflow("Side failed", [BROKEN, OUTPUT]),
    Workflow("Bad", [Node("Notes", SECRET), NO_OUTPUT]),
    Workflow("Bad, 400", [NO_OUTPUT], no_output_status=400),
    Workflow("Bad, 500", [NO_OUTPUT], no_output_status=500),
    Workflow("Endless", [Node("A", duration=math.inf, is_output_node=True)]),
]


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(timed_by_polls(WORKFLOWS))


def wait(mode: str, run_id: Any, **arguments: Any) -> Ending:
    return MODES[mode](run_id, poke_interval=0.02, **arguments)


@every_mode
@pytest.mark.parametrize(
    ("workflow", "fail_on", "says"),
    [
        ("Side failed", "no_output", None),
        ("Side failed", "any_node", ("'Side'", "boom")),
        ("Side failed", "never", None),
        ("Bad", "any_node", ("'Answer'", "too hot")),
        ("Bad", "never", None),
        ("Bad, 400", "no_output", ("no output node",)),
        ("Bad, 500", "no_output", ("no output node",)),
        ("Bad, 500", "never", None),
    ],
    ids=str,
)
def test_fail_on(
    mode: str, workflow: str, fail_on: str, says: tuple[str, ...] | None, server: LocalPromptLayer
) -> None:
    run_id = server.start_execution(workflow)
    ending = wait(mode, run_id, fail_on=fail_on)
    if says is None:
        assert (ending.kind, ending.value) == ("success", run_id), ending
        return
    assert ending.kind == "failed for good", ending
    assert all(part in ending.message for part in says)
    assert SECRET not in ending.message
    assert "\n" not in ending.message


def test_an_end_that_is_found_at_once_is_said(serve: Serve, log: Callable[[], str]) -> None:
    run_id = serve(LocalPromptLayer(WORKFLOWS)).start_execution("Bad")
    assert wait("poke", run_id, fail_on="never").kind == "success"
    said = log()
    assert f"Workflow run {run_id}: no output, 1 of 2 nodes succeeded, 1 failed." in said
    assert "no output node succeeded" in said
    assert "counts as a success" in said


@every_mode
def test_a_run_that_does_not_end_times_out(mode: str, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Endless")
    ending = wait(mode, run_id, timeout=0.2)
    assert ending.kind == "timeout"
    assert f"orkflow run {run_id}" in ending.message
    assert "running: A" in ending.message
    assert ending.worker_visits <= {"poke": 1, "deferred": 2}.get(mode, math.inf)


@pytest.mark.parametrize(
    ("mode", "option"), [*((mode, "soft_fail") for mode in TASK_MODES), ("poke", "never_fail")]
)
def test_skips_softly(mode: str, option: str, server: LocalPromptLayer) -> None:
    ending = wait(mode, server.start_execution("Bad"), **{option: True})
    assert ending.kind == "skipped"
    assert option in ending.message
    assert "too hot" in ending.message


@every_mode
def test_bad_id_is_refused_before_anything_is_sent(mode: str, server: LocalPromptLayer) -> None:
    ending = wait(mode, "abc", **(AT_RUN_TIME if mode in TASK_MODES else {}))
    assert ending.kind == "failed for good"
    assert "workflow_version_execution_id must be a positive integer" in ending.message
    assert server.count() == 0


@every_mode
def test_refused_key_says_so(
    mode: str, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(server, monkeypatch, password="pl_wrong")
    ending = wait(mode, 1)
    assert ending.kind in ("failed", "failed for good")
    assert "API key" in ending.message
    assert "the password of Airflow connection 'promptlayer_default'" in ending.message
    assert "pl_wrong" not in ending.message


@every_mode
@pytest.mark.parametrize("status", [403, 404])
def test_another_web_server_is_called_that(
    mode: str, status: int, server: LocalPromptLayer
) -> None:
    server.script(Reply(status, "<!DOCTYPE html>Intranet"), times=None)
    ending = wait(mode, 1)
    assert ending.kind in ("failed", "failed for good"), ending
    named = f"{server.url} (Airflow connection 'promptlayer_default')"
    assert f"{named} is not PromptLayer's" in ending.message
    assert "Intranet" not in ending.message


@every_mode
def test_unknown_connection_says_so(mode: str) -> None:
    ending = wait(mode, 1)
    # A task may be tried again: somebody may add the connection, or Airflow could not look.
    assert ending.kind == ("failed for good" if "hook" in mode else "failed")
    assert "no Airflow connection 'promptlayer_default'" in ending.message


class TestSeemedToHaveEnded:
    """The triggerer says that the run has ended, and the worker sees it go on."""

    @pytest.fixture
    def run_id(self, server: LocalPromptLayer) -> int:
        return server.start_execution("Endless")

    def test_times_out(self, run_id: int) -> None:
        """Otherwise worker and triggerer would hand the wait to and fro for ever."""
        now = time.time()
        state = state_for(WorkflowRun(run_id), began_at=now - 20.0, deadline=now - 10.0)
        with pytest.raises(AirflowSensorTimeout, match="within 10 s"):
            resume_as_ended(run_id, state=state)

    def test_a_blip_after_the_deadline_does_not_lose_a_run_that_has_ended(
        self, server: LocalPromptLayer
    ) -> None:
        """The triggerer saw it end in time, and only the request for the results fails."""
        run_id, now = server.start_execution("Good"), time.time()
        state = state_for(WorkflowRun(run_id), began_at=now - 20.0, deadline=now - 10.0)
        server.script(Reply(502))
        how = {"deferrable": False, "poke_interval": 0.02}
        assert resume_as_ended(run_id, state=state, **how) == run_id

    def test_keeps_the_interval(self, run_id: int) -> None:
        """The triggerer may say so again at its first poll, for as long as the run goes on."""
        state = state_for(WorkflowRun(run_id))
        before = time.time()
        with pytest.raises(TaskDeferred) as left:
            resume_as_ended(run_id, state=state, poke_interval=100.0)
        assert left.value.trigger.state.next_poll_at >= before + 100.0

    def test_keeps_the_deadline(self, run_id: int) -> None:
        """Results may be fetched after the deadline; a run that goes on has no more time."""
        deadline = time.time() + 1000.0
        state = state_for(WorkflowRun(run_id), began_at=deadline - 2000.0, deadline=deadline)
        with pytest.raises(TaskDeferred) as left:
            resume_as_ended(run_id, state=state, max_outage=5000.0)
        assert left.value.trigger.state.last_deadline == deadline

    def test_keeps_to_a_long_retry_after_of_the_results(
        self, run_id: int, server: LocalPromptLayer
    ) -> None:
        """In the triggerer too, although the status could be asked there."""
        server.script(Reply(429, "{}", {"Retry-After": "900"}))
        with pytest.raises(TaskDeferred) as left:
            resume_as_ended(run_id, state=state_for(WorkflowRun(run_id)))

        async def sleep(seconds: float) -> None:
            raise InterruptedError(seconds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            with pytest.raises(InterruptedError) as slept:
                asyncio.run(first_event(rebuilt(left.value.trigger)))
        assert slept.value.args[0] > 800.0


class TestInterval:
    """When the next poll comes, as far as a task tells Airflow."""

    @pytest.fixture
    def run_id(self, server: LocalPromptLayer) -> int:
        return server.start_execution("Endless")

    @staticmethod
    def leave(run_id: int, **arguments: Any) -> Any:
        with pytest.raises((TaskDeferred, RescheduleException)) as left:
            sensor(run_id, **arguments).execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
        return left.value

    @pytest.mark.parametrize(
        ("arguments", "shortest", "longest"),
        [
            ({}, 60.0, 60.0),  # Airflow's own: each poll of a rescheduled task starts a process
            ({"poke_interval": 7}, 7.0, 7.0),
            ({"exponential_backoff": True}, 30.0, 60.0),
            ({"poke_interval": 100, "exponential_backoff": True, "max_wait": 45}, 45.0, 45.0),
        ],
    )
    def test_of_reschedules(
        self, run_id: int, arguments: dict[str, Any], shortest: float, longest: float
    ) -> None:
        before = datetime.datetime.now(datetime.UTC)
        left = self.leave(run_id, deferrable=False, mode="reschedule", **arguments)
        after = datetime.datetime.now(datetime.UTC)
        assert (left.reschedule_date - after).total_seconds() <= longest
        assert (left.reschedule_date - before).total_seconds() >= shortest

    @pytest.mark.parametrize(
        ("arguments", "kept"),
        [
            ({}, (None, False, None)),
            ({"poke_interval": datetime.timedelta(minutes=1)}, (60.0, False, None)),
            ({"poke_interval": 7, "exponential_backoff": True, "max_wait": 9}, (7.0, True, 9.0)),
        ],
    )
    def test_of_the_trigger(
        self, run_id: int, arguments: dict[str, Any], kept: tuple[Any, ...]
    ) -> None:
        _, kwargs = self.leave(run_id, **arguments).trigger.serialize()
        names = ("poke_interval", "exponential_backoff", "max_wait")
        assert tuple(kwargs[name] for name in names) == kept

    def test_a_deferral_leaves_the_scheduler_time_to_notice_it(
        self, run_id: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise Airflow takes the task for a killed one (apache/airflow issue 66374)."""
        monkeypatch.setattr("airflow_provider_promptlayer.bases.deferral.SETTLE_SECONDS", 1000.0)
        before = time.time()
        left = self.leave(run_id, poke_interval=0.1, timeout=500)
        assert left.trigger.state.next_poll_at >= before + 1000.0
        assert left.timeout.total_seconds() > 900.0


class TestOutageBetweenReschedules:
    """Each poll of a rescheduled sensor is another process; the outage is one."""

    @pytest.fixture(autouse=True)
    def away(self, server: LocalPromptLayer) -> None:
        server.go_away()

    @staticmethod
    def run(store: Store | None, number: int = 1) -> Ending:
        return run_task(
            lambda: sensor(
                1, deferrable=False, mode="reschedule", poke_interval=0.05, max_outage=0.2
            ),
            FakeTaskInstance(try_number=number),
            **({} if store is None else {"task_state_store": store}),
        )

    def test_is_remembered_or_else_keeps_the_worker(self, store: Store | None) -> None:
        ending = self.run(store)
        assert ending.kind == "failed"
        assert "longer than max_outage" in ending.message
        assert (ending.worker_visits > 1) is (store is not None)

    def test_of_an_earlier_try_does_not_count(self) -> None:
        store = Store()
        self.run(store)
        assert self.run(store, number=2).worker_visits > 1

    @pytest.mark.parametrize("kept", [{"since": 1.0, "try_number": 1}, {"version": 1}, "1.0"])
    def test_a_note_that_cannot_be_read_is_no_outage_of_years(
        self, kept: Any, log: Callable[[], str]
    ) -> None:
        """No job hangs on it, so the wait goes on, and the outage counts from now on."""
        ending = self.run(Store(promptlayer_outage=kept))
        assert ending.kind == "failed"
        assert ending.worker_visits > 1
        assert "counts from now on" in log()


class TestResumedWithTheEventAlone:
    """As ``dag.test()`` and ``airflow tasks test`` do, on every Airflow."""

    @pytest.fixture
    def server(self, serve: Serve) -> LocalPromptLayer:
        return serve(new_server(by_polls=True))

    @staticmethod
    def run(make: Callable[[], Any]) -> Any:
        context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
        with pytest.raises(TaskDeferred) as deferral:
            make().execute(context)
        event = asyncio.run(first_event(rebuilt(deferral.value.trigger)))
        return make().resume_execution(
            deferral.value.method_name, {"event": event.payload}, context
        )

    @pytest.mark.parametrize("end_from_trigger", [False, True])
    def test_the_sensor(self, end_from_trigger: bool, server: LocalPromptLayer) -> None:
        how: dict[str, Any] = {"poke_interval": 0.02, "end_from_trigger": end_from_trigger}
        good = server.start_execution("good")
        assert self.run(lambda: sensor(good, **how)) == good
        bad = server.start_execution("bad")
        with pytest.raises(AirflowFailException, match="no output node"):
            self.run(lambda: sensor(bad, **how))

    def test_the_run_operator(self, server: LocalPromptLayer) -> None:
        assert self.run(RUN_WORKFLOW.make) == OUTPUTS
        assert len(server.executions) == 1

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda: RUN_TABLE.make(max_price=0.003), ", cost 0.003 USD"),
            (lambda: RUN_SCORECARD.make(max_drop=0.02), "The score 0.9 is the same as the 0.9 of"),
        ],
        ids=["price", "earlier score"],
    )
    def test_notes_about_the_start_come_from_the_task_state(
        self, make: Callable[[], Any], says: str, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        server.start_calculation(*at("good").values())
        ti, store = FakeTaskInstance(max_tries=2), Store()
        deferral = deferred(make(), store, ti)
        event = asyncio.run(first_event(rebuilt(deferral.trigger)))
        context: Any = {"ti": ti, "run_id": "manual__1", "task_state_store": store}
        make().resume_execution(deferral.method_name, {"event": event.payload}, context)
        assert says in log()

    @pytest.mark.parametrize("end_from_trigger", [False, True])
    def test_an_ending_that_the_trigger_calls_a_success_is_judged_all_the_same(
        self, end_from_trigger: bool, serve: Serve
    ) -> None:
        task = sensor(
            serve(LocalPromptLayer(WORKFLOWS)).start_execution("Bad"),
            end_from_trigger=end_from_trigger,
        )
        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(AirflowException, match=r"no output node|event is not"):
            task.resume_execution("execute_complete", {"event": "success"}, context)


def test_a_poke_by_hand_polls_once(server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Good")
    context: Any = {"ti": FakeTaskInstance()}
    server.script(Reply(503), Reply(202, "{}"), times=1)
    pokes = [sensor(run_id).poke(context) for _ in range(3)]
    assert [poke.is_done for poke in pokes] == [False, False, True]
    assert pokes[-1].xcom_value == run_id
    assert server.count() == 3
