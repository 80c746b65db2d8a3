# SPDX-License-Identifier: Apache-2.0
"""What an ending means, the same in every mode of waiting."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    TaskDeferred,
)
from support.clocks import timed_by_looks
from support.modes import (
    MODES,
    TASK_MODES,
    Ending,
    FakeTaskInstance,
    Store,
    first_event,
    rebuilt,
    run_task,
)
from support.waits import state_for

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.polling.event import Outcome, WaitEvent
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow
from airflow_provider_promptlayer.version_compat import RescheduleException

SECRET = "what the customer wrote"


@dataclass(frozen=True)
class Case:
    nodes: tuple[Node, ...]
    fail_on: str
    kind: str
    says: tuple[str, ...] = ()
    no_output_status: int | None = None


OUTPUT = Node("Answer", SECRET, is_output_node=True)
NO_OUTPUT = Node("Answer", status="FAILED", is_output_node=True, error_message="too hot")
BROKEN = Node("Side", status="FAILED", error_message="boom", raw_error_message="Traceback …")
SKIPPED_OUTPUT = Node("Other answer", status="SKIPPED", is_output_node=True)
QUIET = Node("Notes", SECRET)

CASES = {
    "one output": Case((QUIET, OUTPUT), "no_output", "success"),
    "one of two branches": Case((SKIPPED_OUTPUT, OUTPUT), "no_output", "success"),
    "one of two branches, strict": Case((SKIPPED_OUTPUT, OUTPUT), "any_node", "success"),
    "side node failed": Case((BROKEN, OUTPUT), "no_output", "success"),
    "side node failed, strict": Case(
        (BROKEN, OUTPUT), "any_node", "failed for good", ("'Side'", "boom")
    ),
    "side node failed, never": Case((BROKEN, OUTPUT), "never", "success"),
    "no output": Case((QUIET, NO_OUTPUT), "no_output", "failed for good", ("'Answer'", "too hot")),
    "no output, strict": Case((QUIET, NO_OUTPUT), "any_node", "failed for good", ("too hot",)),
    "no output, never": Case((QUIET, NO_OUTPUT), "never", "success"),
    "no output, announced as 400": Case(
        (QUIET, NO_OUTPUT), "no_output", "failed for good", ("no output node",), 400
    ),
    "no output, announced as 500": Case(
        (QUIET, NO_OUTPUT), "no_output", "failed for good", ("no output node",), 500
    ),
    "no output, announced as 500, never": Case((NO_OUTPUT,), "never", "success", (), 500),
    "all outputs skipped": Case((QUIET, SKIPPED_OUTPUT), "no_output", "failed for good"),
    "no output node at all": Case((QUIET,), "no_output", "failed for good"),
    "output node unknown": Case(
        (Node("Answer", SECRET, is_output_node=None),), "no_output", "failed for good"
    ),
    "unknown status is final and no success": Case(
        (Node("Answer", is_output_node=True, status="CANCELLED"),),
        "no_output",
        "failed for good",
        ("'Answer'", "CANCELLED"),
    ),
    "output that looks like nodes that run": Case(
        (Node("Answer", {"job": {"status": "RUNNING"}}, duration=0.3, is_output_node=True),),
        "no_output",
        "success",
    ),
    "nodes take a while": Case(
        (
            Node("Notes", SECRET, duration=0.3),
            Node("Answer", SECRET, duration=0.3, depends_on=["Notes"], is_output_node=True),
        ),
        "no_output",
        "success",
    ),
}


@pytest.fixture
def promptlayer_workflows() -> list[Workflow]:
    return [Workflow("Good", [OUTPUT]), Workflow("Bad", [NO_OUTPUT])]


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def wait(mode: str, run_id: Any, **arguments: Any) -> Ending:
    return MODES[mode](run_id, poke_interval=0.1, **arguments)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_ending(
    mode: str, case: Case, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    with (
        LocalPromptLayer(
            [Workflow("W", case.nodes, no_output_status=case.no_output_status)]
        ) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        run_id = server.start_execution("W")
        ending = wait(mode, run_id, fail_on=case.fail_on)
        assert server.count("POST") == 0

    assert ending.kind == case.kind, ending
    for part in case.says:
        assert part in ending.message
    assert SECRET not in ending.message
    assert "\n" not in ending.message
    if case.kind == "success":
        assert ending.value == run_id


def test_an_end_that_is_found_at_once_is_said(
    promptlayer_connection: str,
    promptlayer_server: LocalPromptLayer,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    with (
        LocalPromptLayer([Workflow("W", (NO_OUTPUT,))]) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        run_id = server.start_execution("W")
        assert wait("poke", run_id, fail_on="never").kind == "success"
    said = capsys.readouterr().out + caplog.text
    assert f"Workflow run {run_id}: 1 of 1 nodes done." in said
    assert "no output node succeeded" in said
    assert "counts as a success" in said


class TestNeverEnding:
    """A run that does not end, in every mode."""

    @pytest.fixture
    def promptlayer_workflows(self) -> list[Workflow]:
        return [Workflow("W", [Node("A", duration=math.inf, is_output_node=True)])]

    def test_times_out(
        self, mode: str, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        run_id = promptlayer_server.start_execution("W")
        ending = wait(mode, run_id, timeout=0.5)
        assert ending.kind == "timeout"
        assert f"orkflow run {run_id}" in ending.message
        assert "running: A" in ending.message

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    @pytest.mark.parametrize("task_mode", TASK_MODES)
    def test_times_out_softly(
        self,
        task_mode: str,
        option: str,
        promptlayer_connection: str,
        promptlayer_server: LocalPromptLayer,
    ) -> None:
        run_id = promptlayer_server.start_execution("W")
        ending = wait(task_mode, run_id, timeout=0.5, **{option: True})
        assert ending.kind == "skipped"
        assert option in ending.message

    def test_times_out_also_where_it_seemed_to_have_ended(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        """Else the worker and the triggerer hand it to and fro for ever."""
        run_id = promptlayer_server.start_execution("W")
        sensor = PromptLayerWorkflowSensor(task_id="t", workflow_version_execution_id=run_id)
        waiting = state_for(
            WorkflowRun(run_id), began_at=time.time() - 20.0, deadline=time.time() - 10.0
        )
        ended = WaitEvent(run_id, Outcome.ENDED, "").payload()
        with pytest.raises(AirflowSensorTimeout, match="within 10 s"):
            sensor.resume_execution(
                "execute_complete",
                {"event": ended, "waiting": waiting},
                {"ti": FakeTaskInstance()},  # type: ignore[typeddict-item]
            )

    def test_keeps_the_interval_where_it_seemed_to_have_ended(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        """The triggerer may say so again at its first look, for as long as the run goes on."""
        run_id = promptlayer_server.start_execution("W")
        sensor = PromptLayerWorkflowSensor(
            task_id="t", workflow_version_execution_id=run_id, deferrable=True, poke_interval=100.0
        )
        now = time.time()
        waiting = state_for(WorkflowRun(run_id), began_at=now, deadline=now + 1000.0)
        ended = WaitEvent(run_id, Outcome.ENDED, "").payload()
        with pytest.raises(TaskDeferred) as left:
            sensor.resume_execution(
                "execute_complete",
                {"event": ended, "waiting": waiting},
                {"ti": FakeTaskInstance()},  # type: ignore[typeddict-item]
            )
        assert left.value.trigger.serialize()[1]["state"]["next_poll_at"] >= now + 100.0

    def test_keeps_to_a_long_retry_after_of_the_results(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        """In the triggerer too, where that is no outage: the status may well be had."""
        run_id = promptlayer_server.start_execution("W")
        promptlayer_server.script(Reply(429, "{}", {"Retry-After": "900"}))
        ended = WaitEvent(run_id, Outcome.ENDED, "").payload()
        with pytest.raises(TaskDeferred) as left:
            PromptLayerWorkflowSensor(
                task_id="t", workflow_version_execution_id=run_id
            ).resume_execution(
                "execute_complete",
                {"event": ended, "waiting": state_for(WorkflowRun(run_id))},
                {"ti": FakeTaskInstance()},  # type: ignore[typeddict-item]
            )

        async def sleep(seconds: float) -> None:
            raise InterruptedError(seconds)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", sleep)
            with pytest.raises(InterruptedError) as slept:
                asyncio.run(first_event(rebuilt(left.value.trigger)))
        assert slept.value.args[0] > 800.0

    def test_has_no_more_time_where_it_seemed_to_have_ended(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        """What has ended in time may be read after the deadline; what goes on may not go on."""
        run_id = promptlayer_server.start_execution("W")
        deadline = time.time() + 1000.0
        with pytest.raises(TaskDeferred) as left:
            PromptLayerWorkflowSensor(
                task_id="t", workflow_version_execution_id=run_id, max_outage=5000.0
            ).resume_execution(
                "execute_complete",
                {
                    "event": WaitEvent(run_id, Outcome.ENDED, "").payload(),
                    "waiting": state_for(
                        WorkflowRun(run_id), began_at=deadline - 2000.0, deadline=deadline
                    ),
                },
                {"ti": FakeTaskInstance()},  # type: ignore[typeddict-item]
            )
        assert left.value.trigger.state.last_deadline == deadline

    @pytest.mark.parametrize(("task_mode", "visits"), [("poke", 1), ("deferred", 2)])
    def test_worker_visits(
        self,
        task_mode: str,
        visits: int,
        promptlayer_connection: str,
        promptlayer_server: LocalPromptLayer,
    ) -> None:
        run_id = promptlayer_server.start_execution("W")
        assert wait(task_mode, run_id, timeout=0.5).worker_visits <= visits


@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
@pytest.mark.parametrize("task_mode", TASK_MODES)
def test_failed_run_skips_softly(
    task_mode: str, option: str, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    run_id = promptlayer_server.start_execution("Bad")
    ending = wait(task_mode, run_id, **{option: True})
    assert ending.kind == "skipped"
    assert "too hot" in ending.message


@pytest.mark.parametrize("bad", [0, -1, "abc", "", True, 1.5, None, 2**63, "1" * 5000])
def test_bad_id_is_refused_before_anything_is_sent(
    mode: str, bad: Any, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    ending = wait(mode, bad)
    assert ending.kind == "failed for good"
    assert "workflow_version_execution_id must be a positive integer" in ending.message
    assert promptlayer_server.count() == 0


def test_unknown_run_fails_at_once(
    mode: str, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    ending = wait(mode, 4711)
    assert ending.kind == "failed for good"
    assert "404" in ending.message
    assert promptlayer_server.count() == 1


def test_refused_key_says_so(
    mode: str,
    promptlayer_connection: str,
    promptlayer_server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = promptlayer_server.airflow_connection_json.replace(
        promptlayer_server.api_key, "pl_wrong"
    )
    monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", wrong)
    ending = wait(mode, 1)
    assert ending.kind in ("failed", "failed for good")
    assert "API key" in ending.message
    assert "the password of Airflow connection 'promptlayer_default'" in ending.message
    assert "pl_wrong" not in ending.message


@pytest.mark.parametrize("status", [403, 404])
def test_another_web_server_is_called_that(
    mode: str, status: int, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    promptlayer_server.script(Reply(status, "<!DOCTYPE html>Intranet"), times=None)
    ending = wait(mode, 1)
    assert ending.kind in ("failed", "failed for good"), ending
    named = f"{promptlayer_server.url} (Airflow connection 'promptlayer_default')"
    assert f"{named} is not PromptLayer's" in ending.message
    assert "Intranet" not in ending.message


def test_unknown_connection_says_so(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = wait(mode, 1)
    # A task may be tried again: somebody may add the connection, or Airflow could not look.
    assert ending.kind == ("failed for good" if "hook" in mode else "failed")
    assert "no Airflow connection 'promptlayer_default'" in ending.message


def test_digits_in_a_string_are_an_id(
    mode: str, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    run_id = promptlayer_server.start_execution("Good")
    assert wait(mode, f" {run_id} ").value == run_id


class TestPace:
    """When the next look comes, as far as a task tells Airflow."""

    @pytest.fixture
    def promptlayer_workflows(self) -> list[Workflow]:
        return [Workflow("W", [Node("A", duration=math.inf, is_output_node=True)])]

    @pytest.fixture
    def run_id(self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer) -> int:
        return promptlayer_server.start_execution("W")

    @staticmethod
    def leaves(run_id: int, **arguments: Any) -> BaseException:
        sensor = PromptLayerWorkflowSensor(
            task_id="t", workflow_version_execution_id=run_id, **arguments
        )
        with pytest.raises((TaskDeferred, RescheduleException)) as left:
            sensor.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
        value: BaseException = left.value
        return value

    @pytest.mark.parametrize(
        ("arguments", "shortest", "longest"),
        [
            ({}, 60.0, 60.0),  # Airflow's own: each look of a rescheduled task starts a process
            ({"poke_interval": 7}, 7.0, 7.0),
            ({"poke_interval": 100, "exponential_backoff": True}, 50.0, 100.0),
            ({"poke_interval": 100, "exponential_backoff": True, "max_wait": 45}, 45.0, 45.0),
            ({"exponential_backoff": True}, 30.0, 60.0),
        ],
    )
    def test_of_reschedules(
        self, run_id: int, arguments: dict[str, Any], shortest: float, longest: float
    ) -> None:
        before = datetime.datetime.now(datetime.UTC)
        left: Any = self.leaves(run_id, deferrable=False, mode="reschedule", **arguments)
        after = datetime.datetime.now(datetime.UTC)
        assert (left.reschedule_date - after).total_seconds() <= longest
        assert (left.reschedule_date - before).total_seconds() >= shortest

    @pytest.mark.parametrize(
        ("arguments", "kept"),
        [
            ({}, (None, False, None)),
            ({"max_wait": 9}, (None, False, 9.0)),
            ({"poke_interval": datetime.timedelta(minutes=1)}, (60.0, False, None)),
            ({"poke_interval": 7, "exponential_backoff": True, "max_wait": 9}, (7.0, True, 9.0)),
        ],
    )
    def test_of_the_trigger(
        self, run_id: int, arguments: dict[str, Any], kept: tuple[Any, ...]
    ) -> None:
        left: Any = self.leaves(run_id, **arguments)
        _, kwargs = left.trigger.serialize()
        names = ("poke_interval", "exponential_backoff", "max_wait")
        assert tuple(kwargs[name] for name in names) == kept

    def test_a_deferral_leaves_the_scheduler_time_to_notice_it(
        self, run_id: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else Airflow takes the task for one that was killed (apache/airflow issue 66374)."""
        monkeypatch.setattr("airflow_provider_promptlayer.bases.deferral.SETTLE_SECONDS", 1000.0)
        before = time.time()
        left: Any = self.leaves(run_id, poke_interval=0.1, timeout=500)
        assert left.trigger.serialize()[1]["state"]["next_poll_at"] >= before + 1000.0
        assert left.timeout.total_seconds() > 900.0


