# SPDX-License-Identifier: Apache-2.0
"""Many runs as one task: each input once, every result in its place."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred
from support.arguments import AT_RUN_TIME
from support.batches import (
    SLOW,
    Died,
    answers,
    context_of,
    dying_around_the_start,
    each_once,
    index_of,
    leave,
    numbered,
    retry,
    run,
    starts,
    task,
)
from support.hostile import Lazy
from support.modes import FakeTaskInstance, Store, first_event, rebuilt

from airflow_provider_promptlayer.api import arguments as parsed
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply


class TestResults:
    @pytest.mark.parametrize("workflow", ["Echo", "Slow"])
    def test_are_in_the_order_of_the_inputs(
        self, server: LocalPromptLayer, deferrable: bool, workflow: str
    ) -> None:
        ending = run(workflow=workflow, deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3, 4)
        assert ending.xcoms == {
            "promptlayer_execution_ids": [1, 2, 3, 4, 5],
            "promptlayer_errors": [None] * 5,
        }
        assert ending.worker_visits == (2 if deferrable and workflow == "Slow" else 1)
        assert starts(server) == each_once(5)

    @pytest.mark.parametrize(
        ("inputs", "arguments", "value"),
        [
            (numbered(2), {"return_all_outputs": False}, [0, 1]),
            (numbered(2), {"nodes": ["Answer"]}, answers(0, 1)),
            (numbered(2, broken=[1]), {"fail_on": "never"}, [{"Answer": 0}, {}]),
            ([{"n": "a\0b"}, {"n": 2**70}], {}, answers("a\ufffdb", str(2**70))),  # storable
        ],
    )
    def test_are_what_was_asked_for(
        self, server: LocalPromptLayer, inputs: Any, arguments: dict[str, Any], value: list[Any]
    ) -> None:
        assert run(inputs, **arguments).value == value

    def test_of_equal_inputs(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each is a run of its own, and its fingerprint is computed once, not for each pair."""
        compared = []

        def canonical(name: str, value: Any) -> Any:
            compared.append(name)
            return parsed.canonical(name, value)

        monkeypatch.setattr("airflow_provider_promptlayer.bases.batch_inputs.canonical", canonical)
        assert run([{"n": 7}] * 100).value == answers(*[7] * 100)
        assert starts(server) == each_once(100)
        assert len(compared) <= 3 * 100

    def test_are_fetched_once(self, server: LocalPromptLayer) -> None:
        """And the worker does not poll all of the runs before it leaves them."""
        left, context = leave(numbered(30)), context_of(FakeTaskInstance())
        assert server.count("GET") == 1
        event = asyncio.run(first_event(rebuilt(left.trigger)))
        before = server.count("GET")
        kwargs = {**(left.kwargs or {}), "event": event.payload}
        task(numbered(30)).resume_execution(left.method_name, kwargs, context)
        assert server.count("GET") == before + 30

    def test_of_a_copy_are_its_own(self, server: LocalPromptLayer) -> None:
        """As ``dag.test()`` copies an operator for each time that it runs."""
        original = task([], "Echo", deferrable=False)
        for n in (1, 2):
            copied = copy.copy(original)
            copied.inputs = [{"n": n}]
            assert copied.execute(context_of(FakeTaskInstance())) == answers(n)

    def test_of_a_copy_that_is_resumed(self, server: LocalPromptLayer) -> None:
        """As ``dag.test()`` of Airflow 2 copies the very operator that has left the worker."""
        context, first = context_of(FakeTaskInstance()), task(numbered(2))
        with pytest.raises(TaskDeferred) as left:
            first.execute(context)
        event = asyncio.run(first_event(rebuilt(left.value.trigger)))
        kwargs = {**(left.value.kwargs or {}), "event": event.payload}
        second = copy.copy(first)
        assert second.resume_execution(left.value.method_name, kwargs, context) == answers(0, 1)

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


