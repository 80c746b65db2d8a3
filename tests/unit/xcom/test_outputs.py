# SPDX-License-Identifier: Apache-2.0
"""Hostile names and values through the operators, as far as the task's own process goes."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG, BaseOperator
from support.hostile import NAMES, VALUES, names_body, values_body
from support.modes import Ending, FakeTaskInstance, run_task
from support.raw_server import RawPromptLayer

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.workflows import NodeResult, WorkflowResults
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.xcom import outputs as xcom

KEYS = (
    *(one.name for one in NAMES if one.has_xcom),
    *("/lead", "trail/", "a//b", "/", "...", "..a", "a..", " . ", "slice", "item/3", "x/item"),
    *("%", "%4", "%zz", "a;b", "a&b=c", "//host/x", "[a]", "^`|~*", "e\u0301", "\u200b"),
)
NO_KEYS = (
    *(one.name for one in NAMES if not one.has_xcom),
    *("?", "#", ".", "a/./b", "a/..", "../a", "100%2F", "x/y/slice", "/slice", "x/item/y"),
    *(" ", "\u3000", "\t", "\x85", "\x7f", "\ud800", "promptlayer_url", " return_value "),
    *("promptlayer_node_statuses", "promptlayer_execution_id", "🍵" * 257, "n" * 513),
)

UNICODE = {"Résumé": 1, "要約": 2, "😀": 3, "Plain": 4}


@pytest.fixture(scope="module")
def server() -> Iterator[RawPromptLayer]:
    many = {f"bad {n}": {"status": "SUCCESS", "value": "\0"} for n in range(500)}
    bodies = {
        "names": names_body(),
        "values": values_body(),
        "many": json.dumps(many).encode(),
        "repeated": b"{%s}"
        % b",".join(b'"n%d": {"status": "SUCCESS"}' % (n // 2) for n in range(999)),
        "unicode": json.dumps(
            {
                name: {"status": "SUCCESS", "value": value, "is_output_node": True}
                for name, value in UNICODE.items()
            }
        ).encode(),
        "failed": b'{"a\\u0000": {"status": "FAILED\\ud800", "is_output_node": true}}',
        "statuses": b'{"a": {"status": "SUCCESS", "value": 1, "is_output_node": true}}',
    }
    with RawPromptLayer(bodies) as running:
        yield running


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
    # Airflow 2 logs with Python's logging, and to stdout too.
    is_2 = airflow_version.startswith("2.")
    return lambda: caplog.text if is_2 else capsys.readouterr().out


@pytest.fixture(autouse=True)
def connection(server: RawPromptLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)


def start(workflow: str, **arguments: Any) -> Ending:
    arguments = {"fail_on": "never", "deferrable": False, **arguments}
    return run_task(
        lambda: PromptLayerRunWorkflowOperator(
            task_id="task", workflow_id_or_name=workflow, **arguments
        ),
        FakeTaskInstance(),
    )


@pytest.mark.parametrize("name", KEYS)
def test_names_that_are_keys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_compat, "REFUSES_SLASHES_IN_XCOM_KEYS", False)
    assert xcom.storable_key(name)
    monkeypatch.setattr(version_compat, "REFUSES_SLASHES_IN_XCOM_KEYS", True)
    assert xcom.storable_key(name) is ("/" not in name)


@pytest.mark.parametrize("name", NO_KEYS)
def test_names_that_are_not(name: str) -> None:
    assert not xcom.storable_key(name)


def test_hostile_names() -> None:
    ending = start("names")
    assert ending.value == {one.inside: one.inside for one in NAMES}
    assert ending.xcoms["promptlayer_node_statuses"] == dict.fromkeys(ending.value, "SUCCESS")
    own = {"promptlayer_execution_id", "promptlayer_node_statuses", "promptlayer_final_output"}
    assert set(ending.xcoms) == own | {one.name for one in NAMES if xcom.storable_key(one.name)}


class TaskInstanceOfDagTest(FakeTaskInstance):
    """As ``dag.test()`` of Airflow 3, which sends the key through a server in its own process."""

    def xcom_push(self, key: str, value: Any) -> None:
        key.encode("latin-1").decode()
        super().xcom_push(key, value)


def test_names_that_dag_test_cannot_keep(log: Any) -> None:
    ending = run_task(
        lambda: PromptLayerRunWorkflowOperator(
            task_id="task", workflow_id_or_name="unicode", deferrable=False
        ),
        TaskInstanceOfDagTest(),
    )
    assert ending.kind == "success", ending
    assert ending.value == UNICODE
    assert set(UNICODE) & set(ending.xcoms) == {"Plain"}
    lines = log()
    for name in UNICODE:
        said = f"Node '{name}' has no XCom of its own" in lines
        assert said is (name != "Plain"), name


def test_hostile_values(log: Any) -> None:
    ending = start("values")
    for name, value in VALUES.items():
        assert ending.value[name] == ending.xcoms[name] == value.expected
        assert ending.value[name] is ending.xcoms[name]
    lines = log()
    for name, value in VALUES.items():
        assert len(re.findall(f"Node '{name}'.*{re.escape(value.warning)}", lines)) == bool(
            value.warning
        ), name
    assert lines.count("xcom_objectstorage_threshold") == 1


def test_bare_main_output_is_storable_and_named(log: Any) -> None:
    ending = start("values", return_all_outputs=False, nodes=["NUL"])
    assert ending.value == ending.xcoms["promptlayer_final_output"] == VALUES["Plain"].sent
    assert "Node 'NUL' was changed" in log()


def test_main_output_outside_of_the_selection(server: RawPromptLayer, log: Any) -> None:
    nodes = {
        "main\0": NodeResult("SUCCESS", "x\0", is_output_node=True),
        "b": NodeResult("SUCCESS"),
    }
    results = WorkflowResults(1, is_complete=True, nodes=nodes, final_output="x\0")
    outputs = xcom.RunOutputs(results, ["b"])
    assert outputs.final_output == "x\ufffd"
    assert outputs.result == {"b": None}
    (line,) = outputs.warnings()
    assert line.startswith(r"Node 'main\x00' is called 'main�' in XCom; was changed")


def test_warnings_are_bounded(log: Any) -> None:
    start("many")
    lines = log()
    assert lines.count("was changed so that") == 20
    assert "found in 480 more nodes" in lines


def test_repeated_nodes_are_named(log: Any) -> None:
    ending = start("repeated")
    assert len(ending.value) == 500
    assert log().count("occurs twice in one object, the last counts") == 5


def test_failed_run_with_a_hostile_name(log: Any) -> None:
    ending = start("failed", fail_on="no_output")
    assert ending.kind == "failed"
    assert ending.xcoms["promptlayer_node_statuses"] == {"a\ufffd": "FAILED\ufffd"}
    assert "is called 'a\ufffd' in XCom" in log()


def test_nothing_is_said_where_nothing_is_pushed_or_changed(log: Any) -> None:
    start("names", do_xcom_push=False)
    start("statuses")
    assert "Node '" not in log()


def test_multiple_outputs_is_refused() -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="push_node_xcoms"):
        PromptLayerRunWorkflowOperator(task_id="t", workflow_id_or_name="w", multiple_outputs=True)


def test_no_hint_with_a_backend_of_ones_own(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "my.Backend")
    start("values")
    assert "xcom_objectstorage_threshold" not in log()


def test_fifty_megabytes_cost_little() -> None:
    value = [{"text": "é" * 25_000_000}]
    tracemalloc.start()
    try:
        outputs = xcom.RunOutputs(
            WorkflowResults(1, True, {"a": NodeResult("SUCCESS", value)}), None
        )
        assert outputs.by_node["a"] is value
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * 50_000_000  # one encoding of the text, to count its bytes


class PullingTaskInstance(FakeTaskInstance):
    """A task downstream of the one that has pushed ``xcoms``."""

    task: Any = None  # that of Airflow 3.4

    def xcom_pull(
        self, task_ids: str, key: str, map_indexes: Any = None, default: Any = None, **_: Any
    ) -> Any:
        assert task_ids == "run"
        return self.xcoms.get(key, default)

    def get_relevant_upstream_map_indexes(self, *_: Any, **__: Any) -> None:
        """Airflow 2 asks this."""


class Downstream(BaseOperator):
    """A task that is handed the output of another one."""

    template_fields = ("given",)

    def __init__(self, *, given: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = given


def handed_on(key: str, xcoms: dict[str, Any]) -> Any:
    """Return what a task gets that takes ``run.output[key]`` where ``xcoms`` were pushed."""
    with DAG("d", schedule=None) as dag:
        run = PromptLayerRunWorkflowOperator(task_id="run", workflow_id_or_name="w")
        task = Downstream(task_id="downstream", given=run.output[key])
    assert run.downstream_task_ids == {"downstream"}
    ti = PullingTaskInstance(dag_id="d", task_id="downstream", xcoms=xcoms)
    ti.task = task
    context: Any = {"ti": ti, "expanded_ti_count": None}
    task.render_template_fields(context, dag.get_template_env())
    return task.given


class TestOutputsOfNodes:
    """What a task is handed that takes ``op.output["a node"]``."""

    PUSHED: ClassVar[dict[str, Any]] = {
        "Summarize": "short",
        "Count": None,
        "promptlayer_node_statuses": {
            "Summarize": "SUCCESS",
            "Draft": "FAILED",
            "Count": "SUCCESS",
        },
    }

    @pytest.mark.parametrize("key", PUSHED)
    def test_what_was_pushed(self, key: str) -> None:
        assert handed_on(key, self.PUSHED) == self.PUSHED[key]

    @pytest.mark.parametrize("key", ["Sumarize", "Draft"])
    def test_a_node_without_an_output_is_named_with_the_others(self, key: str) -> None:
        with pytest.raises(version_compat.XComNotFound) as raised:
            handed_on(key, self.PUSHED)
        assert str(raised.value).startswith(
            f"Task 'run' has pushed no output of a node '{key}'. Its workflow run has 'Summarize' "
            "(SUCCESS), 'Draft' (FAILED), 'Count' (SUCCESS)."
        )

    def test_of_a_task_that_has_pushed_nothing(self) -> None:
        with pytest.raises(version_compat.XComNotFound, match='key="Summarize" is not found'):
            handed_on("Summarize", {})