class TestOutageBetweenReschedules:
    """Each look of a rescheduled sensor is another process; the outage is one."""

    @pytest.fixture
    def away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connection = {"conn_type": "promptlayer", "host": "http://127.0.0.1:1", "password": "k"}
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps(connection))

    @staticmethod
    def sensor() -> PromptLayerWorkflowSensor:
        return PromptLayerWorkflowSensor(
            task_id="t",
            workflow_version_execution_id=1,
            deferrable=False,
            mode="reschedule",
            poke_interval=0.1,
            max_outage=0.5,
        )

    def test_is_remembered_where_airflow_can(self, away: None) -> None:
        ending = run_task(self.sensor, task_state_store=Store())
        assert ending.kind == "failed"
        assert "longer than max_outage" in ending.message
        assert ending.worker_visits > 1

    def test_keeps_the_worker_where_airflow_cannot(self, away: None) -> None:
        ending = run_task(self.sensor)
        assert ending.kind == "failed"
        assert "longer than max_outage" in ending.message
        assert ending.worker_visits == 1

    def test_of_an_earlier_try_does_not_count(self, away: None) -> None:
        store = Store()
        run_task(self.sensor, FakeTaskInstance(try_number=1), task_state_store=store)
        ending = run_task(self.sensor, FakeTaskInstance(try_number=2), task_state_store=store)
        assert ending.worker_visits > 1

    @pytest.mark.parametrize("kept", [{"since": 1.0, "try_number": 1}, {"version": 1}, "1.0"])
    def test_a_note_that_cannot_be_read_is_no_outage_of_years(
        self,
        away: None,
        kept: Any,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Nothing is doubled by that, so the wait goes on, and counts from now on."""
        ending = run_task(self.sensor, task_state_store=Store(promptlayer_outage=kept))
        assert ending.kind == "failed"
        assert ending.worker_visits > 1
        assert "counts from now on" in capsys.readouterr().out + caplog.text


class TestResumedWithTheEventAlone:
    """As ``dag.test()`` and ``airflow tasks test`` do, on every Airflow."""

    @pytest.fixture
    def promptlayer_server(self) -> Iterator[LocalPromptLayer]:
        workflows = [
            Workflow("Good", [Node("A", "yes", duration=3, is_output_node=True)]),
            Workflow("Bad", [Node("A", status="FAILED", duration=3, is_output_node=True)]),
            Workflow("Bad already", [Node("A", status="FAILED", is_output_node=True)]),
        ]
        with timed_by_looks(workflows) as server:
            yield server

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
    def test_the_sensor(
        self,
        end_from_trigger: bool,
        promptlayer_connection: str,
        promptlayer_server: LocalPromptLayer,
    ) -> None:
        def make() -> PromptLayerWorkflowSensor:
            return PromptLayerWorkflowSensor(
                task_id="task",
                workflow_version_execution_id=run_id,
                poke_interval=0.05,
                end_from_trigger=end_from_trigger,
            )

        run_id = promptlayer_server.start_execution("Good")
        assert self.run(make) == run_id
        run_id = promptlayer_server.start_execution("Bad")
        with pytest.raises(AirflowFailException, match="no output node"):
            self.run(make)

    def test_the_run_operator(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        outputs = self.run(
            lambda: PromptLayerRunWorkflowOperator(
                task_id="task", workflow_id_or_name="Good", poke_interval=0.05
            )
        )
        assert outputs == {"A": "yes"}
        assert len(promptlayer_server.executions) == 1

    @pytest.mark.parametrize("option", [{}, {"end_from_trigger": True}])
    def test_what_a_trigger_called_a_success_is_judged_all_the_same(
        self,
        option: dict[str, Any],
        promptlayer_connection: str,
        promptlayer_server: LocalPromptLayer,
    ) -> None:
        run_id = promptlayer_server.start_execution("Bad already")
        sensor = PromptLayerWorkflowSensor(
            task_id="task",
            workflow_version_execution_id=run_id,
            poke_interval=0.05,
            deferrable=True,
            **option,
        )
        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(AirflowException, match=r"no output node|event is not"):
            sensor.resume_execution("execute_complete", {"event": "success"}, context)


def test_a_poke_by_hand_polls_once(
    promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    run_id = promptlayer_server.start_execution("Good")
    sensor = PromptLayerWorkflowSensor(task_id="task", workflow_version_execution_id=run_id)
    context: Any = {"ti": FakeTaskInstance()}
    promptlayer_server.script(Reply(503), Reply(202, "{}"), times=1)
    pokes = [sensor.poke(context) for _ in range(3)]
    assert [poke.is_done for poke in pokes] == [False, False, True]
    assert pokes[-1].xcom_value == run_id
    assert promptlayer_server.count() == 3
