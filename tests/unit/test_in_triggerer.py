# SPDX-License-Identifier: Apache-2.0
"""Waits that begin or end in the triggerer.

test_modes.py and faults/ compare them with the other modes. Here is what they alone do: they save
workers, they refuse some arguments when the DAG is parsed, and they keep the deadline of a wait
whose beginning no worker has seen.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jinja2
import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowFailException,
    AirflowSensorTimeout,
    TaskDeferred,
    task,
    task_group,
)
from airflow.triggers.base import TaskSuccessEvent
from support.arguments import AT_RUN_TIME
from support.modes import FakeTaskInstance, first_event, rebuilt, run_task, started_by_airflow
from support.needs import needs_start_in_triggerer

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.http import LARGE
from airflow_provider_promptlayer.api.workflows import WorkflowResults
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

WORKFLOWS = [
    Workflow("Good", [Node("Only", "yes", is_output_node=True)]),
    Workflow("Bad", [Node("Only", is_output_node=True, status="FAILED")]),
    Workflow("Never done", [Node("Only", duration=math.inf, is_output_node=True)]),
]
RUNNING = Reply(202, "{}")
ENDED = Reply.of_json("yes")
LARGE_OUTPUT = Reply.of_json(
    {"Only": {"status": "SUCCESS", "value": "x" * LARGE, "is_output_node": True}}
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer(WORKFLOWS) as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        yield server


@pytest.fixture(autouse=True)
def dag() -> Iterator[DAG]:
    with DAG("d", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        yield dag


def sensor(run: Any = 1, **arguments: Any) -> PromptLayerWorkflowSensor:
    return PromptLayerWorkflowSensor(
        task_id="task", workflow_version_execution_id=run, poke_interval=0.05, **arguments
    )


def make(run: Any, **arguments: Any) -> Callable[[], PromptLayerWorkflowSensor]:
    def new() -> PromptLayerWorkflowSensor:
        with DAG("d", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
            return sensor(run, **arguments)

    return new


@task
def start() -> int:
    return 1


def output(key: str) -> Any:
    started: Any = start()
    return started[key]


class TestWorkers:
    """How often a worker has the task; no more than without the options, however it ends."""

    @pytest.mark.parametrize(
        ("start_from_trigger", "end_from_trigger", "good", "bad"),
        [
            (False, False, 2, 2),
            (False, True, 1, 2),
            pytest.param(True, False, 1, 1, marks=needs_start_in_triggerer),
            pytest.param(True, True, 0, 1, marks=needs_start_in_triggerer),
        ],
    )
    def test_visits(
        self,
        start_from_trigger: bool,
        end_from_trigger: bool,
        good: int,
        bad: int,
        server: LocalPromptLayer,
    ) -> None:
        how = {"start_from_trigger": start_from_trigger, "end_from_trigger": end_from_trigger}
        for name, kind, visits in (("Good", "success", good), ("Bad", "failed for good", bad)):
            server.script(RUNNING, times=1)  # for the first poll, wherever that is
            ending = run_task(make(server.start_execution(name), **how))
            assert (ending.kind, ending.worker_visits) == (kind, visits)

    def test_both_are_off_by_default(self) -> None:
        plain = sensor()
        assert not plain.start_from_trigger
        assert not plain.end_from_trigger


def deferred(server: LocalPromptLayer, name: str, *more_answers: Reply, **arguments: Any) -> Any:
    """Return the trigger that a worker defers to, which has seen that the run goes on."""
    server.script(RUNNING, *more_answers, times=1)
    with pytest.raises(TaskDeferred) as deferral:
        make(server.start_execution(name), **arguments)().execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    return deferral.value.trigger


class TestEnd:
    @staticmethod
    def event(server: LocalPromptLayer, name: str, *more_answers: Reply, **arguments: Any) -> Any:
        trigger = deferred(server, name, *more_answers, end_from_trigger=True, **arguments)
        return asyncio.run(first_event(rebuilt(trigger)))

    def test_passes_nothing_on(self, server: LocalPromptLayer) -> None:
        event = self.event(server, "Good")
        assert isinstance(event, TaskSuccessEvent)
        assert not event.xcoms

    def test_asks_for_the_whole_outputs_once(self, server: LocalPromptLayer) -> None:
        self.event(server, "Good")
        in_the_triggerer = server.requests[1:]  # after the poll in the worker
        whole = [one.query.get("return_all_outputs") == "true" for one in in_the_triggerer]
        assert (whole.count(True), whole[-1]) == (1, True)

    def test_is_judged_by_fail_on(self, server: LocalPromptLayer) -> None:
        assert isinstance(self.event(server, "Bad", fail_on="never"), TaskSuccessEvent)
        assert not isinstance(self.event(server, "Bad"), TaskSuccessEvent)

    @pytest.mark.parametrize(
        "reply", [Reply(503), LARGE_OUTPUT, RUNNING], ids=["no outputs", "large", "node still runs"]
    )
    def test_goes_to_a_worker_if_the_triggerer_cannot_tell(
        self, reply: Reply, server: LocalPromptLayer
    ) -> None:
        event = self.event(server, "Good", ENDED, reply, fail_on="never")
        assert not isinstance(event, TaskSuccessEvent)
        assert event.payload["outcome"] == "ended"

    @pytest.mark.parametrize("start", [False, pytest.param(True, marks=needs_start_in_triggerer)])
    def test_is_left_to_a_subclass_that_judges_by_more(
        self, start: bool, server: LocalPromptLayer
    ) -> None:
        class Exacting(PromptLayerWorkflowSensor):
            def raise_for_outcome(self, ending: WorkflowResults) -> None:
                super().raise_for_outcome(ending)
                if ending.final_output != "perfect":
                    raise AirflowFailException("could be better")

        run_id = server.start_execution("Good")
        server.script(RUNNING, times=1)
        ending = run_task(
            lambda: Exacting(
                task_id="exacting",
                dag=DAG("e", schedule=None, start_date=datetime.datetime(2026, 1, 1)),
                workflow_version_execution_id=run_id,
                poke_interval=0.05,
                start_from_trigger=start,
                end_from_trigger=True,
            )
        )
        assert (ending.kind, ending.message) == ("failed for good", "could be better")

    def test_keeps_away_from_the_scheduler(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_promptlayer.bases.deferral.SETTLE_SECONDS", 1000.0)
        state = deferred(server, "Good", end_from_trigger=True).serialize()[1]["state"]
        assert state["next_poll_at"] - state["began_at"] >= 1000.0

    def test_a_triggerer_of_an_earlier_release_takes_a_plain_wait(
        self, server: LocalPromptLayer
    ) -> None:
        kwargs = deferred(server, "Good").serialize()[1]
        assert not {"end_from_trigger", "fail_on"} & set(kwargs)


REFUSED = {
    "{{ ti.xcom_pull(task_ids='start') }}": "map_indexes=-1",
    "{{ task_instance.xcom_pull('start', key='x') }}": "map_indexes=-1",
    "{{ ti.xcom_pull(**params) }}": "map_indexes=-1",
    "{% set pull = ti.xcom_pull %}{{ pull('start') }}": "map_indexes=-1",
    "{{ params.x + ti.xcom_pull('start') }}": "map_indexes=-1",
    "{% if params.x %}{{ ti.xcom_pull('start') }}{% endif %}": "map_indexes=-1",
    "{% set t = ti %}{{ t.xcom_pull('start') }}": "hands on ti",
    "{{ ti['xcom_pull']('start') }}": "hands on ti",
    "{{ ti.get_previous_ti() }}": "ti.get_previous_ti",
    "{{ prev_start_date_success }}": "'prev_start_date_success'",
    "{{ prev_data_interval_end_success }}": "'prev_data_interval_end_success'",
    "{{ task_state_store.get('x') }}": "'task_state_store'",
    "{{ inlet_events }}": "'inlet_events'",
    "{{ macro_of_the_dag() }}": "'macro_of_the_dag'",
    "{{ params.x | filter_of_the_dag }}": "filter_of_the_dag",
    "{{ params.x": "no template",
}
ACCEPTED = [
    "1",
    "{{ params.x }}",
    "{{ dag_run.conf['run'] | int }}",
    "{{ var.value.get('x', 5) }}",
    "{{ ti.xcom_pull(task_ids='start', map_indexes=-1) }}",
    "{{ ti.xcom_pull(task_ids='start', key='other', map_indexes=ti.map_index) }}",
    "{% set run = task_instance.xcom_pull('start', map_indexes=-1) %}{{ run }}",
]


class TestRefusals:
    """When the DAG is parsed, on every Airflow: else the task would hang, or fail, in 3.3."""

    @pytest.fixture(autouse=True)
    def _old_airflow_warns(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*needs Airflow 3.3")
            yield

    @pytest.mark.parametrize(("template", "says"), REFUSED.items())
    @pytest.mark.parametrize("argument", ["workflow_version_execution_id", "promptlayer_conn_id"])
    def test_of_templates(self, argument: str, template: str, says: str) -> None:
        arguments: dict[str, Any] = {"workflow_version_execution_id": 1, argument: template}
        with pytest.raises(PromptLayerInvalidInputError) as refused:
            PromptLayerWorkflowSensor(task_id="t", start_from_trigger=True, **arguments)
        assert argument in str(refused.value)
        assert says in str(refused.value)

    @pytest.mark.parametrize("template", ACCEPTED)
    def test_what_is_accepted(self, template: str) -> None:
        sensor(template, start_from_trigger=True)

    @pytest.mark.parametrize("template", REFUSED)
    def test_is_of_this_option_alone(self, template: str) -> None:
        sensor(template, end_from_trigger=True)

    def test_of_an_output_that_is_computed(self) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="as it is"):
            sensor(start().map(str), start_from_trigger=True)

    def test_of_a_mapped_output(self) -> None:
        mapped = PromptLayerWorkflowSensor.partial(task_id="many").expand(
            workflow_version_execution_id=[1, 2]
        )
        with pytest.raises(PromptLayerInvalidInputError, match="'many', which is mapped"):
            sensor(mapped.output, start_from_trigger=True)

    def test_of_an_output_in_a_mapped_group(self) -> None:
        @task_group
        def group(number: int) -> None:
            with pytest.raises(PromptLayerInvalidInputError, match=r"'group\.start', which is ma"):
                sensor(start(), start_from_trigger=True)

        group.expand(number=[1, 2])

    def test_of_what_is_no_template(self) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="is a list"):
            sensor([1], start_from_trigger=True, **AT_RUN_TIME)

    def test_of_a_mapped_task(self) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="mapped task cannot start"):
            PromptLayerWorkflowSensor.partial(task_id="t", start_from_trigger=True)

    @pytest.mark.parametrize("option", ["start_from_trigger", "end_from_trigger"])
    def test_of_a_wait_in_the_worker(self, option: str) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="deferrable=True"):
            sensor(1, deferrable=False, **{option: True})


class TestOlderAirflow:
    """A DAG does the same on each version of Airflow; it only costs a worker more."""

    @pytest.fixture(autouse=True)
    def _older(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(version_compat, "STARTS_IN_TRIGGERER", False)

    def test_defers_from_a_worker(self, server: LocalPromptLayer) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            server.script(RUNNING, times=1)
            ending = run_task(make(server.start_execution("Good"), start_from_trigger=True))
        assert (ending.kind, ending.worker_visits) == ("success", 2)
        assert {str(one.message).partition("which")[2] for one in caught} == {
            " needs Airflow 3.3. Here it defers itself from a worker, with the same result."
        }

    def test_airflow_is_not_told(self) -> None:
        with pytest.warns(UserWarning, match="needs Airflow 3.3"):
            made = sensor(start(), start_from_trigger=True)
        assert not made.start_from_trigger
        assert made.start_trigger_args is None


@pytest.fixture
def far_from_utc() -> Iterator[None]:
    """Set the local time nine hours ahead of UTC."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@needs_start_in_triggerer
