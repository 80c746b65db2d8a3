# SPDX-License-Identifier: Apache-2.0
"""Many runs as one task: each input once, every result in its place."""

from __future__ import annotations

import asyncio
import copy
import datetime
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred
from support.clocks import Leap, timed_by_looks
from support.modes import Ending, FakeTaskInstance, Store, first_event, rebuilt, run_task
from support.waits import trigger_for

from airflow_provider_promptlayer import transport, version_compat
from airflow_provider_promptlayer.api import arguments
from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.submission.batch import WorkflowRuns
from airflow_provider_promptlayer.testing import (
    Close,
    Huge,
    LocalPromptLayer,
    Node,
    Reply,
    Workflow,
)
from airflow_provider_promptlayer.transport import blocking
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowBatchTrigger

SLOW = 5
"""How many looks, at whatever run, a run of "Slow" takes."""


def echo(inputs: Any, _: Any) -> Any:
    if inputs.get("n") in inputs.get("broken", ()):
        raise ValueError("broken")
    return inputs.get("n")


UNKNOWN = Reply.of_json({"success": False, "message": "No such execution."}, 404)


@pytest.fixture
def promptlayer_workflows() -> list[Workflow]:
    return [
        Workflow("Echo", [Node("Answer", echo, is_output_node=True)]),
        Workflow("Slow", [Node("Answer", echo, duration=SLOW, is_output_node=True)]),
        Workflow("Slower", [Node("Answer", duration=200, is_output_node=True)]),
        Workflow("Endless", [Node("Answer", duration=1e9, is_output_node=True)]),
        Workflow("Broken", [Node("Answer", status="FAILED", is_output_node=True)]),
    ]


@pytest.fixture
def promptlayer_server(promptlayer_workflows: list[Workflow]) -> Iterator[LocalPromptLayer]:
    with timed_by_looks(promptlayer_workflows) as server:
        yield server


@pytest.fixture
def server(promptlayer_connection: str, promptlayer_server: LocalPromptLayer) -> LocalPromptLayer:
    return promptlayer_server


@pytest.fixture(params=[False, True], ids=["poke", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level("INFO")  # Airflow 3 logs to the standard output, Airflow 2 through logging
    return lambda: "\n".join(r.getMessage() for r in caplog.records) or capsys.readouterr().out


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"n": index, **more} for index in range(count)]


def answers(*values: Any) -> list[Any]:
    return [None if value is None else {"Answer": value} for value in values]


def run(
    inputs: Any = None,
    ti: FakeTaskInstance | None = None,
    store: Store | None = None,
    operator: type[PromptLayerRunWorkflowBatchOperator] = PromptLayerRunWorkflowBatchOperator,
    **arguments: Any,
) -> Ending:
    extra = {} if store is None else {"task_state_store": store}
    return run_task(
        lambda: operator(
            **{
                "task_id": "task",
                "workflow_id_or_name": "Echo",
                "inputs": numbered(5) if inputs is None else inputs,
                "poke_interval": 0.05,
                "retries": 2,
                **arguments,
            }
        ),
        ti,
        **extra,
    )


def leave(
    inputs: Any,
    store: Store,
    workflow: str = "Slow",
    ti: FakeTaskInstance | None = None,
    operator: type[PromptLayerRunWorkflowBatchOperator] = PromptLayerRunWorkflowBatchOperator,
) -> None:
    """Start the runs and leave the worker; nobody comes back to them."""
    task = operator(task_id="task", workflow_id_or_name=workflow, inputs=inputs, retries=2)
    ti = ti or FakeTaskInstance()
    context: Any = {"ti": ti, "run_id": ti.run_id, "task_state_store": store}
    with pytest.raises(TaskDeferred):
        task.execute(context)


def starts(server: LocalPromptLayer) -> Counter[int]:
    """Return how often each input was started."""
    return Counter(
        {
            int(origin.airflow_batch_index): count
            for origin, count in server.posts_by_origin().items()
        }
    )


def each_once(count: int) -> Counter[int]:
    return Counter(range(count))


