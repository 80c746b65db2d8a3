# SPDX-License-Identifier: Apache-2.0
"""The operators for evaluations: started once, gated, cancelled when they are ended."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from uuid import UUID

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, TaskDeferred
from airflow.triggers.base import BaseTrigger
from support.clocks import Leap
from support.kinds import PIPELINES, REPORTS, SHEETS, TABLE, Fate, new_server, sheet
from support.modes import Ending, FakeTaskInstance, Store, rebuilt, run_task

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
)
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerTableOperationSensor
from airflow_provider_promptlayer.testing import (
    Close,
    Column,
    Criterion,
    LocalPromptLayer,
    Reply,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
)

TRIGGERS_ARE_TOLD = hasattr(BaseTrigger, "on_kill")
"""Whether this Airflow tells a trigger that a user has ended its task."""


@dataclass(frozen=True)
class Start:
    """What starts an evaluation, and how to see at the server what was started."""

    operator: type
    arguments: Callable[[Fate], dict[str, Any]]
    started: Callable[[LocalPromptLayer], dict[Any, Any]]
    id_key: str
    id_name: str


def _at(fate: Fate) -> dict[str, Any]:
    return {"table_id": TABLE.id, "sheet_id": SHEETS[fate].id}


STARTS = {
    "table": Start(
        PromptLayerRunTableOperator,
        _at,
        lambda server: server.operations,
        "promptlayer_operation_id",
        "operation_id",
    ),
    "scorecard": Start(
        PromptLayerRunScorecardOperator,
        _at,
        lambda server: server.calculations,
        "promptlayer_calculation_id",
        "calculation_id",
    ),
    "report": Start(
        PromptLayerRunReportOperator,
        lambda fate: {"report_id": PIPELINES[fate], "name": "nightly"},
        lambda server: server.reports,
        "promptlayer_report_id",
        "report_id",
    ),
}
TABLE_START, SCORECARD, REPORT = STARTS.values()


@pytest.fixture(params=list(STARTS))
def start(request: pytest.FixtureRequest) -> Start:
    return STARTS[request.param]


@pytest.fixture(params=[False, True], ids=["poke", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with new_server() as server:
        connect(server, monkeypatch)
        yield server


def connect(server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)


def serving(
    monkeypatch: pytest.MonkeyPatch, only: Sheet, *, timed_by_looks: bool = False
) -> LocalPromptLayer:
    """Return a server, started, of one sheet.

    :param timed_by_looks: at this server a second passes with each look, and none without.
    """

    def polls() -> float:
        return float(started.count("GET"))

    started = LocalPromptLayer(
        tables=[Table("Table", [only])],
        reports=REPORTS,
        clock=polls if timed_by_looks else time.monotonic,
    )
    started.start()
    connect(started, monkeypatch)
    return started


def run(
    start: Start,
    fate: Fate = "good",
    store: Store | None = None,
    *,
    number: int = 1,
    max_tries: int = 2,
    **arguments: Any,
) -> Ending:
    extra = {} if store is None else {"task_state_store": store}
    return run_task(
        lambda: start.operator(
            **{
                "task_id": "task",
                "poke_interval": 0.05,
                "retries": 2,
                **start.arguments(fate),
                **arguments,
            }
        ),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
        **extra,
    )


def test_good(start: Start, deferrable: bool, server: LocalPromptLayer) -> None:
    ending = run(start, deferrable=deferrable)
    assert ending.kind == "success", ending
    (its_id,) = start.started(server)
    assert ending.value[start.id_name] == ending.xcoms[start.id_key] == its_id
    assert server.count("POST") == 1


def test_without_waiting(start: Start, server: LocalPromptLayer) -> None:
    ending = run(start, "never", wait_for_completion=False)
    (its_id,) = start.started(server)
    assert (ending.kind, ending.value) == ("success", its_id)
    assert ending.xcoms == {start.id_key: its_id}


def test_do_xcom_push_false_pushes_nothing(start: Start, server: LocalPromptLayer) -> None:
    assert run(start, do_xcom_push=False).xcoms == {}


class TestExactlyOnce:
    """Whatever happens, nothing is started, and billed, twice."""

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    @pytest.mark.parametrize(
        "fault", [Close(), Reply(500), Reply(502, "<html>"), Reply(201, "{}"), Reply(200, "<html>")]
    )
    def test_a_lost_answer_is_not_asked_for_again(
        self, start: Start, store: bool, fault: Any, server: LocalPromptLayer
    ) -> None:
        server.script(fault, method="POST", acted_on=True)
        ending = run(start, store=Store() if store else None)
        assert ending.kind == "failed for good", ending
        assert "look" in ending.message
        assert len(start.started(server)) == server.count("POST") == 1

    @pytest.mark.parametrize("status", [429, 503])
    def test_what_did_not_arrive_is_sent_again(
        self, start: Start, status: int, server: LocalPromptLayer
    ) -> None:
        server.script(Reply(status, "{}", {"Retry-After": "0"}), method="POST", times=2)
        assert run(start).kind == "success"
        assert (len(start.started(server)), server.count("POST")) == (1, 3)

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    def test_a_refusal_that_names_what_was_started_is_not_asked_for_again(
        self, start: Start, store: bool, server: LocalPromptLayer
    ) -> None:
        named = {"message": "Busy", start.id_name: 4711}
        server.script(Reply.of_json(named, 409), method="POST", acted_on=True)
        kept = Store() if store else None
        ending = run(start, store=kept)
        assert ending.kind == "failed for good", ending
        assert f"has the {start.id_name} '4711' all the same" in ending.message
        if store:  # a person has to look, whatever retries there are
            assert run(start, store=kept, number=2).kind == "failed for good"
        assert len(start.started(server)) == server.count("POST") == 1

    def test_what_was_started_is_kept_however_little_the_answer_says(
        self, start: Start, deferrable: bool, server: LocalPromptLayer
    ) -> None:
        begin: dict[str, Callable[[], Any]] = {
            "operation_id": lambda: server.start_operation(*_at("good").values()),
            "calculation_id": lambda: server.start_calculation(*_at("good").values()),
            "report_id": lambda: server.start_report(PIPELINES["good"], "nightly"),
        }

        def accept(request: Any) -> Reply | None:
            if request.method != "POST":
                return None
            return Reply.of_json({start.id_name: begin[start.id_name]()}, 202)

        server.script(accept, times=None)
        ending = run(start, deferrable=deferrable)
        assert ending.kind == "success", ending
        (its_id,) = start.started(server)
        assert ending.value[start.id_name] == ending.xcoms[start.id_key] == its_id
        assert server.count("POST") == 1

    def test_a_try_after_a_crash_goes_back(
        self, start: Start, deferrable: bool, server: LocalPromptLayer
    ) -> None:
        store = Store()
        first = run(start, store=store, wait_for_completion=False)
        ending = run(start, store=store, number=2, deferrable=deferrable)
        assert ending.kind == "success"
        assert ending.xcoms[start.id_key] == first.value
        assert server.count("POST") == 1

    def test_clearing_after_success_runs_again(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        store = Store()
        run(start, store=store)
        ending = run(start, store=store, max_tries=3)
        assert ending.kind == "success"
        assert server.count("POST") == 2

    def test_a_verdict_is_not_asked_for_again_by_a_retry(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        """A worker that died after the end leaves a note, and a verdict that stands."""
        store = Store()
        assert run(start, "bad", store).kind == "failed for good"
        ending = run(start, "bad", store, number=2)
        assert ending.kind == "failed for good"
        assert len(start.started(server)) == server.count("POST") == 1

    def test_clearing_after_a_verdict_asks_for_another(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        store = Store()
        run(start, "bad", store)
        run(start, "bad", store, max_tries=3)
        assert server.count("POST") == 2

    def test_trouble_while_waiting_may_be_retried_with_a_store_alone(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        server.script(Reply(503), method="GET", times=None)
        assert run(start, store=Store(), max_outage=0.1).kind == "failed"
        server.script(Reply(503), method="GET", times=None)
        assert run(start, "bad", max_outage=0.1).kind == "failed for good"


def test_the_score_of_an_earlier_report_is_not_that_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    poor, rich = (replace(REPORTS[0], score=score) for score in (10.0, 90.0))
    with LocalPromptLayer(reports=[poor, replace(rich, id=2)]) as server:
        connect(server, monkeypatch)
        assert run(REPORT, store=store, min_score=50).kind == "failed for good"
        cleared = run(REPORT, store=store, min_score=50, report_id=2, max_tries=3)
    assert (cleared.kind, cleared.xcoms["promptlayer_score"]) == ("success", 90.0), cleared


class TestTable:
    """Recalculating cells."""

    def test_nothing_to_do_is_a_success_that_says_so(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        run(TABLE_START)
        ending = run(TABLE_START)
        assert (ending.kind, ending.value["cell_count"]) == ("success", 0)
        assert ending.value["operation_id"] is None
        assert ending.xcoms == {"promptlayer_operation_id": None}
        assert "nothing to do" in log()
        assert len(server.operations) == 1

    def test_nothing_to_do_is_no_success_where_cells_have_failed(
        self, server: LocalPromptLayer
    ) -> None:
        run(TABLE_START, "bad")
        ending = run(TABLE_START, "bad")
        assert ending.kind == "failed for good"
        assert "statuses=['STALE', 'FAILED']" in ending.message
        assert run(TABLE_START, "bad", fail_on="never").kind == "success"

    @pytest.mark.parametrize(
        "selection", [{"column_ids": [SHEETS["bad"].columns[1].id]}, {"row_ids": [0, 1, 2]}]
    )
    def test_clearing_makes_no_success_of_failed_cells(
        self, server: LocalPromptLayer, selection: dict[str, Any]
    ) -> None:
        store = Store()
        for number in (1, 2, 3):
            ending = run(
                TABLE_START, "bad", store, number=number, max_tries=1 + number, **selection
            )
            assert ending.kind == "failed for good", ending
            assert "1 failed" in ending.message
        assert len(server.operations) == 1

    @pytest.mark.parametrize("rows", [list, set, json.dumps], ids=["list", "set", "text"])
    @pytest.mark.parametrize(("cleared_with", "operations"), [([0, 1], 1), ([2], 2)])
    def test_clearing_goes_back_to_the_same_selection_alone(
        self,
        server: LocalPromptLayer,
        rows: Callable[[list[int]], Any],
        cleared_with: list[int],
        operations: int,
    ) -> None:
        store, column = Store(), SHEETS["never"].columns[1].id
        first: dict[str, Any] = {"column_ids": [UUID(column)], "row_ids": [0, 1]}
        then: dict[str, Any] = {"column_ids": [column.upper()], "row_ids": rows(cleared_with)}
        run(TABLE_START, "never", store, timeout=0.1, **first)
        run(TABLE_START, "never", store, number=2, max_tries=3, timeout=0.1, **then)
        assert len(server.operations) == operations
        # What nobody goes back to is cancelled.
        cancelled = [one.cancelled_at is not None for one in server.operations.values()]
        assert cancelled == [True, False][2 - operations :]

    def test_clearing_for_another_sheet_cancels_on_the_old_one(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        run(TABLE_START, "never", store, timeout=0.1)
        server.script(Reply(503), method="DELETE", times=1)
        run(TABLE_START, "good", store, number=2, max_tries=3)
        cancelled = [one.cancelled_at is not None for one in server.operations.values()]
        assert cancelled == [True, False]

    def test_clearing_for_what_cannot_be_sent_ends_nothing(self, server: LocalPromptLayer) -> None:
        store = Store()
        run(TABLE_START, "never", store, timeout=0.1)
        ending = run(TABLE_START, "never", store, number=2, max_tries=3, row_ids=["x"])
        assert ending.kind == "failed for good"
        assert not is_cancelled(server)

    def test_without_notes_failed_cells_are_no_success_either(
        self, server: LocalPromptLayer
    ) -> None:
        run(TABLE_START, "bad")
        ending = run(TABLE_START, "bad", row_ids=[0, 1, 2])
        assert ending.kind == "failed for good"
        assert "on the sheet cells failed (6 of 6 cells done, 1 failed)" in ending.message

    @pytest.mark.parametrize(
        ("fail_on", "kind"),
        [("any_cell", "failed for good"), ("all_cells", "success"), ("never", "success")],
    )
    def test_failed_cells(
        self, server: LocalPromptLayer, fail_on: str, kind: str, deferrable: bool
    ) -> None:
        ending = run(TABLE_START, "bad", fail_on=fail_on, deferrable=deferrable)
        assert ending.kind == kind, ending
        if kind == "success":
            assert (ending.value["completed_count"], ending.value["failed_count"]) == (2, 1)

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    def test_a_retry_takes_up_failed_cells_where_they_are_selected(
        self, server: LocalPromptLayer, store: bool
    ) -> None:
        kept = Store() if store else None
        statuses = '["STALE", "FAILED"]'
        assert run(TABLE_START, "bad", kept, statuses=statuses).kind == "failed"
        assert run(TABLE_START, "bad", kept, statuses=statuses, number=2).kind == "failed"
        first, second = server.operations.values()
        assert (len(first.cells), len(second.cells)) == (3, 1)

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    @pytest.mark.parametrize(
        ("asked", "kind"),
        [
            ({}, "failed for good"),  # a retry would calculate the others, and be a success
            ({"statuses": '["STALE", "FAILED"]'}, "failed"),
            ({"fail_on": "all_cells"}, "failed"),
            ({"fail_on": "never"}, "failed"),
        ],
    )
    def test_a_retry_leaves_no_failed_cell_out_of_account(
        self, asked: dict[str, Any], kind: str, store: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An operation is cancelled when one of its cells has failed."""
        answer = Column("Answer", cell_duration=1.0, failing_rows=[0])
        only = sheet("good", columns=[answer], row_count=3)
        server = serving(monkeypatch, only, timed_by_looks=True)

        def cancel(request: Any) -> None:
            for operation in server.operations.values():
                if "FAILED" in operation.cell_statuses(server._evaluations.now()):
                    server.cancel_operation(operation.id)

        server.script(cancel, times=None)
        kept = Store() if store else None
        ending = run(TABLE_START, store=kept, **asked)
        assert ending.kind == kind, ending
        assert "it was cancelled (1 of 3 cells done, 1 failed, cancelled)" in ending.message
        if store and not asked:  # as after a crash
            assert run(TABLE_START, store=kept, number=2).kind == "failed for good"
            assert len(server.operations) == 1
        server.stop()

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    @pytest.mark.parametrize(
        ("failed", "asked", "kind"),
        [
            (0, {}, "failed"),
            (0, {"fail_on": "never"}, "failed"),
            (0, {"statuses": []}, "failed for good"),  # else it bills again what has succeeded
            (1, {}, "failed for good"),
            (1, {"fail_on": "never"}, "failed"),
        ],
    )
    def test_what_broke_off_is_no_success_and_may_be_retried(
        self, server: LocalPromptLayer, failed: int, asked: dict[str, Any], kind: str, store: bool
    ) -> None:
        gave_up = {
            "operation_id": "op",
            "status": "failed",
            "cell_count": 3,
            "completed_count": 1,
            "failed_count": failed,
            "pending_count": 0,
        }
        answer = Reply.of_json({"success": True, "operation": gave_up})
        server.script(
            lambda request: answer if "/operations/" in request.raw_path else None, times=None
        )
        kept = Store() if store else None
        ending = run(TABLE_START, store=kept, **asked)
        assert ending.kind == kind, ending
        if store and kind == "failed":
            run(TABLE_START, store=kept, number=2, **asked)
            assert server.count("POST") == 2

    def test_a_retry_bills_no_cell_that_has_succeeded(self, server: LocalPromptLayer) -> None:
        assert run(TABLE_START, "bad", statuses=[]).kind == "failed for good"

    @pytest.mark.parametrize(
        ("selection", "cells"),
        [
            ({"row_ids": "[0, 2]"}, 2),
            ({"row_ids": (1,)}, 1),
            ({"column_ids": [SHEETS["good"].columns[1].id]}, 3),
            ({"statuses": '["FAILED"]'}, 0),
        ],
    )
    def test_selection(self, server: LocalPromptLayer, selection: Any, cells: int) -> None:
        ending = run(TABLE_START, **selection)
        assert (ending.kind, ending.value["cell_count"]) == ("success", cells), ending

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"table_id": "Support answers"}, "table_id must be a UUID"),
            ({"sheet_id": ""}, "sheet_id must be a UUID"),
            ({"row_ids": [-1]}, "row_ids[0] must be a row number"),
            ({"row_ids": "None"}, "row_ids must be a list"),
            ({"row_ids": []}, "row_ids is empty"),
            ({"column_ids": ["x"]}, "column_ids[0] must be a UUID"),
            ({"statuses": ["OLD"]}, "'OLD' is none of them"),
        ],
    )
    def test_bad_input(self, server: LocalPromptLayer, wrong: dict[str, Any], says: str) -> None:
        ending = run(TABLE_START, **wrong)
        assert ending.kind == "failed for good"
        assert says in ending.message
        assert server.count() == 0

    def test_a_text_column_is_refused_by_promptlayer(self, server: LocalPromptLayer) -> None:
        ending = run(TABLE_START, column_ids=[SHEETS["good"].columns[0].id])
        assert ending.kind == "failed for good"
        assert "Text columns cannot be recalculated" in ending.message

    def test_an_unknown_table(self, server: LocalPromptLayer) -> None:
        ending = run(TABLE_START, table_id=SHEETS["good"].id)
        assert ending.kind == "failed for good"
        assert "Check table_id, sheet_id" in ending.message