class TestStart:
    @pytest.mark.parametrize("key", ["return_value", 'it\'s "odd" }} {% %}', "\\n"])
    def test_an_output_becomes_a_template(self, key: str) -> None:
        made = sensor(output(key), start_from_trigger=True)
        assert made.upstream_task_ids == {"start"}
        asked: dict[str, Any] = {}

        class TaskInstance:
            def xcom_pull(self, **arguments: Any) -> int:
                asked.update(arguments)
                return 7

        args = made.start_trigger_args
        assert args is not None
        assert args.trigger_kwargs is not None
        template = args.trigger_kwargs["workflow_version_execution_id"]
        assert jinja2.Environment().from_string(template).render(ti=TaskInstance()) == "7"
        assert asked == {"task_ids": "start", "key": key, "map_indexes": -1}

    def test_the_scheduler_reads_what_was_written(self, dag: DAG) -> None:
        from airflow.serialization.serialized_objects import DagSerialization

        args = sensor(start(), start_from_trigger=True, end_from_trigger=True).start_trigger_args
        data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
        read: Any = DagSerialization.from_dict(data).get_task("task")
        assert read.start_from_trigger is True
        assert args is not None
        assert read.start_trigger_args.trigger_cls == args.trigger_cls
        assert read.start_trigger_args.timeout == args.timeout
        plain = DagSerialization.from_dict(data).get_task("start")
        assert not plain.start_from_trigger

    def test_a_subclass_may_have_more_template_fields(self) -> None:
        class Regional(PromptLayerWorkflowSensor):
            template_fields = (*PromptLayerWorkflowSensor.template_fields, "region")

            def __init__(self, *, region: str, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.region = region

        sensor = Regional(
            task_id="task", workflow_version_execution_id=7, region="eu", start_from_trigger=True
        )
        assert started_by_airflow(sensor.start_trigger_args).workflow_version_execution_id == 7

    def test_every_task_has_arguments_of_its_own(self) -> None:
        one, other = make(1, start_from_trigger=True)(), make(2, start_from_trigger=True)()
        assert one.start_trigger_args != other.start_trigger_args

    @pytest.mark.parametrize("zone", [datetime.UTC, None])
    def test_a_triggerer_that_takes_over_keeps_the_deadline(
        self, zone: datetime.tzinfo | None, server: LocalPromptLayer, far_from_utc: None
    ) -> None:
        """It knows only when Airflow will end the deferral: a minute after the deadline."""
        args = sensor(
            server.start_execution("Never done"), timeout=60, start_from_trigger=True
        ).start_trigger_args
        now = datetime.datetime.now(datetime.UTC)

        trigger = started_by_airflow(args)
        ends = now + datetime.timedelta(seconds=100)
        trigger.timeout_after = ends.replace(tzinfo=zone)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(first_event(trigger), 0.3))
        assert trigger.state.deadline == pytest.approx(ends.timestamp() - 60)

        trigger = started_by_airflow(args)
        trigger.timeout_after = (now + datetime.timedelta(seconds=59)).replace(tzinfo=zone)
        event = asyncio.run(asyncio.wait_for(first_event(trigger), 60))
        assert event.payload["outcome"] == "timed_out"
        assert "did not end within 1 minute" in event.payload["message"]

    def test_counts_back_from_a_shorter_execution_timeout(self) -> None:
        """Airflow then ends the deferral earlier, and does not tell the trigger."""
        args = sensor(
            timeout=600,
            execution_timeout=datetime.timedelta(seconds=30),
            start_from_trigger=True,
        ).start_trigger_args
        assert args is not None
        assert args.trigger_kwargs is not None
        assert args.trigger_kwargs["airflow_timeout"] == 30

    def test_without_airflows_time_out_the_wait_begins_now(self, server: LocalPromptLayer) -> None:
        trigger = PromptLayerWorkflowTrigger(
            workflow_version_execution_id=server.start_execution("Never done"),
            timeout=0.3,
            airflow_timeout=60.3,
            poke_interval=0.05,
        )
        event = asyncio.run(first_event(rebuilt(trigger)))
        assert event.payload["outcome"] == "timed_out"

    def test_an_id_rendered_as_text_is_the_number(self, server: LocalPromptLayer) -> None:
        """As in the worker, which takes no event about another run."""
        run_id = server.start_execution("Never done")
        ending = run_task(make(f" {run_id} ", timeout=0.3, start_from_trigger=True))
        assert (ending.kind, ending.worker_visits) == ("timeout", 1)

    def test_a_hang_in_the_triggerer_is_a_timeout(self) -> None:
        """Airflow ends it, and hands the worker a text; the worker knows which run it was."""
        task = sensor("42", timeout=5, start_from_trigger=True)
        with pytest.raises(Exception, match="42 goes on") as caught:
            task.resume_execution(
                "__fail__",
                {"error": "Trigger timeout"},
                {"ti": FakeTaskInstance()},  # type: ignore[typeddict-item]
            )
        assert isinstance(caught.value, AirflowSensorTimeout)