class TestResults:
    @pytest.mark.parametrize("workflow", ["Echo", "Slow"])
    def test_are_in_the_order_of_the_inputs(
        self, server: LocalPromptLayer, deferrable: bool, workflow: str
    ) -> None:
        ending = run(workflow_id_or_name=workflow, deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3, 4)
        assert ending.xcoms == {
            "promptlayer_execution_ids": [1, 2, 3, 4, 5],
            "promptlayer_errors": [None] * 5,
        }
        assert ending.worker_visits == (2 if deferrable and workflow == "Slow" else 1)
        assert starts(server) == each_once(5)

    def test_of_equal_inputs(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each is a run of its own, and is compared with what began once, not with each other."""
        compared = []

        def canonical(name: str, value: Any) -> Any:
            compared.append(name)
            return arguments.canonical(name, value)

        monkeypatch.setattr("airflow_provider_promptlayer.bases.batch_inputs.canonical", canonical)
        assert run([{"n": 7}] * 100).value == answers(*[7] * 100)
        assert starts(server) == each_once(100)
        assert len(compared) <= 3 * 100

    def test_are_fetched_once(self, server: LocalPromptLayer) -> None:
        """And the worker does not ask about all of the runs before it leaves them."""

        def operator() -> PromptLayerRunWorkflowBatchOperator:
            return PromptLayerRunWorkflowBatchOperator(
                task_id="task",
                workflow_id_or_name="Slow",
                inputs=numbered(30),
                poke_interval=0.1,
            )

        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(TaskDeferred) as deferred:
            operator().execute(context)
        assert server.count("GET") == 1
        event = asyncio.run(first_event(rebuilt(deferred.value.trigger)))
        before = server.count("GET")
        kwargs = {**(deferred.value.kwargs or {}), "event": event.payload}
        operator().resume_execution(deferred.value.method_name, kwargs, context)
        assert server.count("GET") == before + 30

    def test_of_a_copy_are_its_own(self, server: LocalPromptLayer) -> None:
        """As ``dag.test()`` copies an operator for each time that it runs."""
        original = PromptLayerRunWorkflowBatchOperator(
            task_id="task", workflow_id_or_name="Echo", inputs=[], deferrable=False
        )
        for n in (1, 2):
            task = copy.copy(original)
            task.inputs = [{"n": n}]
            context: Any = {"ti": FakeTaskInstance()}
            assert task.execute(context) == answers(n)

    def test_bare_main_outputs(self, server: LocalPromptLayer, deferrable: bool) -> None:
        assert run(return_all_outputs=False, deferrable=deferrable).value == [0, 1, 2, 3, 4]

    def test_of_some_nodes(self, server: LocalPromptLayer) -> None:
        assert run(numbered(2), nodes=["Answer"]).value == answers(0, 1)
        ending = run(numbered(2), nodes=["Anwser"])
        assert ending.kind == "failed for good"
        assert "has no node 'Anwser'" in ending.message

    @pytest.mark.parametrize("nodes", [3, True, ["Answer", 3], {"Answer": 1}])
    def test_of_what_is_no_list_of_nodes(self, server: LocalPromptLayer, nodes: Any) -> None:
        ending = run(numbered(2), nodes=nodes)
        assert ending.kind == "failed for good"
        assert "nodes must be a list" in ending.message
        assert server.count() == 0  # nothing was billed

    def test_are_storable(self, server: LocalPromptLayer) -> None:
        assert run([{"n": "a\0b"}, {"n": 2**70}], return_all_outputs=False).value == [
            "a\ufffdb",
            str(2**70),
        ]

    def test_without_inputs(self, server: LocalPromptLayer, deferrable: bool) -> None:
        ending = run([], deferrable=deferrable)
        assert (ending.kind, ending.value) == ("success", [])
        assert ending.xcoms == {"promptlayer_execution_ids": [], "promptlayer_errors": []}
        assert server.count() == 0

    def test_nothing_is_pushed_where_xcom_is_off(self, server: LocalPromptLayer) -> None:
        assert run(do_xcom_push=False).xcoms == {}

    def test_every_run_has_its_origin(self, server: LocalPromptLayer) -> None:
        run(
            numbered(2),
            FakeTaskInstance(try_number=3, map_index=4),
            metadata={"team": "tea", "airflow_dag_id": "mine"},
        )
        assert [dict(one.metadata) for one in server.executions.values()] == [
            {
                "airflow_batch_index": str(index),
                "airflow_dag_id": "mine",
                "airflow_run_id": "manual__1",
                "airflow_task_id": "task",
                "airflow_map_index": "4",
                "airflow_try_number": "3",
                "team": "tea",
            }
            for index in range(2)
        ]
        assert set(server.posts_by_origin().values()) == {1}


class TestProgress:
    @pytest.mark.parametrize("places", [None, 4])
    def test_never_runs_backwards(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        places: int | None,
        log: Callable[[], str],
    ) -> None:
        """From worker to triggerer and back, whoever has seen a run end."""
        server.script(Reply(200, '"early"'), method="GET", times=3)
        ending = run(
            numbered(20),
            workflow_id_or_name="Slow",
            deferrable=deferrable,
            max_active_runs=places,
        )
        assert ending.kind == "success"
        found = re.findall(r"(\d+) of (\d+) runs ", log())
        ended = [int(count) for count, _ in found]
        assert ended == sorted(ended), found
        assert len(set(ended)) > 1
        assert {total for _, total in found} == {"20"}

    def test_an_outage_has_a_beginning_and_an_end(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        log: Callable[[], str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server.script(Reply(502), method="GET", after=2, times=30)  # some for each watcher
        assert (
            run(numbered(30), workflow_id_or_name="Slow", deferrable=deferrable).kind == "success"
        )
        said = log()
        assert (said.count("HTTP 502"), said.count("answers again")) == (1, 1)


class Lazy(Sequence[Any]):
    """What Airflow hands over for the XComs of a mapped task."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


class TestInputs:
    @pytest.mark.parametrize(
        "inputs",
        [
            numbered(2),
            tuple(numbered(2)),
            Lazy(*numbered(2)),
            json.dumps(numbered(2)),
            str(numbered(2)),
        ],
        ids=["list", "tuple", "lazy", "JSON", "template"],
    )
    def test_of_many_kinds(self, server: LocalPromptLayer, inputs: Any) -> None:
        assert run(inputs).value == answers(0, 1)

    @pytest.mark.parametrize("inputs", ["None", 5, {"n": 1}, [1], ["n"], [{1: 2}], "[1"])
    def test_that_are_none(self, server: LocalPromptLayer, inputs: Any) -> None:
        ending = run(inputs)
        assert ending.kind == "failed for good"
        assert "inputs" in ending.message
        assert server.count() == 0

    @pytest.mark.parametrize(
        "arguments",
        [
            {"workflow_id_or_name": " "},
            {"metadata": {"a": []}},
            {"workflow_label_name": "x", "workflow_version_number": 1},
            {"inputs": [{"n": 1}, {"n": object()}]},
        ],
    )
    def test_all_are_checked_before_the_first_start(
        self, server: LocalPromptLayer, arguments: dict[str, Any]
    ) -> None:
        assert run(**arguments).kind == "failed for good"
        assert server.count() == 0

    def test_one_that_cannot_be_sent_fails_alone_where_that_is_allowed(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        inputs = [{"n": 0}, {"n": object()}, {"n": 2}]
        ending = run(inputs, min_success_rate=0.6, deferrable=deferrable)
        assert ending.value == answers(0, None, 2)
        assert ending.xcoms["promptlayer_execution_ids"] == [1, None, 2]
        assert "inputs[1] cannot be sent as JSON" in ending.xcoms["promptlayer_errors"][1]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"max_active_runs": 0},
            {"max_active_runs": True},
            {"max_active_runs": 1.5},
            {"min_success_rate": 1.1},
            {"min_success_rate": -1},
            {"min_success_rate": "most"},
            {"fail_on": "sometimes"},
            {"multiple_outputs": True},
            {"deferrable": False, "mode": "reschedule"},
        ],
    )
    def test_arguments_that_make_no_sense(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(PromptLayerInvalidInputError):
            PromptLayerRunWorkflowBatchOperator(
                task_id="t", workflow_id_or_name="Echo", inputs=[], **arguments
            )


class TestSuccessRate:
    def test_too_few_successes(self, server: LocalPromptLayer, deferrable: bool) -> None:
        inputs = numbered(4, broken=[1, 3])
        ending = run(inputs, deferrable=deferrable, min_success_rate=0.75)
        assert ending.kind == "failed for good"  # without notes a retry would double the good ones
        assert ending.message.startswith(
            "2 of 4 inputs succeeded, and min_success_rate=0.75 asks for 3. "
            "input 1: Workflow run 2 has failed: no output node succeeded. 'Answer' (FAILED)"
        )
        assert ending.xcoms["return_value"] == answers(0, None, 2, None)
        assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, 3, 4]
        errors = ending.xcoms["promptlayer_errors"]
        assert [error is None for error in errors] == [True, False, True, False]
        assert "Workflow run 4 has failed" in errors[3]

    def test_enough_successes(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        ending = run(numbered(4, broken=[1, 3]), deferrable=deferrable, min_success_rate=0.5)
        assert (ending.kind, ending.value) == ("success", answers(0, None, 2, None))
        said = capsys.readouterr().out + caplog.text
        assert "2 of 4 inputs succeeded. input 1: Workflow run 2 has failed" in said

    def test_by_fail_on(self, server: LocalPromptLayer) -> None:
        ending = run(numbered(2, broken=[1]), fail_on="never")
        assert ending.value == [{"Answer": 0}, {}]

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_softly(self, server: LocalPromptLayer, option: str) -> None:
        softly: dict[str, Any] = {option: True}
        ending = run(numbered(2, broken=[1]), **softly)
        assert ending.kind == "skipped"
        assert "1 of 2 inputs succeeded" in ending.message

    def test_where_nothing_can_be_doubled_it_is_tried_again(self, server: LocalPromptLayer) -> None:
        assert run(numbered(2), workflow_id_or_name="Broken").kind == "failed"


@pytest.mark.parametrize("max_outage", [-1, float("inf"), float("nan")])
def test_max_outage_that_a_trigger_cannot_be_handed(max_outage: float) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="max_outage must be"):
        run(max_outage=max_outage)


