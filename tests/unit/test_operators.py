# SPDX-License-Identifier: Apache-2.0
"""The operators: what is started, what lands in XCom, what may be retried."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred
from support.modes import Ending, FakeTaskInstance, run_task

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunWorkflowOperator,
    PromptLayerWorkflowResultsOperator,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow

UUID = "123e4567-e89b-12d3-a456-426614174000"
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
def promptlayer_workflows() -> list[Workflow]:
    return [
        Workflow("Digest", NODES, labels=["prod"], required_input_variables={"topic": "string"}),
        Workflow("Broken", [Node("Answer", status="FAILED", is_output_node=True)]),
        Workflow("a/b?c#d%e é🍵", [Node("Answer", 1, is_output_node=True)]),
        Workflow("Endless", [Node("Answer", duration=math.inf, is_output_node=True)]),
    ]


@pytest.fixture(params=[False, True], ids=["poke", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def server(promptlayer_connection: str, promptlayer_server: LocalPromptLayer) -> LocalPromptLayer:
    return promptlayer_server


def start(ti: FakeTaskInstance | None = None, **arguments: Any) -> Ending:
    return run_task(
        lambda: PromptLayerRunWorkflowOperator(
            **{
                "task_id": "task",
                "workflow_id_or_name": "Digest",
                "input_variables": {"topic": "tea"},
                "poke_interval": 0.02,
                **arguments,
            }
        ),
        ti,
    )


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


def test_pushes_outputs(obtain: Callable[..., Ending], deferrable: bool) -> None:
    ending = obtain(deferrable=deferrable)
    assert ending.kind == "success"
    assert ending.value == OUTPUTS
    assert ending.xcoms == {
        **OUTPUTS,
        "promptlayer_execution_id": 1,
        "promptlayer_final_output": "long",
        "promptlayer_node_statuses": STATUSES,
    }


def test_bare_main_output(obtain: Callable[..., Ending], deferrable: bool) -> None:
    ending = obtain(deferrable=deferrable, return_all_outputs=False)
    assert ending.value == "long"
    assert ending.xcoms["promptlayer_node_statuses"] == STATUSES


def test_without_node_xcoms(obtain: Callable[..., Ending], deferrable: bool) -> None:
    ending = obtain(deferrable=deferrable, push_node_xcoms=False)
    assert ending.value == OUTPUTS
    assert set(ending.xcoms) == {
        "promptlayer_execution_id",
        "promptlayer_final_output",
        "promptlayer_node_statuses",
    }


def test_do_xcom_push_false_pushes_nothing(obtain: Callable[..., Ending], deferrable: bool) -> None:
    assert obtain(deferrable=deferrable, do_xcom_push=False).xcoms == {}


@pytest.mark.parametrize(
    "nodes",
    [["Answer"], ("Answer",), "Answer", ["Answer", "Escalate"], '["Answer"]'],
)
def test_chosen_nodes(obtain: Callable[..., Ending], nodes: Any) -> None:
    ending = obtain(nodes=nodes)
    assert ending.value == {"Answer": "long"}
    assert "Notes" not in ending.xcoms
    assert ending.xcoms["promptlayer_final_output"] == "long"


def test_unknown_node_lists_those_that_are_there(obtain: Callable[..., Ending]) -> None:
    ending = obtain(nodes=["Answer", "Sumarize"])
    assert ending.kind == "failed for good"
    assert "no node 'Sumarize'" in ending.message
    for name in STATUSES:
        assert repr(name) in ending.message


def test_starts_one_run_with_its_origin(server: LocalPromptLayer, deferrable: bool) -> None:
    ti = FakeTaskInstance("d", "scheduled__1", "t", map_index=3, try_number=2)
    start(ti, deferrable=deferrable, metadata={"team": "tea", "airflow_task_id": "mine", "n": 1})
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


def test_without_waiting_returns_the_id(server: LocalPromptLayer) -> None:
    ending = start(wait_for_completion=False)
    assert (ending.kind, ending.value) == ("success", 1)
    assert ending.xcoms == {"promptlayer_execution_id": 1}
    assert server.count("GET") == 0


@pytest.mark.parametrize("timeout", [datetime.timedelta.max, 1e13])
def test_a_run_is_waited_for_however_long(server: LocalPromptLayer, timeout: Any) -> None:
    """Airflow adds the time-out to the time, which may not get beyond the year 9999."""
    with pytest.raises(TaskDeferred) as deferral:
        PromptLayerRunWorkflowOperator(
            task_id="task", workflow_id_or_name="Endless", timeout=timeout
        ).execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    assert deferral.value.timeout is not None
    assert datetime.datetime.now() + deferral.value.timeout > datetime.datetime(2030, 1, 1)


def test_id_is_pushed_before_anything_else_can_fail(server: LocalPromptLayer) -> None:
    class Leaving(FakeTaskInstance):
        def xcom_push(self, key: str, value: Any) -> None:
            super().xcom_push(key, value)
            assert server.count("GET") == 0
            server.stop()

    ti = Leaving()
    with pytest.raises(TaskDeferred):
        PromptLayerRunWorkflowOperator(
            task_id="task", workflow_id_or_name="Digest", input_variables={"topic": "tea"}
        ).execute({"ti": ti})  # type: ignore[typeddict-item]
    assert ti.xcoms == {"promptlayer_execution_id": 1}


def test_failing_push_of_the_id_does_not_lose_the_run(
    server: LocalPromptLayer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing(FakeTaskInstance):
        def xcom_push(self, key: str, value: Any) -> None:
            if key == "promptlayer_execution_id":
                raise ConnectionError("the API server is away")
            super().xcom_push(key, value)

    ending = start(Refusing())
    assert (ending.kind, ending.value) == ("success", OUTPUTS)
    assert server.count("POST") == 1
    assert "id of workflow run 1" in capsys.readouterr().out + caplog.text


def test_failing_push_of_outputs_is_not_retried(server: LocalPromptLayer) -> None:
    """A retry would start, and bill, a second run."""

    class Refusing(FakeTaskInstance):
        def xcom_push(self, key: str, value: Any) -> None:
            if key == "Notes":
                raise ConnectionError("the API server is away")
            super().xcom_push(key, value)

    assert start(Refusing()).kind == "failed for good"


@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/execution timeout"])
def test_overdue_deferral_is_a_timeout(server: LocalPromptLayer, error: str) -> None:
    ending = resume_failed({"error": error})
    assert ending.kind == "timeout"
    assert "Workflow run 7 goes on" in ending.message


def test_broken_deferral_is_not_retried(server: LocalPromptLayer) -> None:
    ending = resume_failed({"error": "Trigger failure", "traceback": ["Traceback", "boom"]})
    assert ending.kind == "failed for good"
    assert "Workflow run 7 goes on" in ending.message


def resume_failed(kwargs: dict[str, Any]) -> Ending:
    class Deferred(PromptLayerRunWorkflowOperator):
        def execute(self, context: Any) -> Any:
            return self.resume_execution("__fail__", kwargs, context)

    ti = FakeTaskInstance(xcoms={"promptlayer_execution_id": 7})
    return run_task(lambda: Deferred(task_id="task", workflow_id_or_name="Digest"), ti)


def test_failed_run_may_be_retried_by_the_operator_that_started_it(
    server: LocalPromptLayer, deferrable: bool
) -> None:
    ending = start(workflow_id_or_name="Broken", input_variables=None, deferrable=deferrable)
    assert ending.kind == "failed"
    assert ending.xcoms["promptlayer_node_statuses"] == {"Answer": "FAILED"}
    assert ending.xcoms["promptlayer_execution_id"] == 1


def test_failed_run_is_not_retried_by_the_results_operator(server: LocalPromptLayer) -> None:
    ending = fetch(server.start_execution("Broken"))
    assert ending.kind == "failed for good"
    assert ending.xcoms["promptlayer_node_statuses"] == {"Answer": "FAILED"}


def test_timeout_of_a_started_run_is_not_retried(server: LocalPromptLayer) -> None:
    ending = start(workflow_id_or_name="Endless", input_variables=None, timeout=0)
    assert ending.kind == "timeout"


@pytest.mark.parametrize(
    "choice", [{"workflow_label_name": "prod"}, {"workflow_version_number": "1"}]
)
def test_chosen_version(server: LocalPromptLayer, choice: dict[str, Any]) -> None:
    assert start(**choice).kind == "success"


@pytest.mark.parametrize("reference", ["a/b?c#d%e é🍵", 3, "3"])
def test_any_name_and_the_id_are_found(server: LocalPromptLayer, reference: Any) -> None:
    ending = start(workflow_id_or_name=reference, input_variables=None)
    assert ending.value == {"Answer": 1}, server.requests


BAD_INPUT: dict[str, tuple[dict[str, Any], str]] = {
    "unknown workflow": ({"workflow_id_or_name": "Digst"}, "404"),
    "empty name": ({"workflow_id_or_name": " "}, "empty"),
    "dots": ({"workflow_id_or_name": ".."}, "numeric id"),
    "no name": ({"workflow_id_or_name": None}, "name or a number"),
    "label and version": (
        {"workflow_label_name": "prod", "workflow_version_number": 1},
        "exclude each other",
    ),
    "unknown label": ({"workflow_label_name": "staging"}, "404"),
    "inputs are text": ({"input_variables": "topic"}, "input_variables must be a mapping"),
    "inputs of a template gone wrong": ({"input_variables": "None"}, "or one as JSON, not 'None'"),
    "inputs are a list as JSON": ({"input_variables": "[1]"}, "input_variables must be a mapping"),
    "inputs that are no JSON": ({"input_variables": {"t": object()}}, "cannot be sent as JSON"),
    "inputs that are NaN": ({"input_variables": {"t": float("nan")}}, "cannot be sent as JSON"),
    "nodes that are none": ({"nodes": 3}, "nodes must be a list"),
    "metadata is text": ({"metadata": "m"}, "metadata must be a mapping"),
    "metadata that nests": ({"metadata": {"m": {}}}, "metadata['m'] must be a string"),
    "version that is no number": (
        {"workflow_version_number": "one"},
        "workflow_version_number must be a positive integer",
    ),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input(server: LocalPromptLayer, arguments: dict[str, Any], says: str) -> None:
    ending = start(**arguments)
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert "\n" not in ending.message
    assert not server.executions


@pytest.mark.parametrize(
    "text", ['{"topic": "tea", "n": null}', "{'topic': 'tea', 'n': None}"], ids=["JSON", "Python"]
)
def test_mappings_may_come_as_a_template_renders_them(server: LocalPromptLayer, text: str) -> None:
    assert start(input_variables=text, metadata='{"team": "search"}').kind == "success"
    (execution,) = server.executions.values()
    assert execution.input_variables == {"topic": "tea", "n": None}
    assert execution.metadata["team"] == "search"


def test_a_mapping_as_text_asks_for_the_same_as_the_mapping() -> None:
    """So that a task that is cleared goes back to its run, whatever the template engine."""

    def fingerprint(variables: Any, try_number: int = 1) -> str:
        task = PromptLayerRunWorkflowOperator(
            task_id="t", workflow_id_or_name="x", input_variables=variables
        )
        context: Any = {"ti": FakeTaskInstance(try_number=try_number)}
        return task.new_submission(context).input_fingerprint

    same = {fingerprint("{'day': 1}"), fingerprint('{"day": 1}'), fingerprint({"day": 1}, 2)}
    assert len(same) == 1
    assert fingerprint({"day": 2}) not in same


def test_warning_of_the_api_is_logged(
    server: LocalPromptLayer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert start(input_variables={"topik": "tea"}).kind == "success"
    log = capsys.readouterr().out + caplog.text
    assert "PromptLayer warns" in log
    assert "topik" in log


def test_mode_reschedule_is_refused_where_it_would_start_runs_again() -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="start a run at each poll"):
        PromptLayerRunWorkflowOperator(
            task_id="t", workflow_id_or_name="x", deferrable=False, mode="reschedule"
        )
    PromptLayerRunWorkflowOperator(task_id="t", workflow_id_or_name="x", mode="reschedule")


def test_unknown_fail_on_is_refused_at_parse_time() -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="'no_output', 'any_node', 'never'"):
        PromptLayerWorkflowResultsOperator(
            task_id="t", workflow_version_execution_id=1, fail_on="always"
        )


class TestTemplates:
    """What a user would template is templated, and values keep their types."""

    @pytest.mark.parametrize("native", [False, True])
    def test_rendered(self, native: bool) -> None:
        with DAG(dag_id="d", schedule=None, render_template_as_native_obj=native) as dag:
            run = PromptLayerRunWorkflowOperator(
                task_id="run",
                workflow_id_or_name="{{ name }}",
                input_variables={"n": "{{ number }}", "deep": [{"x": "{{ name }}"}]},
                metadata={"m": "{{ name }}"},
                workflow_label_name="{{ name }}",
                workflow_version_number="{{ number }}",
                nodes=["{{ name }}"],
                promptlayer_conn_id="{{ name }}",
            )
            fetch = PromptLayerWorkflowResultsOperator(
                task_id="fetch", workflow_version_execution_id="{{ number }}"
            )
        context: Any = {"name": "tea", "number": 7}
        environment = dag.get_template_env()
        run.render_template_fields(context, environment)
        fetch.render_template_fields(context, environment)
        number = 7 if native else "7"
        assert run.workflow_id_or_name == "tea"
        assert run.input_variables == {"n": number, "deep": [{"x": "tea"}]}
        assert run.metadata == {"m": "tea"}
        assert run.workflow_label_name == "tea"
        assert run.workflow_version_number == number
        assert run.nodes == ["tea"]
        assert run.promptlayer_conn_id == "tea"
        assert fetch.workflow_version_execution_id == number
