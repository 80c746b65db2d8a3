# SPDX-License-Identifier: Apache-2.0
"""The last line of a task's log: what came of it, how long that took, and where to look."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from support.batches import numbered
from support.connections import connect
from support.kinds import KINDS, SHEETS, TABLE, WORKFLOW_RUN, Fate, Kind, Serve, at, new_server
from support.modes import Ending, FakeTaskInstance, Store, run_task
from support.starts import RUN_WORKFLOW, STARTS, Start, deferred

from airflow_provider_promptlayer.api.workflows import NodeResult, WorkflowResults
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerSnapshotSheetOperator,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer

HOST = "https://dashboard.example.com"

Log = Callable[[], str]

SAYS = {
    "workflow run": r"2 of 2 nodes succeeded{took}",
    "table operation": r"3 of 3 cells done{cost}{took}",
    "scorecard calculation": r"completed, verdict pass, score 0\.9, took \S+ seconds?",
    "report": r"4 of 4 cells done, score 90{took}",
    "import": r"completed, 1 row added, took \S+ seconds?",
}
"""Kind of job → what the line says of a good one."""

SHEET_URL = re.escape(f" {HOST}/workspace/1/smart-tables/{TABLE.id}?sheet={SHEETS['good'].id}")


def last_line(log: Log) -> str:
    return log().strip().splitlines()[-1]


def expected(kind: Kind, its_id: Any, *, is_own: bool) -> str:
    took = r", within \S+ seconds?" if is_own else ""
    cost = r", cost 0\.003 USD, 3 requests, 300 tokens in, 60 tokens out" if is_own else ""
    says = SAYS[kind.name].format(took=took, cost=cost)
    url = SHEET_URL if kind.name not in ("workflow run", "report") else ""
    name = f"{kind.name[:1].upper()}{kind.name[1:]} {its_id}"
    return rf"{name}: {says}\.{url}(?!\S)"


@pytest.fixture
def linked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> LocalPromptLayer:
    """A server at which a job ends at the second poll, and whose web pages are known."""
    server = serve(new_server(by_polls=True))
    connect(server, monkeypatch, extra={"timeout": 60, "dashboard_url": HOST})
    return server


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_of_an_operator(start: Start, deferrable: bool, linked: LocalPromptLayer, log: Log) -> None:
    assert start.run(deferrable=deferrable).kind == "success"
    (its_id,) = start.started(linked)
    assert re.search(expected(start.kind, its_id, is_own=True), last_line(log))


@pytest.mark.parametrize(
    "how",
    [{"deferrable": True}, {"deferrable": False}, {"deferrable": False, "mode": "reschedule"}],
    ids=["deferred", "poke", "reschedule"],
)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_of_a_sensor(kind: Kind, how: dict[str, Any], linked: LocalPromptLayer, log: Log) -> None:
    ids = kind.start(linked, "good")
    ending = run_task(lambda: kind.sensor(task_id="task", poke_interval=0.02, **ids, **how))
    assert ending.kind == "success"
    assert re.search(expected(kind, ids[kind.id_name], is_own=False), last_line(log))


def test_a_try_that_goes_back_to_a_run_counts_from_its_start(
    linked: LocalPromptLayer, log: Log
) -> None:
    store = Store()
    deferred(RUN_WORKFLOW.make(), store)
    assert len(linked.executions) == 1
    store["promptlayer_run"]["notes"]["started_at"] -= 3600
    assert RUN_WORKFLOW.run(store, number=2).kind == "success"
    assert "2 of 2 nodes succeeded, within 1 hour" in last_line(log)


def run_batch(fate: Fate, count: int, *, deferrable: bool = False) -> Ending:
    return run_task(
        lambda: PromptLayerRunWorkflowBatchOperator(
            task_id="task",
            workflow_id_or_name=fate,
            inputs=numbered(count),
            poke_interval=0.02,
            deferrable=deferrable,
        )
    )


def test_of_a_batch(linked: LocalPromptLayer, deferrable: bool, log: Log) -> None:
    ending = run_batch("good", 3, deferrable=deferrable)
    assert (ending.kind, len(linked.executions)) == ("success", 3)
    assert ": 3 of 3 inputs succeeded." in last_line(log)


def test_of_an_export(linked: LocalPromptLayer, tmp_path: Any, log: Log) -> None:
    path = tmp_path / "rows.csv"
    run_task(lambda: PromptLayerExportSheetOperator(task_id="task", to=str(path), **at("good")))
    said = re.escape(f"Exported 3 rows of sheet {SHEETS['good'].id} to ")
    assert re.search(rf"{said}\S*rows\.csv\.{SHEET_URL}", log())


def test_of_a_snapshot(linked: LocalPromptLayer, log: Log) -> None:
    run_task(lambda: PromptLayerSnapshotSheetOperator(task_id="task", name="n", **at("good")))
    said = re.escape(f"Sheet {SHEETS['good'].id} is saved as ")
    assert re.search(rf"{said}.*\.{SHEET_URL}", last_line(log))


def test_a_failure_says_it_once(linked: LocalPromptLayer, log: Log) -> None:
    run_id = WORKFLOW_RUN.begin(linked, "bad")
    ending = run_task(
        lambda: WORKFLOW_RUN.sensor(
            task_id="task",
            workflow_version_execution_id=run_id,
            poke_interval=0.02,
            deferrable=False,
        ),
        FakeTaskInstance(),
    )
    assert ending.kind == "failed for good"
    assert "nodes succeeded" not in log()


OK = NodeResult("SUCCESS", "x", is_output_node=True)
BAD, SKIPPED = NodeResult("FAILED"), NodeResult("SKIPPED")


@pytest.mark.parametrize(
    ("nodes", "more", "summary"),
    [
        ({"a": OK}, {}, "1 of 1 nodes succeeded"),
        (
            {"a": OK, "b": BAD, "c": SKIPPED, "d": SKIPPED},
            {},
            "1 of 4 nodes succeeded, 1 failed, 2 skipped",
        ),
        ({"a": BAD}, {}, "no output, 0 of 1 nodes succeeded, 1 failed"),
        (
            {"a": OK},
            {"ended_without_output": True},
            "no output, 1 of 1 nodes succeeded",
        ),
        ({}, {"ended_without_output": True}, "ended without output"),
        ({}, {"final_output": "x"}, "ended"),
    ],
)
def test_of_a_run(nodes: Any, more: dict[str, Any], summary: str) -> None:
    assert WorkflowResults(1, is_complete=True, nodes=nodes, **more).summary == summary


class TestFailures:
    """What the error of a task says: why, what to do, and where to look."""

    @pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
    def test_of_an_operator_say_how_to_start_another(
        self, start: Start, deferrable: bool, linked: LocalPromptLayer, log: Log
    ) -> None:
        ending = start.run(fate="bad", deferrable=deferrable, max_tries=0)
        assert ending.kind in ("failed", "failed for good")
        url = "" if start.kind.name in ("workflow run", "report") else " See https://dashboard"
        advice = f"To start another {start.kind.name}, clear this task.{url}"
        if start.kind.name == "table operation":
            advice = "If you clear this task, it calculates failed cells again only with statuses="
        assert re.search(rf"[.!?…] {advice}", ending.message)
        assert ("Look in PromptLayer: https://dashboard" in log()) == bool(url)

    def test_that_are_retried_do_not(self, linked: LocalPromptLayer) -> None:
        ending = RUN_WORKFLOW.run(fate="bad", number=1, max_tries=2)
        assert ending.kind == "failed"
        assert "clear this task" not in ending.message

    def test_of_a_batch_are_listed_in_a_group(self, linked: LocalPromptLayer, log: Log) -> None:
        ending = run_batch("bad", 7)
        said = log()
        assert ending.message.endswith("All errors are in the XCom promptlayer_errors.")
        assert said.index("::group::7 warnings") < said.index("Input 0: Workflow run")
        assert said.index("Input 6: Workflow run") < said.index("::endgroup::")

    def test_of_many_inputs_are_not_all_listed(
        self, linked: LocalPromptLayer, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_promptlayer.bases.batch_results._FAILURES_LISTED", 1)
        run_batch("bad", 3)
        said = log()
        assert "2 more inputs failed: see the XCom promptlayer_errors." in said
        assert "::group::" not in said