class TestMaxActiveRuns:
    @staticmethod
    def run_while_inputs_change(later: list[dict[str, Any]]) -> Ending:
        """Run two of four inputs at a time; a template renders others from the second visit on."""
        made: list[PromptLayerRunWorkflowBatchOperator] = []

        def make() -> PromptLayerRunWorkflowBatchOperator:
            task = PromptLayerRunWorkflowBatchOperator(
                task_id="task",
                workflow_id_or_name="Slow",
                inputs=numbered(4) if len(made) < 2 else later,
                max_active_runs=2,
                poke_interval=0.05,
            )
            made.append(task)
            return task

        return run_task(make)

    def test_inputs_in_another_order_are_recognized(self, server: LocalPromptLayer) -> None:
        ending = self.run_while_inputs_change(numbered(4)[::-1])
        assert ending.value == answers(3, 2, 1, 0)
        assert ending.xcoms["promptlayer_execution_ids"][2:] == [2, 1]
        assert starts(server) == each_once(4)

    def test_inputs_that_come_and_go_are_recognized(self, server: LocalPromptLayer) -> None:
        ending = self.run_while_inputs_change([{"n": n} for n in (9, 3, 0, 2, 8)])
        assert ending.value == answers(9, 3, 0, 2, 8)
        assert server.count("POST") == 6

    def test_inputs_that_are_no_more_keep_their_order(self, server: LocalPromptLayer) -> None:
        """Where the XCom of another task is gone when the task comes back."""
        made: list[int] = []

        def make() -> PromptLayerRunWorkflowBatchOperator:
            made.append(len(made))
            return PromptLayerRunWorkflowBatchOperator(
                task_id="task",
                workflow_id_or_name="Slow",
                inputs=numbered(3) if len(made) <= 2 else None,  # type: ignore[arg-type]
                poke_interval=0.05,
            )

        assert run_task(make).value == answers(0, 1, 2)

    def test_inputs_that_tell_the_time_are_started(self, server: LocalPromptLayer) -> None:
        ending = self.run_while_inputs_change([{"n": n} for n in (10, 11, 12, 13)])
        assert ending.value == answers(0, 1, 12, 13)

    @pytest.mark.parametrize(
        ("places", "deferrals"), [(None, 1), (12, 1), (99, 1), (4, 6), (1, 12)]
    )
    def test_is_kept_to(
        self, server: LocalPromptLayer, deferrable: bool, places: int | None, deferrals: int
    ) -> None:
        ending = run(
            numbered(8),
            workflow_id_or_name="Slow",
            max_active_runs=places,
            deferrable=deferrable,
        )
        assert ending.value == answers(*range(8))
        assert starts(server) == each_once(8)
        moments = [one.started_at for one in server.executions.values()]
        busiest = max(
            sum(start <= moment < start + SLOW for start in moments) for moment in moments
        )
        assert busiest <= (places or 8)
        # Runs may end while others are started, so that fewer waits are needed.
        assert (
            1 < ending.worker_visits <= 1 + deferrals if deferrable else ending.worker_visits == 1
        )
        if deferrals == 1 and deferrable:
            assert ending.worker_visits == 2


class TestOutOfReach:
    """A batch that cannot reach ``min_success_rate`` any more costs no more than it has."""

    @pytest.fixture(params=["Echo", "Slow"])
    def workflow(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.mark.parametrize(
        ("rate", "started"), [(1.0, range(2, 4)), (0.9, range(4, 7)), (0.8, range(10, 11))]
    )
    def test_starts_nothing_more(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        workflow: str,
        rate: float,
        started: range,
        log: Callable[[], str],
    ) -> None:
        store = Store()
        ending = run(
            numbered(10, broken=[0, 3]),
            store=store,
            workflow_id_or_name=workflow,
            deferrable=deferrable,
            max_active_runs=2,
            min_success_rate=rate,
        )
        assert server.count("POST") in started
        said = log()
        if rate == 0.8:
            assert ending.kind == "success"
            assert "cannot be reached" not in said
            return
        assert ending.kind == "failed"  # what was not started may succeed in a retry
        assert said.count("cannot be reached any more") == 1
        errors = ending.xcoms["promptlayer_errors"]
        assert "not started" in errors[-1]
        # What was going on was waited for.
        assert len(ending.xcoms["return_value"]) == 10
        assert all(
            (error is None) is (value is not None)
            for error, value in zip(errors, ending.xcoms["return_value"], strict=True)
        )
        assert "not started" not in str(errors[: server.count("POST")])
        again = run(numbered(10), FakeTaskInstance(try_number=2), store, max_active_runs=2)
        assert again.value == answers(*range(10))

    def test_by_starts_that_are_refused(self, server: LocalPromptLayer, deferrable: bool) -> None:
        server.script(Reply(422), method="POST", after=2, times=None)
        ending = run(
            numbered(10), deferrable=deferrable, workflow_id_or_name="Slow", min_success_rate=0.9
        )
        assert ending.kind == "failed for good"
        assert server.count("POST") == 4
        assert ending.xcoms["return_value"] == answers(0, 1, *[None] * 8)

    def test_runs_are_read_early_only_where_that_decides(self, server: LocalPromptLayer) -> None:
        run(numbered(10), workflow_id_or_name="Slow", max_active_runs=2, min_success_rate=0.0)
        whole = Counter(
            request.query["workflow_version_execution_id"]
            for request in server.requests
            if request.query.get("return_all_outputs") == "true"
        )
        assert set(whole.values()) == {1}


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 413, 422])
    def test_of_one_input_leave_the_others(
        self, server: LocalPromptLayer, deferrable: bool, status: int
    ) -> None:
        server.script(Reply.of_json({"message": "bad tea"}, status), method="POST", after=1)
        ending = run(numbered(4), min_success_rate=0.75, deferrable=deferrable)
        assert ending.value == answers(0, None, 2, 3)
        assert "bad tea" in ending.xcoms["promptlayer_errors"][1]
        assert starts(server) == Counter([0, 2, 3])

    @pytest.mark.parametrize("store", [None, Store()])
    def test_are_no_reason_to_try_again(
        self, server: LocalPromptLayer, store: Store | None
    ) -> None:
        server.script(Reply(422), method="POST")
        assert run(numbered(2), store=store).kind == "failed for good"

    @pytest.mark.parametrize(
        ("status", "says"), [(401, "API key"), (404, "no such thing"), (302, "redirect")]
    )
    def test_of_all_end_the_task_at_once(
        self, server: LocalPromptLayer, status: int, says: str
    ) -> None:
        refusal = Reply.of_json({"success": False, "message": "no"}, status)
        server.script(refusal, method="POST", after=2, times=None)
        ending = run(numbered(9), store=(store := Store()))
        assert ending.kind == ("failed" if status == 401 else "failed for good")
        assert says in ending.message
        assert "2 runs that were started go on" in ending.message
        assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, *[None] * 7]
        server.clear_scripts()
        assert run(numbered(9), FakeTaskInstance(try_number=2), store).value == answers(*range(9))
        assert starts(server) == each_once(9)

    def test_of_the_first_leave_nothing_behind(self, server: LocalPromptLayer) -> None:
        ending = run(workflow_id_or_name="Ecko")
        assert ending.kind == "failed for good"
        assert "go on" not in ending.message
        assert server.count("POST") == 1


class TestLostAnswers:
    def test_fail_that_input_alone(self, server: LocalPromptLayer, deferrable: bool) -> None:
        server.script(Close(), method="POST", after=1, acted_on=True)
        ending = run(numbered(4), min_success_rate=0.75, deferrable=deferrable)
        assert ending.value == answers(0, None, 2, 3)
        assert ending.xcoms["promptlayer_execution_ids"] == [1, None, 3, 4]
        assert "airflow_batch_index=1" in ending.xcoms["promptlayer_errors"][1]
        assert starts(server) == each_once(4)

    def test_an_answer_that_is_too_large_to_be_read_is_one(self, server: LocalPromptLayer) -> None:
        server.script(Huge(10**9), method="POST", after=1, acted_on=True)
        ending = run(numbered(3), min_success_rate=0.6)
        assert ending.value == answers(0, None, 2)
        assert "airflow_batch_index=1" in ending.xcoms["promptlayer_errors"][1]

    def test_are_not_sent_again_before_the_task_is_cleared(self, server: LocalPromptLayer) -> None:
        server.script(Reply(500), method="POST", after=1)
        store = Store()
        assert run(numbered(3), store=store).kind == "failed for good"
        again = run(numbered(3), FakeTaskInstance(try_number=2), store)
        assert again.kind == "failed for good"
        assert "airflow_batch_index=1" in again.message
        assert starts(server) == Counter([0])  # with that one lost, the others are no use
        cleared = run(numbered(3), FakeTaskInstance(try_number=3, max_tries=3), store)
        assert cleared.value == answers(0, 1, 2)
        assert starts(server) == each_once(3)


