# SPDX-License-Identifier: Apache-2.0
"""Recalculating the cells of a sheet: what is selected, what counts as a failure, what is retried.

At servers with ``by_polls`` a second passes with each poll, so a cell of one second is calculated
between two polls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from support.arguments import AT_RUN_TIME
from support.clocks import timed_by_polls
from support.kinds import SHEETS, Fate, Serve, at, sheet
from support.modes import Ending, FakeTaskInstance, Store
from support.starts import RUN_TABLE, deferred

from airflow_provider_promptlayer.testing import (
    Close,
    Column,
    LocalPromptLayer,
    Reply,
    Sheet,
    Table,
)

TAKES_FAILED = '["STALE", "FAILED"]'
COLUMN = SHEETS["good"].columns[1].id


def run(fate: Fate = "good", store: Store | None = None, **arguments: Any) -> Ending:
    return RUN_TABLE.run(store, fate, **arguments)


def of_sheet(only: Sheet, *, by_polls: bool = False) -> LocalPromptLayer:
    return (timed_by_polls if by_polls else LocalPromptLayer)(tables=[Table("Table", [only])])


def are_cancelled(server: LocalPromptLayer) -> list[bool]:
    return [operation.cancelled_at is not None for operation in server.operations.values()]


class TestSelection:
    @pytest.mark.parametrize(
        ("selection", "cells"),
        [
            ({"row_ids": "[0, 2]"}, 2),
            ({"row_ids": (1,)}, 1),
            ({"column_ids": [COLUMN]}, 3),
            ({"statuses": '["FAILED"]'}, 0),
        ],
        ids=str,
    )
    def test_is_calculated(self, selection: Any, cells: int, server: LocalPromptLayer) -> None:
        ending = run(**selection)
        assert (ending.kind, ending.value["cell_count"]) == ("success", cells), ending


class TestClearing:
    def test_makes_no_success_of_failed_cells(self, server: LocalPromptLayer) -> None:
        store = Store()
        for number in (1, 2, 3):
            ending = run("bad", store, number=number, max_tries=1 + number)
            assert ending.kind == "failed for good", ending
            assert "1 failed" in ending.message
        assert len(server.operations) == 1

    @pytest.mark.parametrize(
        ("rows", "operations"), [([0, 1], 1), ({0, 1}, 1), ("[0, 1]", 1), ([2], 2)], ids=str
    )
    def test_goes_back_to_the_same_selection_alone(
        self, server: LocalPromptLayer, rows: Any, operations: int
    ) -> None:
        store, column = Store(), SHEETS["never"].columns[1].id
        first: dict[str, Any] = {"column_ids": [UUID(column)], "row_ids": [0, 1]}
        then: dict[str, Any] = {"column_ids": [column.upper()], "row_ids": rows}
        run("never", store, timeout=0.1, **first)
        run("never", store, number=2, max_tries=3, timeout=0.1, **then)
        # The operation to which no try goes back is cancelled.
        assert are_cancelled(server) == [True, False][2 - operations :]

    def test_for_another_sheet_cancels_on_the_old_one(self, server: LocalPromptLayer) -> None:
        store = Store()
        deferred(RUN_TABLE.make("never"), store)
        server.script(Reply(503), method="DELETE", times=1)
        run("good", store, number=2, max_tries=3)
        assert are_cancelled(server) == [True, False]

    def test_for_what_cannot_be_sent_ends_nothing(self, server: LocalPromptLayer) -> None:
        store = Store()
        deferred(RUN_TABLE.make("never"), store)
        ending = run("never", store, number=2, max_tries=3, row_ids=["x"], **AT_RUN_TIME)
        assert ending.kind == "failed for good"
        assert are_cancelled(server) == [False]


class TestFailedCells:
    @pytest.mark.parametrize(
        ("asked", "kind"),
        [
            ({"statuses": []}, "failed for good"),  # a retry would bill what has succeeded again
            ({"fail_on": "all_cells"}, "success"),
        ],
        ids=str,
    )
    def test_count_by_fail_on(
        self, asked: dict[str, Any], kind: str, server: LocalPromptLayer
    ) -> None:
        ending = run("bad", **asked)
        assert ending.kind == kind, ending
        if kind == "success":
            assert (ending.value["completed_count"], ending.value["failed_count"]) == (2, 1)

    def test_are_taken_up_by_a_retry_that_selects_them(
        self, store: Store | None, server: LocalPromptLayer
    ) -> None:
        for number in (1, 2):
            assert run("bad", store, number=number, statuses=TAKES_FAILED).kind == "failed"
        first, second = server.operations.values()
        assert (len(first.cells), len(second.cells)) == (3, 1)

    @pytest.mark.parametrize(
        ("status", "failed", "asked", "kind"),
        [
            ("failed", 0, {}, "failed"),
            ("failed", 0, {"fail_on": "never"}, "failed"),
            # A retry would bill the cells again that have succeeded.
            ("failed", 0, {"statuses": []}, "failed for good"),
            # A retry would calculate the others alone, and be a success.
            ("failed", 1, {}, "failed for good"),
            ("cancelled", 1, {}, "failed for good"),
            ("failed", 1, {"fail_on": "never"}, "failed"),
            ("cancelled", 1, {"fail_on": "never"}, "failed"),
            ("cancelled", 1, {"fail_on": "all_cells"}, "failed"),
            ("cancelled", 1, {"statuses": TAKES_FAILED}, "failed"),
        ],
        ids=str,
    )
    def test_of_an_operation_that_broke_off(
        self,
        status: str,
        failed: int,
        asked: dict[str, Any],
        kind: str,
        server: LocalPromptLayer,
    ) -> None:
        broke_off = {
            "operation_id": "op",
            "status": status,
            "cell_count": 3,
            "completed_count": 1,
            "failed_count": failed,
            "pending_count": 0,
        }
        answer = Reply.of_json({"success": True, "operation": broke_off})
        server.script(
            lambda request: answer if "/operations/" in request.raw_path else None, times=None
        )
        store = Store()
        ending = run(store=store, **asked)
        assert ending.kind == kind, ending
        run(store=store, number=2, **asked)  # also as after a crash
        assert server.count("POST") == (2 if kind == "failed" else 1)


A = Column("A", cell_duration=1.0, failing_rows=[0])
B = Column("B", cell_duration=1.0)
HERE = at("good")
ALL_DONE = {
    "total_cells": 12,
    "pending_count": 0,
    "status_counts": {"COMPLETED": 12},
    "active_operations": [],
}


class TestNothingLeftToStart:
    """The counts of the sheet decide, whoever calculates its cells."""

    @pytest.fixture
    def server(self, serve: Serve) -> LocalPromptLayer:
        columns = [Column("Question", type="TEXT"), A, B]
        return serve(of_sheet(sheet("good", columns=columns, row_count=4), by_polls=True))

    @staticmethod
    def begin(server: LocalPromptLayer, column: Column, *rows: int) -> str:
        return server.start_operation(**HERE, column_ids=[column.id], row_ids=rows or None)

    def test_is_a_success_that_says_so(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        run(column_ids=[B.id])
        before = server.count()
        ending = run(column_ids=[B.id])
        assert (ending.kind, ending.value["cell_count"]) == ("success", 0), ending
        assert ending.value["operation_id"] is None
        assert ending.xcoms == {"promptlayer_operation_id": None}
        assert "nothing to do" in log()
        assert len(server.operations) == 1
        assert server.count() - before == 2  # the start, and the counts of an idle sheet

    @pytest.mark.parametrize(
        ("fail_on", "kind"),
        [("any_cell", "failed for good"), ("all_cells", "failed for good"), ("never", "success")],
    )
    def test_is_no_success_where_cells_have_failed(
        self, fail_on: str, kind: str, serve: Serve
    ) -> None:
        """Text is no calculated cell that has succeeded."""
        columns = [Column("Question", type="TEXT"), replace(A, cell_duration=0)]
        server = serve(of_sheet(sheet("good", columns=columns, row_count=1)))
        for rows in (None, None, [0]):
            ending = run(fail_on=fail_on, row_ids=rows)
            assert ending.kind == kind, ending
        assert kind == "success" or "cells failed (2 of 2 cells done, 1 failed)" in ending.message
        assert kind == "success" or "statuses=['STALE', 'FAILED']" in ending.message
        assert len(server.operations) == 1

    @pytest.mark.parametrize(("statuses", "kind"), [(None, "failed"), (["FAILED"], "success")])
    def test_waits_until_no_cell_is_pending(
        self, server: LocalPromptLayer, statuses: list[str] | None, kind: str, deferrable: bool
    ) -> None:
        """A stale cell may be one of those that were to be calculated: the counts do not tell."""
        self.begin(server, B)
        self.begin(server, A, 1, 2, 3)
        ending = run(column_ids=[A.id], row_ids=[1], statuses=statuses, deferrable=deferrable)
        assert ending.kind == kind, ending
        assert kind == "success" or "1 were left by what had begun" in ending.message
        now = server.count("GET")
        assert {one.status(now) for one in server.operations.values()} == {"completed"}
        assert server.count("DELETE") == 0

    def test_counts_of_what_others_have_calculated(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        self.begin(server, B)
        self.begin(server, A)
        ending = run(fail_on="never", deferrable=deferrable)
        assert ending.kind == "success", ending
        assert ending.value == {
            "operation_id": None,
            "status": "nothing to do",
            "cell_count": 12,
            "completed_count": 11,
            "failed_count": 1,
        }
        assert ending.xcoms == {"promptlayer_operation_id": None}

    def test_is_no_success_where_cells_fail_meanwhile(self, server: LocalPromptLayer) -> None:
        self.begin(server, B)
        self.begin(server, A)
        server.script(Reply(503), method="GET", times=3)  # which is ridden out
        ending = run(fail_on="all_cells")
        assert ending.kind == "failed for good", ending
        assert "12 of 12 cells done, 1 failed" in ending.message

    def test_pending_cells_of_no_operation_are_no_success(self, server: LocalPromptLayer) -> None:
        self.begin(server, A)
        self.begin(server, B)
        server.script(Reply.of_json({**ALL_DONE, "pending_count": 3}), method="GET", times=None)
        ending = run(timeout=0.2, fail_on="never")
        assert ending.kind == "timeout", ending
        assert f"calculation of sheet {HERE['sheet_id']} did not end" in ending.message

    def test_cells_that_others_gave_up_may_be_retried(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        assert run(column_ids=[A.id], row_ids=[1, 2, 3]).kind == "success"
        operation_id = self.begin(server, B)

        def give_up(request: Any) -> None:
            if request.method == "GET" and server.count("GET") >= polls + 2:
                server.cancel_operation(operation_id)

        polls = server.count("GET")
        server.script(give_up, times=None)
        asked: dict[str, Any] = {"column_ids": [B.id], "fail_on": "never", "store": Store()}
        ending = run(deferrable=deferrable, **asked)
        assert ending.kind == "failed", ending
        assert "were left by what had begun" in ending.message
        server.clear_scripts()
        retried = run(number=2, **asked)
        assert (retried.kind, retried.value["cell_count"]) == ("success", 2)
        assert len(server.operations) == 3

    def test_cells_that_others_gave_up_during_an_outage_are_no_success(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        operation_id = self.begin(server, B)

        def give_up(request: Any) -> Reply:
            server.cancel_operation(operation_id)
            return Reply(503)

        server.script(give_up, method="GET")
        ending = run(column_ids=[B.id], fail_on="never", deferrable=deferrable)
        assert ending.kind == "failed", ending
        assert "were left by what had begun" in ending.message

    def test_a_retry_takes_up_cells_that_failed_elsewhere(self, server: LocalPromptLayer) -> None:
        asked: dict[str, Any] = {"column_ids": [A.id], "statuses": '["FAILED"]', "store": Store()}
        self.begin(server, A)
        for number in (1, 2):
            assert run(number=number, **asked).kind == "failed"
        assert len(server.operations) == server.count("POST") == 2

    def test_an_outage_may_be_retried_as_nothing_was_started(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        self.begin(server, A)
        server.script(Reply(503), method="GET", times=None)
        ending = run(column_ids=[A.id], max_outage=0.1, deferrable=deferrable)
        assert ending.kind == "failed", ending

    def test_without_waiting(self, server: LocalPromptLayer) -> None:
        self.begin(server, A)
        ending = run(column_ids=[A.id], wait_for_completion=False)
        assert (ending.kind, ending.value["status"]) == ("success", "nothing to do")
        assert ending.xcoms == {"promptlayer_operation_id": None}

    def test_is_resumed_without_its_notes(self, server: LocalPromptLayer) -> None:
        """As ``dag.test()`` resumes a task: with the event and the XComs alone."""
        self.begin(server, A)
        self.begin(server, B)
        ti = FakeTaskInstance()
        deferred(RUN_TABLE.make(), ti=ti)
        event = {"version": 1, "id": HERE["sheet_id"], "outcome": "ended", "message": ""}
        server.script(Reply.of_json(ALL_DONE), method="GET", times=None)
        value = RUN_TABLE.make().resume_execution("execute_complete", {"event": event}, {"ti": ti})
        assert value["completed_count"] == 12


class TestNothingStale:
    """A new version of a prompt makes no cell stale, so the outputs of the night before stay."""

    @pytest.mark.parametrize("statuses", [None, TAKES_FAILED, ["STALE"]], ids=str)
    @pytest.mark.parametrize("waits", [True, False])
    def test_is_warned_of(
        self, statuses: Any, waits: bool, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        run()
        assert "No cell was calculated" not in log()
        ending = run(statuses=statuses, wait_for_completion=waits)
        assert (ending.kind, ending.value["cell_count"]) == ("success", 0), ending
        assert log().count("A new version of a prompt or a workflow") == 1

    @pytest.mark.parametrize("statuses", [["FAILED"], ["COMPLETED", "STALE"], "all"], ids=str)
    def test_is_no_matter_where_others_are_selected(
        self, statuses: Any, serve: Serve, log: Callable[[], str]
    ) -> None:
        serve(of_sheet(sheet("good", row_count=0)))
        assert run(statuses=statuses).value["status"] == "nothing to do"
        assert "No cell was calculated" not in log()

    @pytest.mark.parametrize("statuses", ["all", " ALL ", []], ids=str)
    def test_all_calculates_every_cell_again(self, statuses: Any, server: LocalPromptLayer) -> None:
        for _ in range(2):
            ending = run(statuses=statuses)
            assert (ending.kind, ending.value["cell_count"]) == ("success", 3), ending


class TestLargeTable:
    """PromptLayer asks before it calculates many cells."""

    @pytest.fixture
    def server(self, serve: Serve) -> LocalPromptLayer:
        return serve(of_sheet(sheet("good", confirm_above=2)))

    def test_is_not_started_unless_confirmed(self, server: LocalPromptLayer) -> None:
        store = Store()
        ending = run(store=store)
        assert ending.kind == "failed for good"
        assert "covers 3 cells" in ending.message
        assert "confirm_large=True" in ending.message
        assert (server.operations, store) == ({}, {})

    def test_is_confirmed(self, server: LocalPromptLayer) -> None:
        ending = run(confirm_large=True)
        assert (ending.kind, ending.value["cell_count"]) == ("success", 3)
        assert server.count("POST") == 2

    def test_is_not_confirmed_for_ever(self, server: LocalPromptLayer) -> None:
        answer = {
            "success": False,
            "requires_confirmation": True,
            "confirmation_token": "t",
            "affected_cell_count": 3,
        }
        server.script(Reply.of_json(answer), method="POST", times=None)
        ending = run(confirm_large=True)
        assert ending.kind == "failed for good"
        assert "although one was sent" in ending.message
        assert server.count("POST") == 2

    def test_a_lost_answer_to_the_confirmation(self, server: LocalPromptLayer) -> None:
        server.script(Close(), method="POST", acted_on=True, after=1)
        ending = run(confirm_large=True, store=Store())
        assert ending.kind == "failed for good"
        assert len(server.operations) == 1
        assert server.count("POST") == 2
