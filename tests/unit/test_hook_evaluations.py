# SPDX-License-Identifier: Apache-2.0
"""The hook's methods for evaluations; those that start, wait or cancel with their twins."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from support.clocks import Leap
from support.kinds import SHEETS, TABLE, new_server, sheet

from airflow_provider_promptlayer.api.tables import NothingToDo, QueuedOperation
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfirmationNeededError,
    PromptLayerEvaluationFailedError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply, Table

Ask = Callable[..., Any]
GOOD, BAD, NEVER = ((TABLE.id, SHEETS[fate].id) for fate in ("good", "bad", "never"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with new_server() as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        yield server


def test_twins_have_the_names_and_arguments_of_their_methods() -> None:
    names = ["run_workflow", "get_workflow_results", "wait_for_workflow_results"]
    names += ["run_table_operation", "cancel_table_operation", "wait_for_table_operation"]
    names += ["run_scorecard", "cancel_scorecard", "wait_for_scorecard"]
    names += ["run_report", "wait_for_report"]
    names += ["find_table", "find_sheet", "find_columns", "ensure_table", "ensure_sheet"]
    names += ["check_workflow_inputs"]
    names += ["save_version", "get_usage"]
    for name in names:
        method, twin = (getattr(PromptLayerHook, prefix + name) for prefix in ("", "a"))
        assert (method.__name__, twin.__name__) == (name, f"a{name}")
        assert inspect.iscoroutinefunction(twin)
        assert not inspect.isgeneratorfunction(method)
        assert inspect.signature(method) == inspect.signature(twin)
        assert not re.match("Loop|Wait", inspect.signature(method).return_annotation)
        assert f":meth:`{name}`" in twin.__doc__
        assert method.__qualname__.endswith(f"Methods.{name}")
        assert method.__doc__


def test_table(ask: Ask, server: LocalPromptLayer) -> None:
    started = ask("run_table_operation", *NEVER)
    (operation,) = server.operations.values()
    assert started == QueuedOperation(operation.id, 3, (operation.execution_id,))
    assert ask("run_table_operation", *NEVER) == NothingToDo()
    status = ask("get_table_operation", *NEVER, started.operation_id)
    assert (status.cell_count, status.pending_count) == (3, 3)
    (active,) = ask("get_sheet_operations", *NEVER).active_operations
    assert active.operation_id == started.operation_id
    assert ask("cancel_table_operation", *NEVER, started.operation_id).cancelled_cell_count == 3
    assert ask("cancel_table_operation", *NEVER, started.operation_id).cancelled_cell_count == 0
    done = ask("run_table_operation", *GOOD, row_ids=[0])
    assert (
        ask("wait_for_table_operation", *GOOD, done.operation_id, timeout=60).completed_count == 1
    )


def test_large_table(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    large = sheet("good", confirm_above=2)
    with LocalPromptLayer(tables=[Table("Table", [large])]) as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        with pytest.raises(PromptLayerConfirmationNeededError) as needed:
            ask("run_table_operation", *GOOD)
        assert needed.value.affected_cell_count == 3
        assert ask("run_table_operation", *GOOD, confirm_large=True).cell_count == 3


def test_scorecard(ask: Ask, server: LocalPromptLayer) -> None:
    calculation_id = ask("run_scorecard", *BAD, row_indices=[0, 1])
    status = ask("get_scorecard_calculation", *BAD, calculation_id)
    assert (status.status, status.score, status.verdict) == ("completed", 0.4, "fail")
    card = ask("get_scorecard", *BAD)
    assert (card.name, card.latest.calculation_id) == ("Quality", calculation_id)
    page = ask("get_scorecard_rows", *BAD, calculation_id=calculation_id, limit=1)
    assert ([row.row_index for row in page.rows], page.next_cursor) == ([0], 0)
    page = ask("get_scorecard_rows", *BAD, verdict="fail", cursor=0)
    assert ([row.row_index for row in page.rows], page.next_cursor) == ([1], None)
    assert ask("get_scorecard_row", *BAD, 1).step_results
    with pytest.raises(PromptLayerEvaluationFailedError, match="The link leads nowhere") as failed:
        ask("wait_for_scorecard", *BAD, calculation_id, timeout=60)
    assert failed.value.score == 0.4
    assert [row.row_index for row in failed.value.rows] == [1]
    passed = ask("wait_for_scorecard", *BAD, calculation_id, timeout=60, fail_on_verdict=())
    assert passed == status
    ask("run_scorecard", *NEVER)
    assert ask("cancel_scorecard", *NEVER).cancelled_count == 1


def test_the_time_to_explain_a_scorecard_is_bounded(
    ask: Ask, server: LocalPromptLayer, leap: Leap
) -> None:
    calculation_id = ask("run_scorecard", *BAD)
    explaining: list[str] = []

    def slow(request: Any) -> None:
        if "/scorecard/calculations/" not in request.raw_path:
            explaining.append(request.raw_path)
            leap(70.0)

    server.script(slow, times=None)
    with pytest.raises(PromptLayerEvaluationFailedError, match="the verdict is 'fail'") as failed:
        ask("wait_for_scorecard", *BAD, calculation_id, timeout=60)
    assert "There is more to know, but: The time is up" in str(failed.value)
    assert len(explaining) == 2


def test_report(ask: Ask, server: LocalPromptLayer) -> None:
    report_id = ask("run_report", 1, "nightly")
    assert ask("get_report", report_id).completed_count == 4
    assert ask("get_report_score", report_id).overall_score == 90.0
    report, score = ask(
        "wait_for_report", report_id, timeout=60, min_score=90, max_outage=timedelta(minutes=5)
    )
    assert (report.report_id, score.overall_score) == (report_id, 90.0)


@pytest.mark.parametrize(
    ("name", "args"),
    [("run_table_operation", GOOD), ("run_scorecard", GOOD), ("run_report", (1, "nightly"))],
)
def test_starts_are_sent_again_only_if_they_did_not_arrive(
    ask: Ask, name: str, args: tuple[Any, ...], server: LocalPromptLayer
) -> None:
    server.script(Reply(429, "{}", {"Retry-After": "0"}), method="POST")
    ask(name, *args)
    assert server.count("POST") == 2
    server.script(Close(), method="POST", acted_on=True)
    with pytest.raises(PromptLayerStartUncertainError):
        ask(name, *args)
    assert server.count("POST") == 3