class TestTrouble:
    @pytest.mark.parametrize("status", [429, 503])
    def test_a_start_that_certainly_did_not_arrive_is_sent_again(
        self, server: LocalPromptLayer, status: int
    ) -> None:
        server.script(Reply(status, headers={"Retry-After": "0"}), method="POST", after=1, times=2)
        assert run(numbered(3)).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_no_more_starts_for_the_moment_waits_for_what_goes_on(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        server.script(Reply(429, headers={"Retry-After": "0"}), method="POST", after=2, times=5)
        ending = run(numbered(5), workflow_id_or_name="Slow", deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3, 4)
        assert ending.worker_visits == (3 if deferrable else 1)
        assert starts(server) == each_once(5)

    @pytest.mark.parametrize("store", [None, Store()])
    def test_no_start_at_all_may_be_tried_again(
        self, server: LocalPromptLayer, store: Store | None
    ) -> None:
        server.script(Reply(429, headers={"Retry-After": "0"}), method="POST", times=None)
        ending = run(numbered(3), store=store)
        assert ending.kind == "failed"
        assert "429" in ending.message
        server.clear_scripts()
        assert run(numbered(3), FakeTaskInstance(try_number=2), store).kind == "success"
        assert starts(server) == each_once(3)

    @pytest.mark.parametrize("status", [429, 500, 502])
    def test_a_blip_in_waiting_is_none(
        self, server: LocalPromptLayer, deferrable: bool, status: int
    ) -> None:
        server.script(Reply(status), method="GET", after=1, times=1)
        server.script(Reply(status), method="GET", after=4, times=1)
        ending = run(numbered(4), workflow_id_or_name="Slow", deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3)
        assert ending.worker_visits <= 2

    @pytest.mark.parametrize(("store", "kind"), [(Store(), "failed"), (None, "failed for good")])
    def test_an_outage_may_be_retried_where_the_runs_are_noted(
        self, server: LocalPromptLayer, deferrable: bool, store: Store | None, kind: str
    ) -> None:
        if store is not None:
            store.clear()
        server.script(Reply(502), method="GET", times=None)
        ending = run(
            numbered(3),
            store=store,
            workflow_id_or_name="Slow",
            deferrable=deferrable,
            max_outage=0.3,
        )
        assert ending.kind == kind, ending
        assert "longer than max_outage" in ending.message
        assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, 3]
        server.clear_scripts()
        if store is not None:
            assert run(numbered(3), FakeTaskInstance(try_number=2), store).kind == "success"
            assert starts(server) == each_once(3)

    def test_a_run_that_is_gone_is_one_failure(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        server.script(UNKNOWN, method="GET", execution_id=2, times=None)
        ending = run(
            numbered(3),
            workflow_id_or_name="Slow",
            deferrable=deferrable,
            min_success_rate=0.6,
        )
        assert ending.value == answers(0, None, 2)
        assert "404" in ending.xcoms["promptlayer_errors"][1]

    def test_a_run_that_was_said_to_have_ended_too_early(self, server: LocalPromptLayer) -> None:
        """PromptLayer's status code has been wrong for a moment; the results tell."""
        server.script(Reply(200, '"early"'), method="GET", execution_id=2)
        assert run(numbered(3), workflow_id_or_name="Slow").value == answers(0, 1, 2)

    def test_a_run_that_goes_on_after_all_is_waited_for(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        def early(request: Any) -> Reply | None:
            is_peek = request.query.get("return_all_outputs") == "false"
            return Reply(200, '"early"') if is_peek else None

        server.script(early, method="GET", execution_id=1, times=None)
        ending = run(
            numbered(1),
            workflow_id_or_name="Endless",
            deferrable=deferrable,
            timeout=0.5,
            poke_interval=0.2,
        )
        assert ending.kind == "timeout"
        assert server.count("GET") < 20

    @pytest.mark.parametrize(
        ("max_active_runs", "broken"),
        # With one at a time, an outage of the first one is all that is known.
        [(None, 0), (None, 1), (None, 2), (1, 1), (1, 2)],
    )
    def test_a_run_that_cannot_be_asked_about_is_one_failure(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        max_active_runs: int | None,
        broken: int,
    ) -> None:
        server.script(Reply(502), method="GET", execution_id=broken + 1, times=None)
        ending = run(
            numbered(3),
            workflow_id_or_name="Slow",
            deferrable=deferrable,
            min_success_rate=0.6,
            max_active_runs=max_active_runs,
            max_outage=0.8,
        )
        assert ending.value == answers(*(None if n == broken else n for n in range(3))), ending
        assert "502" in ending.xcoms["promptlayer_errors"][broken]

    def test_a_run_that_cannot_be_read_long_after_the_others_is_one_failure(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        first = time.monotonic()

        def gone_later(request: Any) -> Reply:
            return Reply(202, "{}") if time.monotonic() < first + 1.5 else Reply(502)

        server.script(gone_later, method="GET", execution_id=2, times=None)
        ending = run(numbered(3), deferrable=deferrable, min_success_rate=0.6, max_outage=0.5)
        assert ending.value == answers(0, None, 2), ending

    def test_an_outage_of_all_is_none_of_single_runs(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        server.script(Reply(502), method="GET", times=None)
        ending = run(
            numbered(5),
            deferrable=deferrable,
            min_success_rate=0.0,
            max_outage=0.3,
            store=Store(),
        )
        assert ending.kind == "failed", ending
        assert "could not be asked" in ending.message

    def test_an_outage_of_all_while_they_are_read_is_none_of_single_runs(
        self, server: LocalPromptLayer
    ) -> None:
        whole: list[Any] = []

        def away_after_the_first(request: Any) -> Reply | None:
            if request.query.get("return_all_outputs") == "true":
                whole.append(request)
            return Reply(502) if len(whole) > 1 else None

        server.script(away_after_the_first, method="GET", times=None)
        ending = run(
            numbered(12),
            deferrable=False,
            min_success_rate=0.0,
            max_outage=0.3,
            store=Store(),
        )
        assert ending.kind == "failed", ending
        assert "promptlayer_errors" not in ending.xcoms
        server.clear_scripts()

    @pytest.mark.parametrize("gap", [0.0, 3600.0], ids=["at once", "after an hour"])
    def test_a_blip_in_each_of_two_workers_is_one_outage_if_one_follows_the_other(
        self, server: LocalPromptLayer, gap: float, leap: Leap
    ) -> None:
        """In an hour in between, the triggerer was answered."""
        context: Any = {"ti": FakeTaskInstance(), "run_id": "r"}
        began: list[float | None] = []
        kwargs: dict[str, Any] = {}
        for visit in range(3):
            task = PromptLayerRunWorkflowBatchOperator(
                task_id="task",
                workflow_id_or_name="Endless",
                inputs=numbered(4),
                max_active_runs=2,
                max_outage=1800.0,
            )
            resume = partial(task.resume_execution, "execute_complete", kwargs)
            with pytest.raises(TaskDeferred) as left:
                (resume if visit else task.execute)(context)
            state, notes = left.value.trigger.state, left.value.kwargs or {}
            began.append(state.fetch_outage_since)
            kwargs = {**notes, "event": {"version": 1, "id": state.job.id, "outcome": "ended"}}
            if not visit:
                server.script(Reply(502), method="GET", times=None)
            leap(gap)
        assert began[0] is None
        assert (began[1] == began[2]) is (gap == 0.0)

    def test_a_run_that_could_not_be_asked_about_is_asked_about_by_a_retry(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        server.script(Reply(502), method="GET", execution_id=2, times=None)
        assert run(numbered(3), store=store, max_outage=0.5).kind == "failed"
        server.clear_scripts()
        assert run(numbered(3), FakeTaskInstance(try_number=2), store).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_the_time_is_up(self, server: LocalPromptLayer, deferrable: bool, leap: Leap) -> None:
        def late(_: Any) -> None:
            if server.count("GET") == SLOW:
                leap(1000.0)

        server.script(late, method="GET", times=None)
        ending = run(
            numbered(3), workflow_id_or_name="Endless", deferrable=deferrable, timeout=500.0
        )
        assert ending.kind == "timeout"
        assert "did not end within 8 minutes 20 seconds" in ending.message
        assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, 3]

    def test_the_time_is_up_while_inputs_are_left(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap
    ) -> None:
        def late(_: Any) -> None:
            if server.count("POST") == 3:  # and this is the fourth
                leap(1000.0)

        server.script(late, method="POST", times=None)
        ending = run(
            numbered(9),
            workflow_id_or_name="Slow",
            max_active_runs=2,
            deferrable=deferrable,
            timeout=500.0,
        )
        assert ending.kind == "timeout"
        assert starts(server) == each_once(4)

    @pytest.mark.parametrize(
        ("rate", "kind"), [(1.0, "timeout"), (0.7, "timeout"), (0.5, "success"), (0.0, "success")]
    )
    def test_what_has_ended_in_time_is_handed_on(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        leap: Leap,
        rate: float,
        kind: str,
    ) -> None:
        """And the rate decides, as it does in time."""
        looked: list[Any] = []

        def goes_on(_: Any) -> Reply:
            looked.append(1)
            if len(looked) == 8:  # the others are known to have ended, by whoever looks
                leap(1000.0)
            return Reply(202, "{}")

        for execution_id in (2, 3):
            server.script(goes_on, method="GET", execution_id=execution_id, times=None)
        ending = run(
            numbered(4),
            workflow_id_or_name="Slow",
            deferrable=deferrable,
            timeout=500.0,
            min_success_rate=rate,
        )
        assert ending.kind == kind, ending
        results = ending.value if kind == "success" else ending.xcoms["return_value"]
        assert results == answers(0, None, None, 3)
        first, *late, last = ending.xcoms["promptlayer_errors"]
        assert (first, last) == (None, None)
        for run_id, error in zip((2, 3), late, strict=True):
            assert error.startswith(
                f"Workflow run {run_id} did not end within 8 minutes 20 seconds."
            )
        if kind == "timeout":
            assert (
                "did not end within 8 minutes 20 seconds. 2 of 4 inputs succeeded" in ending.message
            )
            assert "Workflow run 2 did not end" in ending.message

    def test_a_run_that_cannot_be_asked_about_when_the_time_is_up(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap
    ) -> None:
        def late(request: Any) -> Reply | None:
            if server.count("GET") == 3:
                leap(1000.0)
            is_it = request.query["workflow_version_execution_id"] == "2"
            return Reply(502 if server.count("GET") > 3 else 202, "{}") if is_it else None

        server.script(late, method="GET", times=None)
        ending = run(
            numbered(3), deferrable=deferrable, timeout=500.0, min_success_rate=0.5, max_outage=1.0
        )
        assert ending.value == answers(0, None, 2), ending
        error = ending.xcoms["promptlayer_errors"][1]
        assert error == "PromptLayer could not be asked about workflow run 2 in time."

    def test_the_time_is_up_and_promptlayer_is_away(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap
    ) -> None:
        def late(_: Any) -> Reply:
            if server.count("GET") == 3:
                leap(1000.0)
            return Reply(502)

        server.script(late, method="GET", times=None)
        asked: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retries, "FETCHING_LATE", retries.FETCHING_LATE.within(0.0))
            ending = run(
                numbered(50),
                deferrable=deferrable,
                timeout=500.0,
                max_outage=2000.0,
                min_success_rate=0.5,
            )
            asked.append(server.count("GET"))
        assert ending.kind == "timeout", ending
        assert all("could not be asked" in error for error in ending.xcoms["promptlayer_errors"])
        assert asked[0] < 50  # some are enough to know

    def test_what_was_not_started_in_time_is_said(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap
    ) -> None:
        def late(_: Any) -> None:
            if server.count("POST") == 3:
                leap(1000.0)

        server.script(late, method="POST", times=None)
        ending = run(
            numbered(5),
            workflow_id_or_name="Slow",
            max_active_runs=2,
            deferrable=deferrable,
            timeout=500.0,
            min_success_rate=0.2,
        )
        assert ending.kind == "success", ending
        errors = ending.xcoms["promptlayer_errors"]
        assert errors[-1] == "No run was started within 8 minutes 20 seconds."
        assert ending.value[0] == {"Answer": 0}

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_the_time_is_up_softly(self, server: LocalPromptLayer, option: str) -> None:
        softly: dict[str, Any] = {option: True}
        ending = run(numbered(2), workflow_id_or_name="Endless", timeout=0.3, **softly)
        assert ending.kind == "skipped"


class Died(BaseException):
    """The worker is no more."""


class DyingStore(Store):
    """Dies before or after the write of that number."""

    def __init__(self, *, at: int, after: bool) -> None:
        super().__init__()
        self.at = at
        self.after = after
        self.writes = 0

    def set(self, key: str, value: Any) -> None:
        self.writes += 1
        if self.writes == self.at and not self.after:
            raise Died
        super().set(key, value)
        if self.writes == self.at and self.after:
            raise Died


def index_of(call: Any) -> int:
    """Return which input a start is of."""
    return int(json.loads(call.request.body)["metadata"]["airflow_batch_index"])


@contextmanager
def dying_around_the_start(index: int, *, after: bool) -> Iterator[None]:
    start_run = PromptLayerHook.start_run

    def run_it(self: PromptLayerHook, call: Any) -> int:
        is_it = index_of(call) == index
        if is_it and not after:
            raise Died
        run_id = start_run(self, call)
        if is_it:
            raise Died
        return run_id

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptLayerHook, "start_run", run_it)
        # Whoever is killed cleans nothing up.
        patch.setattr(PromptLayerRunWorkflowBatchOperator, "_keep", lambda *_: None)
        yield


class TestCrashes:
    """With a task state store, as on Airflow 3.3 and later."""

    @pytest.mark.parametrize("after", [False, True])
    def test_around_a_start(self, server: LocalPromptLayer, deferrable: bool, after: bool) -> None:
        """Nobody can tell whether it arrived: that input fails, the others come to their end."""
        store = Store()
        with dying_around_the_start(2, after=after), pytest.raises(Died):
            run(numbered(5), store=store)
        ending = run(
            numbered(5),
            FakeTaskInstance(try_number=2),
            store,
            min_success_rate=0.8,
            deferrable=deferrable,
        )
        assert ending.value == answers(0, 1, None, 3, 4)
        assert "airflow_batch_index=2" in ending.xcoms["promptlayer_errors"][2]
        assert starts(server) == each_once(5) - (Counter() if after else Counter([2]))

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("write", range(1, 9))
    def test_around_a_note(self, server: LocalPromptLayer, write: int, after: bool) -> None:
        store = DyingStore(at=write, after=after)
        with pytest.raises(Died):  # the head, five starts, the last id, the delivery
            run(numbered(5), store=store)
        ending = run(numbered(5), FakeTaskInstance(try_number=2), store, min_success_rate=0.8)
        assert ending.kind == "success"
        assert max(starts(server).values()) == 1
        lost = [index for index, value in enumerate(ending.value) if value is None]
        assert len(lost) <= 1
        for index in {*range(5)} - {*lost}:
            assert starts(server)[index] == 1

    def test_while_resuming(self, server: LocalPromptLayer) -> None:
        class DiesResuming(PromptLayerRunWorkflowBatchOperator):
            def execute_complete(self, *_: Any, **__: Any) -> Any:
                raise Died

        store = Store()
        with pytest.raises(Died):
            run(numbered(3), store=store, workflow_id_or_name="Slow", operator=DiesResuming)
        assert run(numbered(3), FakeTaskInstance(try_number=2), store).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_a_retry_starts_only_what_has_failed(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        store = Store()
        first = run(numbered(4, broken=[1, 3]), store=store, deferrable=deferrable)
        assert first.kind == "failed"
        second = run(numbered(4), FakeTaskInstance(try_number=2), store, deferrable=deferrable)
        assert second.value == answers(0, 1, 2, 3)
        assert second.xcoms["promptlayer_execution_ids"] == [1, 6, 3, 5]
        assert starts(server) == Counter([0, 1, 1, 2, 3, 3])

    def test_a_retry_after_delivery_starts_nothing(self, server: LocalPromptLayer) -> None:
        store = Store()
        first = run(store=store)
        assert run(None, FakeTaskInstance(try_number=2), store).value == first.value
        assert starts(server) == each_once(5)

    def test_clearing_after_success_starts_all_anew(self, server: LocalPromptLayer) -> None:
        store = Store()
        run(store=store)
        ti = FakeTaskInstance(try_number=2, max_tries=3)
        assert run(None, ti, store).xcoms["promptlayer_execution_ids"] == [6, 7, 8, 9, 10]
        run(None, FakeTaskInstance(try_number=3, max_tries=3), store)
        assert server.count("POST") == 10

    def test_clearing_while_it_goes_on_goes_back(self, server: LocalPromptLayer) -> None:
        store = Store()
        leave(numbered(3), store)
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        ending = run(numbered(3), cleared, store, workflow_id_or_name="Slow")
        assert ending.value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_clearing_with_another_workflow_starts_all_anew(self, server: LocalPromptLayer) -> None:
        store = Store()
        leave(numbered(3), store, "Endless")
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        assert run(numbered(3), cleared, store).value == answers(0, 1, 2)
        assert server.count("POST") == 6

    def test_clearing_with_keys_in_another_order_goes_back(self, server: LocalPromptLayer) -> None:
        store = Store()
        leave([{"n": 0, "m": 1}], store)
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        ending = run([{"m": 1, "n": 0}], cleared, store, workflow_id_or_name="Slow")
        assert ending.value == answers(0)
        assert server.count("POST") == 1

    def test_clearing_after_a_retry_with_another_input_starts_anew(
        self, server: LocalPromptLayer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The retry keeps the run of the old input, and says so; it is not taken for the new."""
        store = Store()
        leave([{"n": 1}], store)
        leave([{"n": 2}], store, ti=FakeTaskInstance(try_number=2))
        cleared = FakeTaskInstance(try_number=3, max_tries=3)
        assert run([{"n": 2}], cleared, store, workflow_id_or_name="Slow").value == answers(2)
        assert server.count("POST") == 2

    def test_a_retry_starts_what_was_left_wherever_it_stands(
        self, server: LocalPromptLayer
    ) -> None:
        class Interrupted(PromptLayerRunWorkflowBatchOperator):
            def _start(self, index: int) -> None:
                if index:
                    raise PromptLayerTransientError("Interrupted.")
                super()._start(index)

        store = Store()
        leave(numbered(2), store, operator=Interrupted)
        ending = run(
            numbered(2)[::-1], FakeTaskInstance(try_number=2), store, workflow_id_or_name="Slow"
        )
        assert ending.value == answers(1, 0)
        assert starts(server) == each_once(2)

    def test_a_retry_with_the_inputs_in_another_order(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        store = Store()
        first = run(numbered(3), store=store, deferrable=deferrable)
        again = run(numbered(3)[::-1], FakeTaskInstance(try_number=2), store, deferrable=deferrable)
        assert again.value == first.value[::-1]
        ids = first.xcoms["promptlayer_execution_ids"]
        assert again.xcoms["promptlayer_execution_ids"] == ids[::-1]
        assert starts(server) == each_once(3)

    @pytest.mark.parametrize(
        ("now", "started"),
        [
            ((2, 1, 0), 0),
            ((7, 0, 1, 2), 1),
            ((0, 2), 0),
            ((0, 0, 1, 2), 1),  # one more of the same
        ],
        ids=str,
    )
    @pytest.mark.parametrize("cleared", [False, True], ids=["retry", "cleared"])
    def test_another_list_while_the_runs_go_on(
        self,
        server: LocalPromptLayer,
        now: tuple[int, ...],
        started: int,
        cleared: bool,
        deferrable: bool,
    ) -> None:
        store = Store()
        leave(numbered(3), store)
        ending = run(
            [{"n": n} for n in now],
            FakeTaskInstance(try_number=2, max_tries=3 if cleared else 0),
            store,
            workflow_id_or_name="Slow",
            deferrable=deferrable,
        )
        assert ending.value == answers(*now)
        assert server.count("POST") == 3 + started

    def test_what_the_list_has_lost_is_named(
        self,
        server: LocalPromptLayer,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store = Store()
        leave(numbered(3), store)
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        run([{"n": 1}], cleared, store, workflow_id_or_name="Slow")
        said = capsys.readouterr().out + caplog.text
        assert "2 runs were started for inputs that are not in the list any more" in said
        assert "left to themselves: 1, 3." in said

    @pytest.mark.parametrize("max_tries", [0, 3], ids=["retries lowered", "cleared"])
    def test_a_clear_is_one_whatever_the_retries_are(
        self, server: LocalPromptLayer, max_tries: int
    ) -> None:
        store = Store()
        run(numbered(2), store=store)
        cleared = FakeTaskInstance(
            try_number=2, max_tries=max_tries, context_carrier={"traceparent": "another"}
        )
        run(numbered(2), cleared, store)
        assert server.count("POST") == 4

    def test_a_clear_after_a_death_asks_a_person_first(self, server: LocalPromptLayer) -> None:
        """Nobody was told to look for the run, so the clear does not say that somebody has."""
        store = Store()
        with dying_around_the_start(1, after=True), pytest.raises(Died):
            run(numbered(2), store=store)
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        ending = run(numbered(2), cleared, store)
        assert ending.kind == "failed for good"
        assert "airflow_batch_index=1" in ending.message
        assert starts(server) == each_once(2)
        again = FakeTaskInstance(try_number=3, max_tries=5)
        assert run(numbered(2), again, store).value == answers(0, 1)
        assert starts(server) == Counter([0, 1, 1])

    def test_a_misspelt_node_corrected_and_cleared(self, server: LocalPromptLayer) -> None:
        store = Store()
        assert run(numbered(2), store=store, nodes=["Anwser"]).kind == "failed for good"
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        assert run(numbered(2), cleared, store, nodes=["Answer"]).value == answers(0, 1)
        assert starts(server) == each_once(2)

    def test_delivered_is_noted_after_delivery(self, server: LocalPromptLayer) -> None:
        class Undelivered(PromptLayerRunWorkflowBatchOperator):
            def push_result(self, *_: Any) -> Any:
                raise ConnectionError("XCom is away")

        store = Store()
        with pytest.raises(ConnectionError):
            run(numbered(2), store=store, operator=Undelivered)
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        assert run(numbered(2), cleared, store).value == answers(0, 1)
        assert starts(server) == each_once(2)

    def test_clearing_with_other_inputs_goes_back_to_the_same_ones_alone(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        leave(numbered(3), store)
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        others = [{"n": 0}, {"n": 7}, {"n": 2}, {"n": 8}]
        ending = run(others, cleared, store, workflow_id_or_name="Slow")
        assert ending.value == answers(0, 7, 2, 8)
        # By their index the runs are found in PromptLayer, so none has that of another input.
        assert starts(server) == Counter([0, 1, 2, 3, 4])

    def test_clearing_where_a_run_is_gone_starts_another(self, server: LocalPromptLayer) -> None:
        store = Store()
        server.script(UNKNOWN, method="GET", execution_id=2, times=None)
        assert run(numbered(3), store=store).kind == "failed for good"
        assert run(numbered(3), FakeTaskInstance(try_number=2), store).kind == "failed for good"
        cleared = FakeTaskInstance(try_number=3, max_tries=3)
        assert run(numbered(3), cleared, store).value == answers(0, 1, 2)
        assert starts(server) == Counter([0, 1, 1, 2])

    def test_clearing_where_another_server_answers_for_a_run_starts_nothing(
        self, server: LocalPromptLayer
    ) -> None:
        """PromptLayer has not said that the run is gone."""
        store = Store()
        server.script(Reply(404, "<html>"), method="GET", execution_id=2, times=None)
        for number, max_tries in ((1, 2), (2, 2), (3, 3)):
            ti = FakeTaskInstance(try_number=number, max_tries=max_tries)
            assert run(numbered(3), ti, store).kind == "failed for good"
        server.clear_scripts()
        cleared = FakeTaskInstance(try_number=4, max_tries=4)
        assert run(numbered(3), cleared, store).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_more_than_a_page(self, server: LocalPromptLayer) -> None:
        store = Store()
        with dying_around_the_start(230, after=True), pytest.raises(Died):
            run(numbered(250), store=store)
        ending = run(numbered(250), FakeTaskInstance(try_number=2), store, min_success_rate=0.99)
        assert ending.value == answers(*[n if n != 230 else None for n in range(250)])
        assert starts(server) == each_once(250)
        assert max(len(json.dumps(value)) for value in store.values()) < 5_000

    def test_reattach_false_starts_anew(self, server: LocalPromptLayer) -> None:
        store = Store()
        run(numbered(2), store=store, reattach=False)
        assert store == {}


class TestReadiness:
    def test_all_is_ready_before_a_start_is_noted(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker that dies between the note and the start asks a person to look for nothing.

        Each visit of a worker is one of a process that has nothing of that yet.
        """
        happened: list[str] = []

        def noting(what: str, function: Any) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                happened.append(what)
                return function(*args, **kwargs)

            return call

        class NotingStore(Store):
            def set(self, key: str, value: Any) -> None:
                if "sent" in value.get("runs", ()):
                    happened.append("note")
                super().set(key, value)

        class NewProcess(PromptLayerRunWorkflowBatchOperator):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                sys.modules.pop(blocking.__name__, None)

        monkeypatch.setitem(sys.modules, blocking.__name__, blocking)
        monkeypatch.setattr(transport, "blocking", blocking)
        get_connection = staticmethod(noting("connection", PromptLayerHook.get_connection))
        monkeypatch.setattr(PromptLayerHook, "get_connection", get_connection)
        send = noting("sent", requests.Session.send)
        monkeypatch.setattr(requests.Session, "send", lambda *args, **how: send(*args, **how))
        ending = run(
            numbered(4),
            store=NotingStore(),
            operator=NewProcess,
            workflow_id_or_name="Slow",
            max_active_runs=2,
            deferrable=True,
        )
        assert ending.value == answers(0, 1, 2, 3)
        after_notes = [happened[index + 1] for index, what in enumerate(happened) if what == "note"]
        assert after_notes == ["sent"] * 4


class TestElsewhere:
    """The connection leads to another PromptLayer, where the same ids are those of other runs."""

    @pytest.fixture
    def there(
        self, promptlayer_workflows: list[Workflow], monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[LocalPromptLayer]:
        with LocalPromptLayer(promptlayer_workflows) as other:
            monkeypatch.setenv("AIRFLOW_CONN_THERE", other.airflow_connection_json)
            other.start_execution("Echo", {"n": 7})
            yield other

    def test_a_retry_asks_for_its_runs_nowhere_else(
        self, server: LocalPromptLayer, there: LocalPromptLayer
    ) -> None:
        store = Store()
        leave(numbered(2), store)
        ending = run(
            numbered(2),
            FakeTaskInstance(try_number=2),
            store,
            workflow_id_or_name="Slow",
            promptlayer_conn_id="there",
        )
        assert ending.kind == "failed for good"
        assert f"started at {server.url}" in ending.message
        assert there.count() == 0
        cleared = FakeTaskInstance(try_number=3, max_tries=5)
        ending = run(numbered(2), cleared, store, workflow_id_or_name="Slow")
        assert ending.value == answers(0, 1)
        assert starts(server) == each_once(2)

    def test_a_clear_starts_others(
        self,
        server: LocalPromptLayer,
        there: LocalPromptLayer,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store = Store()
        leave(numbered(2), store)
        cleared = FakeTaskInstance(try_number=2, max_tries=3)
        ending = run(numbered(2), cleared, store, promptlayer_conn_id="there")
        assert ending.value == answers(0, 1)
        assert there.count("POST") == 2
        assert "left to themselves: 1, 2." in capsys.readouterr().out + caplog.text

    def test_a_worker_that_resumes(self, server: LocalPromptLayer, there: LocalPromptLayer) -> None:
        made: list[Any] = []

        def make() -> PromptLayerRunWorkflowBatchOperator:
            made.append(None)
            return PromptLayerRunWorkflowBatchOperator(
                task_id="task",
                workflow_id_or_name="Slow",
                inputs=numbered(2),
                poke_interval=0.05,
                promptlayer_conn_id="there" if len(made) > 2 else "promptlayer_default",
            )

        ending = run_task(make)
        assert ending.kind == "failed for good"
        assert f"started at {server.url}" in ending.message
        assert there.count() == 0

    def test_a_wait_goes_on_where_it_began(
        self,
        server: LocalPromptLayer,
        there: LocalPromptLayer,
        deferrable: bool,
        monkeypatch: pytest.MonkeyPatch,
        log: Callable[[], str],
    ) -> None:
        """Where that is out of reach, no other PromptLayer is asked instead."""
        monkeypatch.setattr(
            "airflow_provider_promptlayer.hooks.connection._READ_AGAIN_SECONDS", 0.0
        )

        def move(_: Any) -> Close:
            monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", there.airflow_connection_json)
            return Close()

        server.script(move, method="GET", after=3, times=None)
        ending = run(
            numbered(2),
            workflow_id_or_name="Endless",
            deferrable=deferrable,
            store=Store(),
            max_outage=0.5,
        )
        assert ending.kind.startswith("failed"), ending
        assert there.count() == 0
        assert f"leads to {there.url} now" in log()


class TestAStoreInTrouble:
    def test_nothing_is_sent_without_a_note(self, server: LocalPromptLayer) -> None:
        class Full(Store):
            def set(self, *_: Any) -> None:
                raise ConnectionError("the API server is away")

        with pytest.raises(ConnectionError):
            run(store=Full())
        assert server.count() == 0

    def test_waits_for_what_goes_on_and_then_tries_again(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        class Away(Store):
            writes = 0

            def set(self, key: str, value: Any) -> None:
                self.writes += 1
                if self.writes in (4, 5):
                    raise ConnectionError("the API server is away")
                super().set(key, value)

        store = Away()
        ending = run(numbered(4), store=store, workflow_id_or_name="Slow", deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3)
        assert starts(server) == each_once(4)


def test_without_a_store_the_worker_says_so(
    server: LocalPromptLayer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run(numbered(1))
    assert "cannot remember the runs across tries" in capsys.readouterr().out + caplog.text


class TestKilled:
    def test_in_the_worker(
        self,
        server: LocalPromptLayer,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def new() -> PromptLayerRunWorkflowBatchOperator:
            return PromptLayerRunWorkflowBatchOperator(
                task_id="t", workflow_id_or_name="Slow", inputs=numbered(3)
            )

        new().on_kill()  # before anything was started
        operator = new()
        with dying_around_the_start(2, after=True), pytest.raises(Died):
            operator.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
        operator.on_kill()
        said = capsys.readouterr().out + caplog.text
        assert "cannot cancel them: 1, 2." in said
        assert "Input 2: a run may be going on" in said
        assert "airflow_batch_index=2" in said

    def test_nothing_more_is_started(self, server: LocalPromptLayer) -> None:
        """Airflow 3 goes on with the task after ``on_kill``, for some seconds."""
        start_run = PromptLayerHook.start_run
        started_when_killed = []

        class Killed(PromptLayerRunWorkflowBatchOperator):
            def trigger(self, **kwargs: Any) -> Any:
                started_when_killed.append(len(starts(server)))
                return super().trigger(**kwargs)

        def run_it(hook: PromptLayerHook, call: Any) -> int:
            run_id = start_run(hook, call)
            if index_of(call) == 2:
                hook.stop_starting()
            return run_id

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PromptLayerHook, "start_run", run_it)
            ending = run(numbered(5), operator=Killed, workflow_id_or_name="Slow")
        # A worker that is sent away, and not the task: what is left is started by the next one.
        assert started_when_killed[0] == 3
        assert ending.value == answers(*range(5))
        assert starts(server) == each_once(5)

    def test_nothing_is_started(self, server: LocalPromptLayer) -> None:
        operator = PromptLayerRunWorkflowBatchOperator(
            task_id="t", workflow_id_or_name="Slow", inputs=numbered(3)
        )
        operator.on_kill()
        with pytest.raises(AirflowException, match="being stopped"):
            operator.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
        assert not starts(server)

    def test_in_the_triggerer(
        self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        trigger = trigger_for(PromptLayerWorkflowBatchTrigger, WorkflowRuns([7, 8]))
        asyncio.run(trigger.on_kill())
        said = capsys.readouterr().out + caplog.text
        assert "Batch of 2 workflow runs was going on when the task was deferred" in said
        assert "7, 8" in said


class TestTrigger:
    @staticmethod
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

    def test_asks_rarely_about_many(self, server: LocalPromptLayer) -> None:
        """While one goes on, the others do not matter."""
        event = self.fire([server.start_execution("Slower") for _ in range(200)])
        assert event["outcome"] == "ended"
        asked = Counter(
            request.query["workflow_version_execution_id"] for request in server.requests
        )
        assert len(asked) == 200
        # Until they end, after 200 looks, at twenty alone.
        assert sum(asked.values()) <= 200 + 200 + 20

    @pytest.mark.parametrize("first", [True, False])
    def test_fires_when_few_are_left(self, server: LocalPromptLayer, first: bool) -> None:
        endless = [server.start_execution("Endless") for _ in range(30)]
        ended = [server.start_execution("Echo", {"n": 1}) for _ in range(30)]
        runs = endless + ended if first else ended + endless
        assert self.fire(runs, until=30)["outcome"] == "ended"

    def test_times_out_when_more_are_left(self, server: LocalPromptLayer, leap: Leap) -> None:
        runs = [server.start_execution("Endless") for _ in range(4)]
        ended = server.start_execution("Echo")
        after: list[Any] = []

        def late(request: Any) -> None:
            is_it = request.query["workflow_version_execution_id"] == str(ended)
            if is_it or after:
                after.append(request)
            if len(after) == 10:  # the others twice each, so that its answer is known by now
                leap(1000.0)

        server.script(late, times=None)
        event = self.fire([*runs, ended], 3, deadline=time.time() + 500.0)
        assert event["outcome"] == "timed_out"
        assert "1 of 5 runs" in event["message"]

    def test_a_clock_that_is_behind_gives_no_run_more_time(
        self, server: LocalPromptLayer, leap: Leap
    ) -> None:
        """Nor those that are polled after others have ended."""
        runs = [server.start_execution("Echo") for _ in range(21)]
        endless = server.start_execution("Endless")
        polls: list[Any] = []

        def late(request: Any) -> None:
            if request.query["workflow_version_execution_id"] == str(endless):
                polls.append(request)
                if len(polls) == 2:
                    leap(1000.0)

        server.script(late, times=None)
        began = time.time() + 3600.0
        event = self.fire([*runs, endless], began_at=began, deadline=began + 500.0)
        assert event["outcome"] == "timed_out"

    def test_a_deadline_does_not_matter_to_those_that_may_be_left(
        self, server: LocalPromptLayer
    ) -> None:
        runs = [server.start_execution("Endless") for _ in range(4)]
        event = self.fire([*runs, server.start_execution("Echo")], 4, deadline=time.time() - 1)
        assert event["outcome"] == "ended"

    def test_an_id_that_is_none(self, server: LocalPromptLayer) -> None:
        assert self.fire([1, 0])["outcome"] == "refused"

    def test_an_outage_is_one(self, server: LocalPromptLayer) -> None:
        runs = [server.start_execution("Slow") for _ in range(40)]
        server.script(Reply(502), times=None)
        assert self.fire(runs, max_outage=0.3)["outcome"] == "outage"

    def test_an_outage_that_is_over_does_not_count_for_the_runs_after_it(
        self, server: LocalPromptLayer
    ) -> None:
        runs = [server.start_execution("Echo") for _ in range(60)]
        server.script(Reply(502), execution_id=runs[50], times=1)
        assert self.fire(runs, outage_since=time.time() - 100, max_outage=50)["outcome"] == "ended"

    def test_the_key_is_refused(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = [server.start_execution("Slow") for _ in range(3)]
        server.rotate_key("pl_other")
        assert self.fire(runs)["outcome"] == "key_refused"


def test_a_deferral_that_airflow_ends_names_the_runs(server: LocalPromptLayer) -> None:
    class Resumed(PromptLayerRunWorkflowBatchOperator):
        def execute(self, context: Any) -> Any:
            return self.resume_execution("__fail__", {"error": "Trigger timeout"}, context)

    ti = FakeTaskInstance(xcoms={"promptlayer_execution_ids": [7, None, 8]})
    ending = run(ti=ti, operator=Resumed)
    assert ending.kind == "timeout"
    assert "Batch of 2 workflow runs goes on" in ending.message
    assert run(operator=Resumed).kind == "timeout"


@pytest.mark.parametrize(("store", "kind"), [(Store(), "failed"), (None, "failed for good")])
def test_an_event_that_is_none(server: LocalPromptLayer, store: Store | None, kind: str) -> None:
    class Resumed(PromptLayerRunWorkflowBatchOperator):
        def execute(self, context: Any) -> Any:
            return self.resume_execution("execute_complete", {"event": {}}, context)

    assert run(operator=Resumed, store=store).kind == kind


def test_in_a_dag_with_default_args_partial_and_expand() -> None:
    with DAG(
        "d", schedule=None, default_args={"promptlayer_conn_id": "other", "max_active_runs": 7}
    ):
        plain = PromptLayerRunWorkflowBatchOperator(
            task_id="plain", workflow_id_or_name="Echo", inputs=[]
        )
        mapped = PromptLayerRunWorkflowBatchOperator.partial(
            task_id="mapped", workflow_id_or_name="Echo"
        ).expand(inputs=[[{"n": 1}], [{"n": 2}]])
    assert (plain.promptlayer_conn_id, plain.max_active_runs) == ("other", 7)
    assert mapped.task_id == "mapped"


class TestWithoutNotes:
    def test_resumed_with_the_event_alone(self, server: LocalPromptLayer) -> None:
        """As ``dag.test()`` and ``airflow tasks test`` do, on every Airflow."""

        def make() -> PromptLayerRunWorkflowBatchOperator:
            return PromptLayerRunWorkflowBatchOperator(
                task_id="task", workflow_id_or_name="Slow", inputs=numbered(3), poke_interval=0.05
            )

        context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
        with pytest.raises(TaskDeferred) as deferral:
            make().execute(context)
        event = asyncio.run(first_event(rebuilt(deferral.value.trigger)))
        resumed = make().resume_execution("execute_complete", {"event": event.payload}, context)
        assert resumed == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    @pytest.mark.parametrize(("counts", "waits"), [(True, 940.0), (False, 10_000.0)])
    def test_the_wait_ends_before_an_execution_timeout_that_counts(
        self, counts: bool, waits: float, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(version_compat, "EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED", counts)
        operator = PromptLayerRunWorkflowBatchOperator(
            task_id="task",
            workflow_id_or_name="Slow",
            inputs=numbered(1),
            timeout=10_000.0,
            execution_timeout=datetime.timedelta(seconds=1000),
        )
        context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
        began = time.time()
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        deadline = deferral.value.trigger.serialize()[1]["state"]["deadline"]
        assert deadline - began == pytest.approx(waits, abs=5.0)