A = Column("A", cell_duration=4.0, failing_rows=[0])  # seconds of a server that counts polls
B = Column("B", cell_duration=4.0)


class TestNothingLeftToStart:
    """The counts of the sheet decide, whoever calculates its cells."""

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
        columns = [Column("Question", type="TEXT"), A, B]
        sheet_ = sheet("good", columns=columns, row_count=4)
        server = serving(monkeypatch, sheet_, timed_by_looks=True)
        yield server
        server.stop()

    @staticmethod
    def start(server: LocalPromptLayer, column: Column, *rows: int) -> str:
        here = TABLE.id, SHEETS["good"].id
        return server.start_operation(*here, column_ids=[column.id], row_ids=rows or None)

    @pytest.mark.parametrize(
        ("fail_on", "kind"),
        [("any_cell", "failed for good"), ("all_cells", "failed for good"), ("never", "success")],
    )
    def test_text_is_no_success(
        self, monkeypatch: pytest.MonkeyPatch, fail_on: str, kind: str, deferrable: bool
    ) -> None:
        columns = [Column("Question", type="TEXT"), replace(A, cell_duration=0)]
        server = serving(monkeypatch, sheet("good", columns=columns, row_count=1))
        for _ in range(2):
            ending = run(TABLE_START, fail_on=fail_on, deferrable=deferrable)
            assert ending.kind == kind, ending
        assert len(server.operations) == 1
        server.stop()

    @pytest.mark.parametrize(("statuses", "kind"), [(None, "failed"), (["FAILED"], "success")])
    def test_waits_until_no_cell_is_pending(
        self, server: LocalPromptLayer, statuses: list[str] | None, kind: str, deferrable: bool
    ) -> None:
        """A stale cell may be one of those that were to be calculated: the counts do not tell."""
        self.start(server, B)
        self.start(server, A, 1, 2, 3)
        ending = run(
            TABLE_START, column_ids=[A.id], row_ids=[1], statuses=statuses, deferrable=deferrable
        )
        assert ending.kind == kind, ending
        assert kind == "success" or "1 were left by what had begun" in ending.message
        operations = server.operations.values()
        assert all(one.status(server._evaluations.now()) == "completed" for one in operations)
        assert server.count("DELETE") == 0

    def test_counts_of_what_others_have_calculated(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        self.start(server, B)
        self.start(server, A, 1, 2, 3)
        self.start(server, A, 0)
        ending = run(TABLE_START, fail_on="never", deferrable=deferrable)
        assert ending.kind == "success", ending
        assert ending.value == {
            "operation_id": None,
            "status": "nothing to do",
            "cell_count": 12,
            "completed_count": 11,
            "failed_count": 1,
        }
        assert ending.xcoms == {"promptlayer_operation_id": None}

    @pytest.mark.parametrize("fail_on", ["any_cell", "all_cells"])
    def test_what_failed_elsewhere_is_no_success(
        self, server: LocalPromptLayer, fail_on: str, deferrable: bool
    ) -> None:
        self.start(server, B)
        self.start(server, A)
        ending = run(TABLE_START, fail_on=fail_on, deferrable=deferrable)
        assert ending.kind == "failed for good", ending
        assert "12 of 12 cells done, 1 failed" in ending.message

    def test_ends_with_the_time(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap
    ) -> None:
        server.script(lambda request: leap(100.0) if request.method == "GET" else None, times=None)
        self.start(server, B)
        self.start(server, A)
        ending = run(TABLE_START, timeout=1000, deferrable=deferrable)
        assert ending.kind == "timeout", ending
        assert f"calculation of sheet {SHEETS['good'].id} did not end" in ending.message

    @pytest.mark.parametrize("pending", [{"pending_count": 3}, {"status_counts": {"RUNNING": 3}}])
    def test_pending_cells_of_no_operation_are_no_success(
        self, server: LocalPromptLayer, pending: dict[str, Any], deferrable: bool
    ) -> None:
        self.start(server, A)
        self.start(server, B)
        counts: dict[str, Any] = {
            "total_cells": 12,
            "pending_count": 0,
            "status_counts": {"COMPLETED": 12},
            "active_operations": [],
            **pending,
        }
        server.script(Reply.of_json(counts), method="GET", times=None)
        ending = run(TABLE_START, deferrable=deferrable, timeout=0.3, fail_on="never")
        assert ending.kind == "timeout", ending

    @pytest.mark.parametrize("fail_on", ["any_cell", "all_cells", "never"])
    def test_cells_that_others_gave_up_may_be_retried(
        self, server: LocalPromptLayer, fail_on: str, deferrable: bool
    ) -> None:
        assert run(TABLE_START, column_ids=[A.id], row_ids=[1, 2, 3]).kind == "success"
        operation_id = self.start(server, B)

        def give_up(request: Any) -> None:
            if request.method == "GET" and server.count("GET") >= polls + 2:
                server.cancel_operation(operation_id)

        polls = server.count("GET")
        server.script(give_up, times=None)
        store = Store()
        asked: dict[str, Any] = {"column_ids": [B.id], "fail_on": fail_on, "store": store}
        ending = run(TABLE_START, deferrable=deferrable, **asked)
        assert ending.kind == "failed", ending
        assert "were left by what had begun" in ending.message
        server.clear_scripts()
        retried = run(TABLE_START, number=2, **asked)
        assert (retried.kind, retried.value["cell_count"]) == ("success", 4)
        assert len(server.operations) == 3

    def test_cells_that_others_gave_up_while_nobody_could_ask_are_no_success(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        operation_id = self.start(server, B)

        def give_up(request: Any) -> Reply:
            server.cancel_operation(operation_id)
            return Reply(503)

        server.script(give_up, method="GET")
        ending = run(TABLE_START, column_ids=[B.id], fail_on="never", deferrable=deferrable)
        assert ending.kind == "failed", ending
        assert "were left by what had begun" in ending.message

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    def test_a_retry_takes_up_cells_that_failed_elsewhere(
        self, server: LocalPromptLayer, store: bool
    ) -> None:
        kept = Store() if store else None
        asked: dict[str, Any] = {"column_ids": [A.id], "statuses": '["FAILED"]', "store": kept}
        self.start(server, A)
        assert run(TABLE_START, **asked).kind == "failed"
        assert run(TABLE_START, number=2, **asked).kind == "failed"
        assert len(server.operations) == server.count("POST") == 2

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    def test_trouble_in_waiting_for_others_may_be_retried(
        self, server: LocalPromptLayer, store: bool, deferrable: bool
    ) -> None:
        self.start(server, A)
        server.script(Reply(503), method="GET", times=None)
        ending = run(
            TABLE_START,
            column_ids=[A.id],
            store=Store() if store else None,
            max_outage=0.1,
            deferrable=deferrable,
        )
        assert ending.kind == "failed", ending

    def test_trouble_in_asking_is_ridden_out(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        self.start(server, A)
        self.start(server, B)
        server.script(Reply(503), method="GET", times=3)
        ending = run(TABLE_START, deferrable=deferrable)
        assert ending.kind == "failed for good", ending
        assert "1 failed" in ending.message

    def test_an_idle_sheet_is_asked_about_once(self, server: LocalPromptLayer) -> None:
        run(TABLE_START, column_ids=[B.id])
        before = server.count()
        ending = run(TABLE_START, column_ids=[B.id])
        assert (ending.kind, ending.value["cell_count"]) == ("success", 0), ending
        assert server.count() - before == 2

    def test_without_waiting(self, server: LocalPromptLayer) -> None:
        self.start(server, A)
        ending = run(TABLE_START, column_ids=[A.id], wait_for_completion=False)
        assert (ending.kind, ending.value["status"]) == ("success", "nothing to do")
        assert ending.xcoms == {"promptlayer_operation_id": None}

    def test_is_resumed_without_its_notes(self, server: LocalPromptLayer) -> None:
        """As ``dag.test()`` resumes a task: with the event and the XComs alone."""
        self.start(server, A)
        self.start(server, B)
        ti = FakeTaskInstance()
        with pytest.raises(TaskDeferred):
            self.operator().execute({"ti": ti, "run_id": "r"})
        resumed = self.operator()
        event = {"version": 1, "id": SHEETS["good"].id, "outcome": "ended", "message": ""}
        server.script(Reply.of_json(self.DONE), method="GET", times=None)
        value = resumed.resume_execution("execute_complete", {"event": event}, {"ti": ti})
        assert value["completed_count"] == 12

    DONE: ClassVar[dict[str, Any]] = {
        "total_cells": 12,
        "pending_count": 0,
        "status_counts": {"COMPLETED": 12},
        "active_operations": [],
    }

    @staticmethod
    def operator() -> Any:
        return PromptLayerRunTableOperator(task_id="t", poke_interval=0.05, **_at("good"))


class TestLargeTable:
    """PromptLayer asks before it calculates many cells."""

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
        server = serving(monkeypatch, sheet("good", confirm_above=2))
        yield server
        server.stop()

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    def test_is_not_started_unless_confirmed(self, server: LocalPromptLayer, store: bool) -> None:
        kept = Store() if store else None
        ending = run(TABLE_START, store=kept)
        assert ending.kind == "failed for good"
        assert "covers 3 cells" in ending.message
        assert "confirm_large=True" in ending.message
        assert server.operations == {}
        assert not kept

    def test_is_confirmed(self, server: LocalPromptLayer) -> None:
        ending = run(TABLE_START, confirm_large=True)
        assert (ending.kind, ending.value["cell_count"]) == ("success", 3)
        assert server.count("POST") == 2

    def test_is_not_confirmed_for_ever(self, server: LocalPromptLayer) -> None:
        input_parts = {
            "success": False,
            "requires_confirmation": True,
            "confirmation_token": "t",
            "affected_cell_count": 3,
        }
        server.script(Reply.of_json(input_parts), method="POST", times=None)
        ending = run(TABLE_START, confirm_large=True)
        assert ending.kind == "failed for good"
        assert "although one was sent" in ending.message
        assert server.count("POST") == 2

    def test_a_lost_answer_to_the_confirmation(self, server: LocalPromptLayer) -> None:
        server.script(Close(), method="POST", acted_on=True, after=1)
        ending = run(TABLE_START, confirm_large=True, store=Store())
        assert ending.kind == "failed for good"
        assert len(server.operations) == 1
        assert server.count("POST") == 2


class TestGate:
    """The gate of a scorecard."""

    MESSAGE = (
        "the verdict is 'fail'. Failing criteria: 'Cites a source' (fail, 0.2): 1 of 3 fails. "
        "Worst rows: row 1 (fail, 0.1): 'Cites a source': The link leads nowhere."
    )

    def test_names_criteria_and_rows(self, server: LocalPromptLayer, deferrable: bool) -> None:
        ending = run(SCORECARD, "bad", deferrable=deferrable)
        assert ending.kind == "failed for good"
        assert ending.message.endswith(self.MESSAGE)

    def test_pushes_what_an_alert_wants(self, server: LocalPromptLayer) -> None:
        xcoms = run(SCORECARD, "bad").xcoms
        (calculation_id,) = server.calculations
        assert xcoms.pop("promptlayer_criterion_summaries")
        assert xcoms == {
            "promptlayer_calculation_id": calculation_id,
            "promptlayer_score": 0.4,
            "promptlayer_verdict": "fail",
            "promptlayer_drift_summary": {"delta": 0.1},
        }

    @pytest.mark.parametrize(
        ("fate", "gate", "kind"),
        [
            ("bad", {}, "failed for good"),
            ("bad", {"soft_fail": True}, "skipped"),
            ("bad", {"fail_on_verdict": ()}, "success"),
            ("bad", {"fail_on_verdict": None}, "failed for good"),  # an XCom that is missing
            ("bad", {"fail_on_verdict": ["error"]}, "success"),
            ("bad", {"fail_on_verdict": (), "min_score": 0.4}, "success"),
            ("bad", {"fail_on_verdict": (), "min_score": "0.41"}, "failed for good"),
            ("bad", {"fail_on_verdict": (), "min_score": None}, "failed for good"),
            ("good", {"fail_on_verdict": "pass"}, "failed for good"),
            ("good", {"min_score": 0.9}, "success"),
            ("good", {"min_score": 0.91}, "failed for good"),
        ],
    )
    def test_gate(
        self, server: LocalPromptLayer, fate: Fate, gate: dict[str, Any], kind: str
    ) -> None:
        assert run(SCORECARD, fate, **gate).kind == kind

    def test_a_low_score_names_rows_whatever_their_verdict(self, server: LocalPromptLayer) -> None:
        message = run(SCORECARD, min_score=0.95).message
        assert "the score 0.9 is below min_score=0.95" in message
        assert "row 2 (pass, 0.9)" in message

    @pytest.mark.parametrize(
        ("path", "kept"),
        [
            ("/scorecard", ["'Cites a source' (fail"]),
            ("/scorecard/rows", ["'Cites a source' (fail"]),
            ("/scorecard/rows/1", ["'Cites a source' (fail", "row 1 (fail, 0.1)"]),
        ],
    )
    @pytest.mark.parametrize("status", [404, 503])
    def test_trouble_in_explaining_changes_no_verdict(
        self,
        server: LocalPromptLayer,
        path: str,
        kept: list[str],
        status: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(retries, "EXPLAINING", retries.EXPLAINING.within(0.1))

        def fault(request: Any) -> Reply | None:
            return Reply(status) if request.raw_path.partition("?")[0].endswith(path) else None

        server.script(fault, times=None)
        ending = run(SCORECARD, "bad")
        assert ending.kind == "failed for good"
        assert "the verdict is 'fail'" in ending.message
        for part in kept:
            assert part in ending.message
        assert "There is more to know" in ending.message
        assert f"HTTP {status}" in ending.message
        assert ending.xcoms["promptlayer_score"] == 0.4

    def test_a_blip_in_explaining_loses_nothing(self, server: LocalPromptLayer) -> None:
        hits: list[str] = []

        def fault(request: Any) -> Reply | None:
            if "/scorecard/calculations/" in request.raw_path or request.method != "GET":
                return None
            hits.append(request.raw_path)
            return Reply(503) if hits.count(request.raw_path) == 1 else None

        server.script(fault, times=None)
        assert run(SCORECARD, "bad").message.endswith(self.MESSAGE)

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    def test_what_did_not_come_to_an_end_may_be_retried(
        self, store: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = Store() if store else None
        card = Scorecard("Quality", status="failed", error_summary="No model.", score=None)
        server = serving(monkeypatch, sheet("good", scorecard=card))
        ending = run(SCORECARD, store=kept)
        assert ending.kind == "failed", ending
        assert "'failed'" in ending.message
        assert "No model." in ending.message
        run(SCORECARD, store=kept, number=2)
        assert server.count("POST", "/api") == 2
        server.stop()

    def test_clearing_asks_for_another_verdict_also_after_trouble(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        assert run(SCORECARD, "bad", store).kind == "failed for good"
        server.script(Reply(503, headers={"Retry-After": "0"}), method="POST", times=None)
        ending = run(SCORECARD, "bad", store, number=2, max_tries=3, max_outage=0.2)
        assert ending.kind == "failed"
        server.clear_scripts()
        run(SCORECARD, "bad", store, number=3, max_tries=3)
        assert len(server.calculations) == 2

    @pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
    def test_what_may_still_go_on_is_not_started_again(
        self, store: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        card = Scorecard("Quality", status="QUEUED", score=None)
        server = serving(monkeypatch, sheet("good", scorecard=card))
        assert run(SCORECARD, store=Store() if store else None).kind == "failed for good"
        assert server.count("POST", "/api") == 1
        server.stop()

    @pytest.mark.parametrize("score", [None, 0.5])
    def test_completed_without_a_verdict_is_neither_passed_nor_retried(
        self, score: float | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        card = Scorecard("Quality", verdict=None, score=score)
        server = serving(monkeypatch, sheet("good", scorecard=card))
        ending = run(SCORECARD, store=Store())
        assert ending.kind == "failed for good"
        assert "gave no verdict" in ending.message
        server.stop()

    def test_a_sheet_without_scorecard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        server = serving(monkeypatch, sheet("good", scorecard=None))
        ending = run(SCORECARD)
        assert ending.kind == "failed for good"
        assert "Scorecard is not configured" in ending.message
        assert "set one up" in ending.message
        server.stop()

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"row_indices": [-1]}, "row_indices[0] must be a row number"),
            ({"step_ids": ["polite"]}, "step_ids[0] must be a UUID"),
            ({"fail_on_verdict": "bad"}, "fail_on_verdict must be"),
            ({"fail_on_verdict": ["fail", "bad"]}, "fail_on_verdict must be one of"),
            ({"min_score": "high"}, "min_score must be a number"),
            ({"row_indices": [99]}, "Check that the sheet has a scorecard"),
        ],
    )
    def test_bad_input(self, server: LocalPromptLayer, wrong: dict[str, Any], says: str) -> None:
        ending = run(SCORECARD, **wrong)
        assert ending.kind == "failed for good"
        assert says in ending.message
        assert server.calculations == {}


class TestManyRows:
    """The rows come page by page."""

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
        rows = [
            ScoredRow("fail" if row % 2 else "pass", 1 - row / 1000, error_summary=f"e{row}")
            for row in range(450)
        ]
        rows[3] = ScoredRow("error", None, error_summary="no answer")
        card = Scorecard("Quality", [], rows, verdict="fail", score=0.5)
        server = serving(monkeypatch, sheet("good", row_count=450, scorecard=card))
        yield server
        server.stop()

    def test_the_worst_of_all_pages_are_named(self, server: LocalPromptLayer) -> None:
        message = run(SCORECARD).message
        worst = message.partition("Worst rows: ")[2]
        assert worst == (
            "row 3 (error): no answer; row 449 (fail, 0.551): e449; row 447 (fail, 0.553): e447; "
            "row 445 (fail, 0.555): e445; row 443 (fail, 0.557): e443."
        )
        polls, cards, rows = 1, 1, 5
        assert server.count("GET") - polls - cards - rows == 1 + 3  # pages of errors, of failures

    def test_pages_that_cannot_be_had(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retries, "EXPLAINING", retries.EXPLAINING.within(0.1))

        def fault(request: Any) -> Reply | None:
            return Reply(500) if "cursor" in request.query else None

        server.script(fault, times=None)
        message = run(SCORECARD).message
        assert "row 3 (error)" in message
        assert "There is more to know" in message


def test_foreign_text_cannot_forge_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    nasty = "a\n[2026-01-01] INFO - all good \x1b[31m\u202e{{ 1 }}" + "x" * 5000
    card = Scorecard(
        nasty,
        [Criterion(nasty, verdict="fail", error_summary=nasty)],
        [ScoredRow("fail", 0.0, error_summary=nasty, reasons={nasty: nasty})],
        verdict="fail",
        error_summary=nasty,
        drift_summary={nasty: "\x00", "n": math.pi},
    )
    server = serving(monkeypatch, sheet("good", scorecard=card))
    ending = run(SCORECARD)
    assert ending.kind == "failed for good"
    assert ending.message.isprintable()
    assert len(ending.message) < 4000
    assert "\x00" not in json.dumps(ending.xcoms["promptlayer_drift_summary"])
    server.stop()


class TestReport:
    """Running a legacy pipeline."""

    def test_score_and_counts(self, server: LocalPromptLayer, deferrable: bool) -> None:
        ending = run(REPORT, min_score=90, deferrable=deferrable)
        assert ending.kind == "success", ending
        assert ending.xcoms["promptlayer_score"] == ending.value["score"] == 90.0
        assert (ending.value["completed_count"], ending.value["failed_count"]) == (4, 0)

    def test_below_the_score(self, server: LocalPromptLayer) -> None:
        ending = run(REPORT, min_score=90.5, store=Store())
        assert ending.kind == "failed for good"
        assert "the score 90 is below min_score=90.5" in ending.message
        assert "'Is polite' 90" in ending.message
        assert ending.xcoms["promptlayer_score"] == 90.0

    def test_an_ending_that_nobody_knows_is_neither_retried_nor_scored(
        self, server: LocalPromptLayer
    ) -> None:
        body = {"success": True, "status": "EXPLODED", "report": {}, "stats": {"status_counts": {}}}
        server.script(Reply.of_json(body), method="GET", times=None)
        ending = run(REPORT, min_score=1, store=Store())
        assert ending.kind == "failed for good", ending
        assert server.count("POST", "/reports") == 1
        assert "it ended as 'EXPLODED'" in ending.message

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"report_id": "x"}, "report_id must be a positive integer"),
            ({"name": " "}, "name must be a text"),
            ({"min_score": 100.5}, "min_score must be a number from 0 to 100"),
            ({"min_score": None}, "min_score must be a number, not None"),
            ({"dataset_id": "x"}, "dataset_id must be a positive integer"),
            ({"report_id": 4711}, "Check report_id"),
            ({"refresh_dataset": True}, "Dataset refresh is not allowed"),
        ],
    )
    def test_bad_input(self, server: LocalPromptLayer, wrong: dict[str, Any], says: str) -> None:
        ending = run(REPORT, **wrong)
        assert ending.kind == "failed for good"
        assert says in ending.message
        assert server.reports == {}

    def test_a_401_may_be_about_the_data_and_not_the_key(self, server: LocalPromptLayer) -> None:
        """So no retry asks again, and nobody is sent to look for another key."""
        said = {"success": False, "message": "No requests found for the given criteria"}
        server.script(Reply.of_json(said, 401), method="POST", times=None)
        ending = run(REPORT, store=Store())
        assert ending.kind == "failed for good", ending
        assert "No requests found for the given criteria. Check the dataset" in ending.message
        assert "key" not in ending.message
        assert server.count("POST") == 1

    def test_a_report_that_a_run_has_made_cannot_be_run(self, server: LocalPromptLayer) -> None:
        ending = run(REPORT, report_id=server.start_report(1, "r"))
        assert ending.kind == "failed for good"
        assert "Only an evaluation pipeline can be run" in ending.message


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return what was logged; Airflow 3 logs to the standard output, Airflow 2 does not."""
    caplog.set_level("INFO")
    return lambda: caplog.text or capsys.readouterr().out


def is_cancelled(server: LocalPromptLayer) -> bool:
    started: list[Any] = [*server.operations.values(), *server.calculations.values()]
    (only,) = started
    return only.cancelled_at is not None


@pytest.mark.parametrize("name", ["table", "scorecard"])
class TestKilled:
    """A task that is ended ends what it has started, and nothing else."""

    @staticmethod
    def deferred(operator: Any, **context: Any) -> Any:
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute({"ti": FakeTaskInstance(), "run_id": "r", **context})
        return deferral.value

    @staticmethod
    def operator(name: str, **arguments: Any) -> Any:
        start = STARTS[name]
        return start.operator(
            **{"task_id": "t", "poke_interval": 0.05, **start.arguments("never"), **arguments}
        )

    def start_elsewhere(self, name: str, server: LocalPromptLayer) -> str:
        begin = server.start_operation if name == "table" else server.start_calculation
        return begin(TABLE.id, SHEETS["never"].id)

    def test_in_the_worker(
        self, name: str, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        operator = self.operator(name)
        self.deferred(operator)
        operator.on_kill()
        assert is_cancelled(server)
        assert "was cancelled" in log()

    def test_in_the_triggerer(
        self, name: str, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        asyncio.run(rebuilt(self.deferred(self.operator(name)).trigger).on_kill())
        assert is_cancelled(server)
        assert "was cancelled" in log()

    def test_a_blip_does_not_keep_the_triggerer_from_it(
        self, name: str, server: LocalPromptLayer
    ) -> None:
        trigger = rebuilt(self.deferred(self.operator(name)).trigger)
        server.script(Reply(503), times=2)
        asyncio.run(trigger.on_kill())
        assert is_cancelled(server)

    def test_a_blip_does_not_keep_the_worker_from_it(
        self, name: str, server: LocalPromptLayer
    ) -> None:
        operator = self.operator(name)
        self.deferred(operator)
        server.script(Reply(503), times=2)
        operator.on_kill()
        assert is_cancelled(server)

    @pytest.mark.parametrize("blips", [0, 1], ids=["in the start", "before it is sent again"])
    def test_while_it_starts(
        self, name: str, blips: int, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow 3 goes on with the task after ``on_kill``, for some seconds."""
        operator = self.operator(name)
        if blips:
            server.script(Reply(503, "{}", {"Retry-After": "0"}), method="POST", times=blips)
        call = operator.hook.call

        def kill_meanwhile(*args: Any) -> Any:
            try:
                return call(*args)
            finally:
                monkeypatch.setattr(operator.hook, "call", call)
                operator.on_kill()

        monkeypatch.setattr(operator.hook, "call", kill_meanwhile)
        with pytest.raises(AirflowException) as ending:
            operator.execute({"ti": FakeTaskInstance(), "run_id": "r"})
        if blips:
            assert "nothing more is started" in str(ending.value)
            assert not STARTS[name].started(server)
        else:
            assert "cancelled" in str(ending.value)
            assert is_cancelled(server)

    @pytest.mark.skipif(not TRIGGERS_ARE_TOLD, reason="this Airflow tells no trigger")
    @pytest.mark.parametrize("reattach", [True, False])
    @pytest.mark.parametrize(
        "state", ["deferred", "running", "queued", None, "gone", "unknown", "failed", "success"]
    )
    def test_in_a_triggerer_only_if_the_task_has_ended(
        self,
        name: str,
        reattach: bool,
        state: str | None,
        server: LocalPromptLayer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It may also have been cleared, or another triggerer has taken its triggers over."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti = FakeTaskInstance()
        operator = self.operator(name, reattach=reattach)
        trigger = rebuilt(self.deferred(operator, task_state_store=Store()).trigger)
        trigger.task_instance = ti

        def states(**of: Any) -> dict[str, Any]:
            assert of == {
                "dag_id": ti.dag_id,
                "task_ids": [ti.task_id],
                "run_ids": [ti.run_id],
                "map_index": ti.map_index,
            }
            if state == "unknown":
                raise TimeoutError
            return {} if state == "gone" else {ti.run_id: {ti.task_id: state}}

        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", states)
        monkeypatch.setattr(version_compat, "ON_KILL_IS_AMBIGUOUS", True)
        for policy in ("ASKING_AIRFLOW", "CANCELLING_IN_TRIGGERER"):
            monkeypatch.setattr(retries, policy, getattr(retries, policy).within(0.5))
        asyncio.run(trigger.on_kill())
        goes_on = ("deferred", "unknown", *(("running", "queued", None) if reattach else ()))
        assert is_cancelled(server) == (state not in goes_on)

    @pytest.mark.parametrize("place", ["worker", "triggerer"])
    def test_what_cannot_be_cancelled_is_said_to_go_on(
        self, name: str, place: str, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        operator = self.operator(name)
        trigger = rebuilt(self.deferred(operator).trigger)
        server.script(Reply(400, "{}"), times=None)
        if place == "worker":
            operator.on_kill()
        else:
            asyncio.run(trigger.on_kill())
        assert "goes on at PromptLayer" in log()
        assert not is_cancelled(server)

    def test_a_signal_handler_reads_no_connection(
        self, name: str, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow's own lock may be held by what the signal has interrupted."""
        operator = self.operator(name)
        self.deferred(operator)
        monkeypatch.setattr(
            type(operator.hook), "get_connection", lambda *_: pytest.fail("would hang")
        )
        operator.on_kill()
        assert is_cancelled(server)

    def test_a_sensor_cancels_nothing(
        self, name: str, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        from support.kinds import KINDS

        kind = KINDS["table operation" if name == "table" else "scorecard calculation"]
        sensor = kind.sensor(task_id="t", **kind.ids(kind.start(server, "never")))
        trigger = rebuilt(self.deferred(sensor).trigger)
        sensor.on_kill()
        asyncio.run(trigger.on_kill())
        assert not is_cancelled(server)
        said = log()
        assert said.count("goes on at PromptLayer") == 1
        assert said.count("was going on when") == 1

    def test_what_has_ended_is_left_alone(self, name: str, server: LocalPromptLayer) -> None:
        """Something else may be under way on the same sheet by then."""
        operator = self.operator(name, **STARTS[name].arguments("good"), deferrable=False)
        operator.execute({"ti": FakeTaskInstance(), "run_id": "r"})
        before = server.count()
        operator.on_kill()
        assert server.count() == before

    def test_a_retry_still_cancels_its_own(self, name: str, server: LocalPromptLayer) -> None:
        store = Store()
        self.deferred(self.operator(name), task_state_store=store)
        second = self.operator(name)
        self.deferred(second, task_state_store=store)
        second.on_kill()
        assert is_cancelled(server)

    def test_is_started_anew_after_it_was_cancelled(
        self, name: str, server: LocalPromptLayer
    ) -> None:
        store = Store()
        operator = self.operator(name)
        self.deferred(operator, task_state_store=store)
        operator.on_kill()
        self.deferred(self.operator(name), task_state_store=store)
        assert len(STARTS[name].started(server)) == 2


@pytest.mark.parametrize("store", [True, False], ids=["store", "no store"])
@pytest.mark.parametrize("name", ["table", "scorecard"])
def test_what_somebody_cancelled_meanwhile_may_be_retried(
    name: str, store: bool, server: LocalPromptLayer
) -> None:
    def cancel() -> None:
        hook = PromptLayerHook()
        if name == "table":
            hook.cancel_table_operation(*_at("never").values(), *server.operations)
        else:
            hook.cancel_scorecard(*_at("never").values())
        hook.close()

    def when_looked_at() -> None:
        server.wait_for(lambda: server.count("GET") > 0, 60)
        cancel()

    somebody = threading.Thread(target=when_looked_at)
    somebody.start()
    ending = run(STARTS[name], "never", Store() if store else None, timeout=60)
    somebody.join()
    assert ending.kind == "failed", ending
    assert "cancelled" in ending.message


class TestKilledButNotItsOwn:
    """What something else has started, or what cannot be cancelled alone."""

    def test_what_others_calculate(self, server: LocalPromptLayer, log: Callable[[], str]) -> None:
        server.start_operation(TABLE.id, SHEETS["never"].id)
        store = Store()
        for _ in range(2):  # the second is a retry
            operator = TestKilled.operator("table")
            trigger = TestKilled.deferred(operator, task_state_store=store).trigger
            operator.on_kill()
            asyncio.run(rebuilt(trigger).on_kill())
        assert not is_cancelled(server)
        assert server.count("DELETE") == 0
        assert log().count(f"calculation of sheet {SHEETS['never'].id} goes on at PromptLayer") == 2

    def test_what_others_calculate_after_another_deferral(self, server: LocalPromptLayer) -> None:
        server.start_operation(TABLE.id, SHEETS["never"].id)
        deferral = TestKilled.deferred(TestKilled.operator("table"))
        event = {"version": 1, "id": SHEETS["never"].id, "outcome": "ended", "message": ""}
        resumed = TestKilled.operator("table")
        with pytest.raises(TaskDeferred) as again:  # it has not ended after all
            resumed.resume_execution(
                "execute_complete", {**deferral.kwargs, "event": event}, {"ti": FakeTaskInstance()}
            )
        resumed.on_kill()
        asyncio.run(rebuilt(again.value.trigger).on_kill())
        assert not is_cancelled(server)

    def test_a_calculation_that_a_newer_one_followed(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        operator = TestKilled.operator("scorecard")
        trigger = TestKilled.deferred(operator).trigger
        server.start_calculation(TABLE.id, SHEETS["never"].id)
        operator.on_kill()
        asyncio.run(rebuilt(trigger).on_kill())
        assert all(one.cancelled_at is None for one in server.calculations.values())
        assert log().count("would be cancelled with it") == 2

    def test_a_report_goes_on(self, server: LocalPromptLayer, log: Callable[[], str]) -> None:
        operator = TestKilled.operator("report")
        trigger = TestKilled.deferred(operator).trigger
        before = server.count()
        operator.on_kill()
        asyncio.run(rebuilt(trigger).on_kill())
        assert server.count() == before
        said = log()
        assert said.count("which cannot cancel it") == 1
        assert said.count("PromptLayer cannot cancel it") == 1


class TestInADag:
    """Templates, mapping and default arguments."""

    @pytest.mark.parametrize("native", [False, True])
    def test_templates(self, native: bool, server: LocalPromptLayer) -> None:
        with DAG(dag_id="d", schedule=None, render_template_as_native_obj=native) as dag:
            table = PromptLayerRunTableOperator(
                task_id="table",
                table_id="{{ table }}",
                sheet_id="{{ sheet }}",
                row_ids="{{ rows }}",
                column_ids=["{{ column }}"],
                statuses="{{ statuses }}" if native else "{{ statuses | tojson }}",
                deferrable=False,
                poke_interval=0.05,
            )
            card = PromptLayerRunScorecardOperator(
                task_id="card",
                table_id="{{ table }}",
                sheet_id="{{ sheet }}",
                row_indices="{{ rows }}",
                fail_on_verdict="{{ verdicts }}" if native else "{{ verdicts | tojson }}",
                min_score="{{ score }}",
                deferrable=False,
                poke_interval=0.05,
            )
            report = PromptLayerRunReportOperator(
                task_id="report",
                report_id="{{ number }}",
                name="{{ ds_nodash }}",
                min_score="{{ score }}",
                deferrable=False,
                poke_interval=0.05,
            )
            sensor = PromptLayerTableOperationSensor(
                task_id="sensor",
                table_id="{{ table }}",
                sheet_id="{{ sheet }}",
                operation_id="{{ number }}",
            )
        context: Any = {
            "table": TABLE.id,
            "sheet": SHEETS["good"].id,
            "rows": [0, 2],
            "column": SHEETS["good"].columns[1].id,
            "statuses": ["STALE", "FAILED"],
            "verdicts": ["fail"],
            "score": 0.5,
            "number": 1,
            "ds_nodash": "20260101",
            "ti": FakeTaskInstance(),
        }
        for operator in (table, card, report, sensor):
            operator.render_template_fields(context, dag.get_template_env())
        assert table.execute(context)["cell_count"] == 2
        assert card.execute(context)["verdict"] == "pass"
        assert report.execute(context)["score"] == 90.0
        (made,) = server.reports.values()
        assert made.name == "20260101"
        assert sensor.get_job(context).id == "1"

    @pytest.mark.parametrize("native", [False, True])
    @pytest.mark.parametrize("name", ["scorecard", "report"])
    def test_a_score_that_renders_to_none_opens_no_gate(
        self, name: str, native: bool, server: LocalPromptLayer
    ) -> None:
        start = STARTS[name]
        with DAG(dag_id="d", schedule=None, render_template_as_native_obj=native) as dag:
            operator = start.operator(
                task_id="t", **start.arguments("good"), min_score="{{ needed }}"
            )
        context: Any = {"needed": None, "ti": FakeTaskInstance()}
        operator.render_template_fields(context, dag.get_template_env())
        with pytest.raises(AirflowException, match="min_score must be a number"):
            operator.execute(context)
        assert server.count() == 0

    def test_a_score_that_is_mapped_to_none_opens_no_gate(self, server: LocalPromptLayer) -> None:
        with DAG(dag_id="d", schedule=None):
            mapped = PromptLayerRunScorecardOperator.partial(
                task_id="t", **_at("bad"), fail_on_verdict=()
            ).expand(min_score=[0.9, None])
        context: Any = {"ti": FakeTaskInstance()}
        with pytest.raises(AirflowException, match="min_score must be a number"):
            mapped.unmap({"min_score": None}).execute(context)
        assert server.count() == 0

    def test_partial_and_default_args(self) -> None:
        with DAG(
            dag_id="d",
            schedule=None,
            default_args={
                "retries": 3,
                "promptlayer_conn_id": "other",
                "fail_on": "never",
                "min_score": 0.5,
            },
        ):
            mapped = PromptLayerRunTableOperator.partial(
                task_id="mapped", table_id=TABLE.id, confirm_large=True
            ).expand(sheet_id=[one.id for one in SHEETS.values()])
            plain = PromptLayerRunScorecardOperator(
                task_id="plain", table_id=TABLE.id, sheet_id=mapped.output
            )
        assert mapped.operator_class is PromptLayerRunTableOperator
        assert mapped.partial_kwargs["confirm_large"] is True
        assert plain.promptlayer_conn_id == "other"
        assert plain.retries == 3
        assert plain.min_score == 0.5

    def test_gates_that_come_from_a_template_are_not_refused_at_parse_time(self) -> None:
        with DAG(dag_id="d", schedule=None):
            first = PromptLayerRunTableOperator(task_id="a", **_at("good"))
            PromptLayerRunScorecardOperator(
                task_id="b", **_at("good"), fail_on_verdict=first.output, min_score="{{ x }}"
            )

    @pytest.mark.parametrize("name", ["table", "report"])
    def test_unknown_fail_on_is_refused_at_parse_time(self, name: str) -> None:
        start = STARTS[name]
        with pytest.raises(PromptLayerInvalidInputError, match="'any_cell', 'all_cells', 'never'"):
            start.operator(task_id="t", **start.arguments("good"), fail_on="any_node")

    def test_mode_reschedule_is_refused(self, start: Start) -> None:
        with pytest.raises(PromptLayerInvalidInputError, match="at each poll"):
            start.operator(
                task_id="t", **start.arguments("good"), mode="reschedule", deferrable=False
            )