class TestInputs:
    @pytest.mark.parametrize(
        "inputs",
        [tuple(numbered(2)), Lazy(*numbered(2)), json.dumps(numbered(2))],
        ids=["tuple", "lazy", "JSON"],
    )
    def test_of_many_kinds(self, server: LocalPromptLayer, inputs: Any) -> None:
        assert run(inputs).value == answers(0, 1)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            *(
                ({"inputs": inputs}, "inputs")
                for inputs in ("None", 5, {"n": 1}, [1], ["n"], [{1: 2}], "[1", [{"n": b"x"}])
            ),
            *(
                ({"nodes": nodes}, "nodes must be a list")
                for nodes in (3, True, ["A", 3], {"A": 1})
            ),
            ({"workflow_id_or_name": " "}, "workflow"),
            ({"metadata": {"a": []}}, "metadata"),
            ({"workflow_label_name": "x", "workflow_version_number": 1}, "workflow_label_name"),
        ],
        ids=str,
    )
    def test_what_cannot_be_sent_is_refused_before_the_first_start(
        self, server: LocalPromptLayer, arguments: dict[str, Any], says: str
    ) -> None:
        ending = run(**arguments, **AT_RUN_TIME)
        assert ending.kind == "failed for good"
        assert says in ending.message
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
        ("later", "places", "value", "started"),
        [
            (numbered(4)[::-1], 2, answers(3, 2, 1, 0), 4),
            ([{"n": n} for n in (9, 3, 0, 2, 8)], 2, answers(9, 3, 0, 2, 8), 6),
            ([{"n": n} for n in (10, 11, 12, 13)], 2, answers(0, 1, 12, 13), 4),
            (None, None, answers(0, 1, 2, 3), 4),
        ],
        ids=["in another order", "some come, some go", "tell the time", "XCom of a task is gone"],
    )
    def test_are_recognized_when_the_task_comes_back(
        self,
        server: LocalPromptLayer,
        later: Any,
        places: int | None,
        value: list[Any],
        started: int,
    ) -> None:
        """A template renders others from the second visit on."""
        ending = run(numbered(4), workflow="Slow", max_active_runs=places, later={"inputs": later})
        assert ending.value == value
        assert server.count("POST") == started

    def test_one_that_failed_is_named_at_its_place_in_the_list_now(
        self, server: LocalPromptLayer
    ) -> None:
        inputs = numbered(3, broken=[0])
        ending = run(inputs, workflow="Slow", later={"inputs": inputs[::-1]}, min_success_rate=0.5)
        assert ending.value == answers(2, 1, None)
        assert ending.xcoms["promptlayer_execution_ids"] == [3, 2, 1]
        assert [bool(error) for error in ending.xcoms["promptlayer_errors"]] == [False, False, True]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"max_active_runs": 0},
            {"max_active_runs": True},
            {"max_active_runs": 1.5},
            *({"start_concurrency": value} for value in (0, True, 1.5, None)),
            {"min_success_rate": 1.1},
            {"min_success_rate": -1},
            {"min_success_rate": "most"},
            {"fail_on": "sometimes"},
            {"multiple_outputs": True},
            {"deferrable": False, "mode": "reschedule"},
            *({"max_outage": value} for value in (-1, float("inf"), float("nan"))),
        ],
        ids=str,
    )
    def test_arguments_that_make_no_sense(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match=next(reversed(arguments))):
            task([], **arguments)


class TestProgress:
    @pytest.mark.parametrize("places", [None, 4])
    def test_never_runs_backwards(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        places: int | None,
        log: Callable[[], str],
    ) -> None:
        """From worker to triggerer and back, whichever of them has seen a run end."""
        server.script(Reply(200, '"early"'), method="GET", times=3)
        ending = run(numbered(20), workflow="Slow", deferrable=deferrable, max_active_runs=places)
        assert ending.kind == "success"
        found = re.findall(r"(\d+) of (\d+) (?:runs|inputs s)", log())
        ended = [int(count) for count, _ in found]
        assert ended == sorted(ended), found
        assert len(set(ended)) > 1
        assert {total for _, total in found} == {"20"}

    def test_an_outage_has_a_beginning_and_an_end(
        self, server: LocalPromptLayer, deferrable: bool, log: Callable[[], str]
    ) -> None:
        server.script(Reply(502), method="GET", after=2, times=30)  # some for each watcher
        assert run(numbered(30), workflow="Slow", deferrable=deferrable).kind == "success"
        said = log()
        assert (said.count("HTTP 502"), said.count("answers again")) == (1, 1)


class TestSuccessRate:
    @pytest.mark.parametrize(("rate", "kind"), [(0.75, "failed for good"), (0.5, "success")])
    def test_decides(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        rate: float,
        kind: str,
        log: Callable[[], str],
    ) -> None:
        ending = run(numbered(4, broken=[1, 3]), deferrable=deferrable, min_success_rate=rate)
        assert ending.kind == kind  # without notes a retry would double the good ones
        is_success = kind == "success"
        results = ending.value if is_success else ending.xcoms["return_value"]
        assert results == answers(0, None, 2, None)
        assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, 3, 4]
        first, second, third, fourth = ending.xcoms["promptlayer_errors"]
        assert (first, third) == (None, None)
        assert second.startswith(
            "Workflow run 2 has failed: no output node succeeded. 'Answer' (FAILED)"
        )
        assert "Workflow run 4 has failed" in fourth
        assert (
            "2 of 4 inputs succeeded; failed: input 1: Workflow run 2 has failed" in log()
        ) is is_success
        if not is_success:
            assert ending.message.startswith(
                "2 of 4 inputs succeeded, and min_success_rate=0.75 asks for 3. input 1: " + second
            )

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    def test_softly(self, server: LocalPromptLayer, option: str) -> None:
        softly: dict[str, Any] = {option: True}
        ending = run(numbered(2, broken=[1]), **softly)
        assert ending.kind == "skipped"
        assert "1 of 2 inputs succeeded" in ending.message

    def test_where_nothing_can_be_doubled_it_is_tried_again(self, server: LocalPromptLayer) -> None:
        assert run(numbered(2), workflow="Broken").kind == "failed"

    def test_a_node_that_no_run_has(self, server: LocalPromptLayer) -> None:
        ending = run(numbered(2), nodes=["Anwser"])
        assert ending.kind == "failed for good"
        assert "has no node 'Anwser'" in ending.message


