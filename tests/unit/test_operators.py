# SPDX-License-Identifier: Apache-2.0
"""The operators for workflow runs: what is started, what lands in XCom, what may be retried."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.arguments import AT_RUN_TIME
from support.kinds import Serve
from support.modes import Ending, FakeTaskInstance, run_task
from support.starts import deferred

from airflow_provider_promptlayer.api.workflows import WorkflowResults
from airflow_provider_promptlayer.exceptions import (
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerRunFailedError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunWorkflowOperator,
    PromptLayerWorkflowResultsOperator,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow

NODES = (
    Node("Notes", {"points": [1, 2]}),
    Node("Summarize", "short", depends_on=["Notes"], duration=0.05),
    Node("Answer", "long", depends_on=["Notes"], is_output_node=True),
    Node("Escalate", status="SKIPPED", is_output_node=True),
)
OUTPUTS = {"Notes": {"points": [1, 2]}, "Summarize": "short", "Answer": "long"}
STATUSES = {
    "Notes": "SUCCESS",
    "Summarize": "SUCCESS",
    "Answer": "SUCCESS",
    "Escalate": "SKIPPED",
}


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    workflows = [
        Workflow("Digest", NODES, labels=["prod"], required_input_variables={"topic": "string"}),
        Workflow("Broken", [Node("Answer", status="FAILED", is_output_node=True)]),
        Workflow("a/b?c#d%e é🍵", [Node("Answer", 1, is_output_node=True)]),
        Workflow("Endless", [Node("Answer", duration=math.inf, is_output_node=True)]),
    ]
    return serve(LocalPromptLayer(workflows))


def make(
    operator: type[PromptLayerRunWorkflowOperator] = PromptLayerRunWorkflowOperator,
    **arguments: Any,
) -> PromptLayerRunWorkflowOperator:
    return operator(
        **{
            "task_id": "task",
            "workflow_id_or_name": "Digest",
            "input_variables": {"topic": "tea"},
            "poke_interval": 0.02,
            **arguments,
        }
    )


def start(ti: FakeTaskInstance | None = None, **arguments: Any) -> Ending:
    return run_task(lambda: make(**arguments), ti)


class TestInputs:
    """``check_inputs`` asks which input variables the workflow requires, before a billed run."""

    @pytest.mark.parametrize("is_nested", [False, True], ids=["flat", "nested"])
    def test_without_a_required_one_nothing_is_started(
        self, is_nested: bool, server: LocalPromptLayer
    ) -> None:
        if is_nested:
            workflow = {"id": 1, "required_input_variables": {"topic": "string", "tone": "string"}}
            server.script(Reply.of_json({"workflow": workflow}), method="GET")
        ending = start(input_variables={"Topic": "tea"}, check_inputs=True)
        assert ending.kind == "failed for good", ending
        missing = "'topic', 'tone'" if is_nested else "'topic'"
        assert f"'Digest' requires input variables that are not given: {missing}." in ending.message
        assert server.count("POST") == 0

    @pytest.mark.parametrize(
        ("asked", "query"),
        [
            ({}, {}),
            ({"workflow_label_name": "prod"}, {"label": "prod"}),
            ({"workflow_version_number": "1"}, {"version": "1"}),
        ],
        ids=str,
    )
    def test_with_all_of_them_the_run_is_started(
        self, asked: dict[str, Any], query: dict[str, str], server: LocalPromptLayer
    ) -> None:
        server.script(Reply(503), method="GET", times=2)
        ending = start(input_variables='{"topic": null}', check_inputs=True, **asked)
        assert (ending.kind, len(server.executions)) == ("success", 1), ending
        assert server.requests[0].query == query

    @pytest.mark.parametrize("said", [None, ["topic"], "topic"], ids=str)
    def test_the_run_is_started_where_promptlayer_does_not_say(
        self, said: Any, server: LocalPromptLayer
    ) -> None:
        answer = {"success": True, "required_input_variables": said}
        server.script(Reply.of_json(answer), method="GET")
        assert start(input_variables={}, check_inputs=True).kind == "success"

    def test_a_workflow_that_does_not_exist_is_named(self, server: LocalPromptLayer) -> None:
        ending = start(workflow_id_or_name="Digset", check_inputs=True)
        assert ending.kind == "failed for good", ending
        assert "read the inputs of workflow 'Digset'" in ending.message


class TestCallback:
    def test_is_passed_on(self, server: LocalPromptLayer) -> None:
        url = "https://example.com/hook"
        ending = start(callback_url=url, wait_for_completion=False)
        assert (ending.kind, ending.value) == ("success", 1), ending
        assert server.executions[1].callback_url == url

    def test_is_refused_where_the_task_waits(self) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="wait_for_completion=False"):
            make(callback_url="https://example.com/hook")

    @pytest.mark.parametrize("url", ["None", "example.com/?token=secret", 7, ""], ids=str)
    def test_is_a_url(self, url: Any, server: LocalPromptLayer) -> None:
        ending = start(callback_url=url, wait_for_completion=False, **AT_RUN_TIME)
        assert ending.kind == "failed for good"
        assert ending.message == (
            "callback_url must be a URL that begins with https:// or http://."
        )
        assert server.executions == {}

    def test_is_not_dropped_where_an_xcom_is_missing(self, server: LocalPromptLayer) -> None:
        def without_xcom() -> Any:
            task = make(callback_url="https://example.com/hook", wait_for_completion=False)
            task.callback_url = None
            return task

        assert run_task(without_xcom).message.startswith("callback_url is None")
        assert server.executions == {}


def fetch(run_id: Any, **arguments: Any) -> Ending:
    return run_task(
        lambda: PromptLayerWorkflowResultsOperator(
            task_id="task", workflow_version_execution_id=run_id, poke_interval=0.02, **arguments
        )
    )


@pytest.fixture(params=["run", "fetch"])
def obtain(request: pytest.FixtureRequest, server: LocalPromptLayer) -> Callable[..., Ending]:
    """Both operators push the same at the end."""
    if request.param == "run":
        return start
    return lambda **arguments: fetch(server.start_execution("Digest"), **arguments)


class TestXComs:
    @pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
    def test_all(self, obtain: Callable[..., Ending], deferrable: bool) -> None:
        ending = obtain(deferrable=deferrable)
        assert ending.kind == "success"
        assert ending.value == OUTPUTS
        assert ending.xcoms == {
            **OUTPUTS,
            "promptlayer_execution_id": 1,
            "promptlayer_final_output": "long",
            "promptlayer_node_statuses": STATUSES,
        }

    def test_bare_main_output(self, obtain: Callable[..., Ending]) -> None:
        ending = obtain(return_all_outputs=False)
        assert ending.value == "long"
        assert ending.xcoms["promptlayer_node_statuses"] == STATUSES

    def test_without_those_of_nodes(self, obtain: Callable[..., Ending]) -> None:
        ending = obtain(push_node_xcoms=False)
        assert ending.value == OUTPUTS
        assert set(ending.xcoms) == {
            "promptlayer_execution_id",
            "promptlayer_final_output",
            "promptlayer_node_statuses",
        }

    @pytest.mark.parametrize(
        "nodes",
        [["Answer"], ("Answer",), "Answer", ["Answer", "Escalate"], '["Answer"]'],
        ids=repr,
    )
    def test_chosen_nodes(self, nodes: Any, server: LocalPromptLayer) -> None:
        ending = fetch(server.start_execution("Digest"), nodes=nodes, **AT_RUN_TIME)
        assert ending.value == {"Answer": "long"}
        assert "Notes" not in ending.xcoms
        assert ending.xcoms["promptlayer_final_output"] == "long"

    def test_unknown_node_lists_those_that_are_there(self, obtain: Callable[..., Ending]) -> None:
        ending = obtain(nodes=["Answer", "Sumarize"])
        assert ending.kind == "failed for good"
        assert "no node 'Sumarize'" in ending.message
        for name in STATUSES:
            assert repr(name) in ending.message

    def test_nodes_in_pythons_form_are_refused_before_a_run_is_started(
        self, server: LocalPromptLayer
    ) -> None:
        ending = start(nodes="['Answer']", **AT_RUN_TIME)  # as a template renders a list
        assert ending.kind == "failed for good"
        assert "tojson" in ending.message
        assert server.count("POST") == 0

    def test_the_id_is_pushed_before_anything_else_can_fail(self, server: LocalPromptLayer) -> None:
        class Leaving(FakeTaskInstance):
            def xcom_push(self, key: str, value: Any) -> None:
                super().xcom_push(key, value)
                assert server.count("GET") == 0
                server.stop()

        ti = Leaving()
        deferred(make(), ti=ti)
        assert ti.xcoms == {"promptlayer_execution_id": 1}

    def test_a_failing_push_of_the_id_does_not_lose_the_run(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        class Refusing(FakeTaskInstance):
            def xcom_push(self, key: str, value: Any) -> None:
                if key == "promptlayer_execution_id":
                    raise ConnectionError("the API server is away")
                super().xcom_push(key, value)

        ending = start(Refusing())
        assert (ending.kind, ending.value) == ("success", OUTPUTS)
        assert server.count("POST") == 1
        assert "id of workflow run 1" in log()

    def test_the_id_is_pushed_at_the_end_if_that_failed_before(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        class RefusingOnce(FakeTaskInstance):
            refused = False

            def xcom_push(self, key: str, value: Any) -> None:
                if key == "promptlayer_execution_id" and not self.refused:
                    self.refused = True
                    raise ConnectionError("the API server is away")
                super().xcom_push(key, value)

        ending = start(RefusingOnce(), deferrable=deferrable)
        assert (ending.kind, ending.xcoms["promptlayer_execution_id"]) == ("success", 1)


class TestStart:
    def test_sends_one_run_with_its_origin(self, server: LocalPromptLayer) -> None:
        ti = FakeTaskInstance("d", "scheduled__1", "t", map_index=3, try_number=2)
        start(ti, metadata={"team": "tea", "airflow_task_id": "mine", "n": 1}, **AT_RUN_TIME)
        assert server.count("POST") == 1
        (execution,) = server.executions.values()
        assert execution.input_variables == {"topic": "tea"}
        assert execution.metadata == {
            "airflow_dag_id": "d",
            "airflow_run_id": "scheduled__1",
            "airflow_task_id": "mine",
            "airflow_map_index": "3",
            "airflow_try_number": "2",
            "team": "tea",
            "n": "1",
        }

    @pytest.mark.parametrize(
        ("arguments", "outputs"),
        [
            ({"workflow_label_name": "prod"}, OUTPUTS),
            ({"workflow_version_number": "1"}, OUTPUTS),
            ({"workflow_id_or_name": "a/b?c#d%e é🍵", "input_variables": None}, {"Answer": 1}),
            ({"workflow_id_or_name": 3, "input_variables": None}, {"Answer": 1}),
            ({"workflow_id_or_name": "3", "input_variables": None}, {"Answer": 1}),
        ],
        ids=str,
    )
    def test_finds_any_name_id_and_version(
        self, arguments: dict[str, Any], outputs: Any, server: LocalPromptLayer
    ) -> None:
        assert start(**arguments).value == outputs, server.requests

    @pytest.mark.parametrize("text", ['{"topic": "tea", "n": null}', "{'topic': 'tea', 'n': None}"])
    def test_mappings_may_come_as_a_template_renders_them(
        self, server: LocalPromptLayer, text: str
    ) -> None:
        assert start(input_variables=text, metadata='{"team": "search"}').kind == "success"
        (execution,) = server.executions.values()
        assert execution.input_variables == {"topic": "tea", "n": None}
        assert execution.metadata["team"] == "search"

    def test_a_warning_of_the_api_is_logged(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        assert start(input_variables={"topik": "tea"}).kind == "success"
        said = log()
        assert "PromptLayer warns" in said
        assert "topik" in said


class TestEnd:
    def test_a_failed_run_may_be_retried_by_the_operator_that_started_it(
        self, server: LocalPromptLayer
    ) -> None:
        ending = start(workflow_id_or_name="Broken", input_variables=None)
        assert ending.kind == "failed"
        assert ending.xcoms["promptlayer_node_statuses"] == {"Answer": "FAILED"}
        assert ending.xcoms["promptlayer_execution_id"] == 1

    def test_a_failed_run_is_not_retried_by_the_results_operator(
        self, server: LocalPromptLayer
    ) -> None:
        ending = fetch(server.start_execution("Broken"))
        assert ending.kind == "failed for good"
        assert ending.xcoms["promptlayer_node_statuses"] == {"Answer": "FAILED"}

    def test_the_timeout_of_a_started_run_is_one(self, server: LocalPromptLayer) -> None:
        ending = start(workflow_id_or_name="Endless", input_variables=None, timeout=0)
        assert ending.kind == "timeout"

    @pytest.mark.parametrize("timeout", [datetime.timedelta.max, 1e13])
    def test_a_run_is_waited_for_however_long(self, server: LocalPromptLayer, timeout: Any) -> None:
        """Airflow adds the time-out to the time, which may not get beyond the year 9999."""
        left = deferred(make(workflow_id_or_name="Endless", input_variables=None, timeout=timeout))
        assert left.timeout is not None
        assert datetime.datetime.now() + left.timeout > datetime.datetime(2030, 1, 1)

    @pytest.mark.parametrize(
        ("reason", "kind", "error"),
        [
            ("Trigger timeout", "timeout", PromptLayerWaitTimeoutError),
            ("Trigger/execution timeout", "timeout", PromptLayerWaitTimeoutError),
            ("Trigger failure", "failed for good", PromptLayerEventError),
        ],
    )
    def test_a_deferral_that_airflow_has_ended(
        self, reason: str, kind: str, error: type[Exception], server: LocalPromptLayer
    ) -> None:
        """A trigger that crashed or took too long: Airflow resumes the task to say so."""

        class Deferred(PromptLayerRunWorkflowOperator):
            def execute(self, context: Any) -> Any:
                failure = {"error": reason, "traceback": ["Traceback", "boom"]}
                return self.resume_execution("__fail__", failure, context)

        ti = FakeTaskInstance(xcoms={"promptlayer_execution_id": 7})
        ending = run_task(lambda: Deferred(task_id="task", workflow_id_or_name="Digest"), ti)
        assert ending.kind == kind
        assert isinstance(ending.error, error)
        assert "Workflow run 7 goes on" in ending.message


class TestSubclass:
    """In a DAG: it may override these methods, and call those that it overrides."""

    def test_may_run_the_operator_for_several_inputs(self, server: LocalPromptLayer) -> None:
        class Several(PromptLayerRunWorkflowOperator):
            def execute(self, context: Any) -> Any:
                found = []
                for topic, node in (("tea", "Notes"), ("milk", "Answer")):
                    self.input_variables, self.nodes = {"topic": topic}, [node]
                    found.append(super().execute(context))
                return found

        ending = start(operator=Several, deferrable=False, reattach=False)
        assert ending.value == [{"Notes": OUTPUTS["Notes"]}, {"Answer": "long"}]
        asked = [run.input_variables for run in server.executions.values()]
        assert asked == [{"topic": "tea"}, {"topic": "milk"}]

    def test_may_fail_for_a_reason_of_its_own(self, server: LocalPromptLayer) -> None:
        class Strict(PromptLayerRunWorkflowOperator):
            def raise_for_outcome(self, ending: WorkflowResults) -> None:
                super().raise_for_outcome(ending)
                if ending.final_output == "long":
                    raise PromptLayerRunFailedError("The answer is long.", results=ending)

        ending = start(operator=Strict)
        assert (ending.kind, ending.message[:19]) == ("failed", "The answer is long.")
        assert ending.xcoms["promptlayer_node_statuses"] == STATUSES
        assert "Answer" not in ending.xcoms

    def test_may_push_another_result(self, server: LocalPromptLayer) -> None:
        class Few(PromptLayerRunWorkflowOperator):
            def push_result(self, context: Any, ending: WorkflowResults) -> Any:
                notes = {"Notes": ending.nodes["Notes"]}
                return super().push_result(context, replace(ending, nodes=notes))

        ending = start(operator=Few)
        assert ending.value == {"Notes": OUTPUTS["Notes"]}
        assert "Answer" not in ending.xcoms