class TestMaxActiveRuns:
    @pytest.mark.parametrize(
        ("places", "deferrals"), [(None, 1), (12, 1), (99, 1), (4, 6), (1, 12)]
    )
    def test_is_kept_to(
        self, server: LocalPromptLayer, deferrable: bool, places: int | None, deferrals: int
    ) -> None:
        ending = run(numbered(8), workflow="Slow", max_active_runs=places, deferrable=deferrable)
        assert ending.value == answers(*range(8))
        assert starts(server) == each_once(8)
        moments = [one.started_at for one in server.executions.values()]
        busiest = max(
            sum(start <= moment < start + SLOW for start in moments) for moment in moments
        )
        assert busiest <= (places or 8)
        if not deferrable:
            assert ending.worker_visits == 1
        elif deferrals == 1:
            assert ending.worker_visits == 2
        else:  # runs may end while others are started, so that fewer waits are needed
            assert 1 < ending.worker_visits <= 1 + deferrals


class TestOutOfReach:
    """A batch that cannot reach ``min_success_rate`` any more costs no more than it has."""

    @pytest.mark.parametrize("workflow", ["Echo", "Slow"])
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
            workflow=workflow,
            deferrable=deferrable,
            max_active_runs=2,
            min_success_rate=rate,
        )
        assert server.count("POST") in started
        assert log().count("cannot be reached any more") == (rate > 0.8)
        if rate == 0.8:
            assert ending.kind == "success"
            return
        assert ending.kind == "failed"  # what was not started may succeed in a retry
        errors, results = ending.xcoms["promptlayer_errors"], ending.xcoms["return_value"]
        assert "not started" in errors[-1]
        assert "not started" not in str(errors[: server.count("POST")])
        # What was going on was waited for.
        assert [error is None for error in errors] == [value is not None for value in results]
        again = run(numbered(10), retry(), store, max_active_runs=2)
        assert again.value == answers(*range(10))

    def test_by_starts_that_are_refused(self, server: LocalPromptLayer, deferrable: bool) -> None:
        server.script(Reply(422), method="POST", after=2, times=None)
        ending = run(numbered(10), workflow="Slow", deferrable=deferrable, min_success_rate=0.9)
        assert ending.kind == "failed for good"
        assert server.count("POST") == 4
        assert ending.xcoms["return_value"] == answers(0, 1, *[None] * 8)

    def test_runs_are_read_early_only_where_that_decides(self, server: LocalPromptLayer) -> None:
        run(numbered(10), workflow="Slow", max_active_runs=2, min_success_rate=0.0)
        whole = Counter(
            request.query["workflow_version_execution_id"]
            for request in server.requests
            if request.query.get("return_all_outputs") == "true"
        )
        assert set(whole.values()) == {1}


class TestKilled:
    def test_in_the_worker(self, server: LocalPromptLayer, log: Callable[[], str]) -> None:
        task(numbered(3)).on_kill()  # before anything was started
        operator = task(numbered(3))
        with dying_around_the_start(2, after=True), pytest.raises(Died):
            operator.execute(context_of(FakeTaskInstance()))
        operator.on_kill()
        said = log()
        assert "cannot cancel them: 1, 2." in said
        assert "Input 2: a run may be going on" in said
        assert "airflow_batch_index=2" in said

    def test_nothing_more_is_started(self, server: LocalPromptLayer) -> None:
        """Airflow 3 goes on with the task after ``on_kill``, for some seconds."""
        start_run = PromptLayerHook.start_run
        started_when_killed = []

        class Killed(PromptLayerRunWorkflowBatchOperator):
            def defer(self, **kwargs: Any) -> Any:
                started_when_killed.append(len(starts(server)))
                super().defer(**kwargs)

        def run_it(hook: PromptLayerHook, call: Any, *how: Any) -> int:
            run_id = start_run(hook, call, *how)
            if index_of(call) == 2:
                hook.stop_starting()
            return run_id

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PromptLayerHook, "start_run", run_it)
            ending = run(operator=Killed, workflow="Slow")
        # A worker that is sent away, and not the task: what is left is started by the next one.
        assert started_when_killed[0] == 3
        assert ending.value == answers(*range(5))
        assert starts(server) == each_once(5)

    def test_nothing_is_started(self, server: LocalPromptLayer) -> None:
        operator = task(numbered(3))
        operator.on_kill()
        with pytest.raises(AirflowException, match="being stopped"):
            operator.execute(context_of(FakeTaskInstance()))
        assert not starts(server)


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
