# SPDX-License-Identifier: Apache-2.0
"""The operations and the rows of a sheet."""

from __future__ import annotations

import math

import pytest
from unit.testing.evaluations import (
    ANSWER,
    HERE,
    LARGE,
    NOWHERE,
    PATH,
    REPORTS,
    SHEET,
    TABLE,
    TEXT,
    THERE,
    ask,
    assert_not_found,
    checked,
    started,
)

from airflow_provider_promptlayer.api.cells import SheetCells
from airflow_provider_promptlayer.api.tables import (
    ConfirmationNeeded,
    NothingToDo,
    SheetOperation,
    confirmed,
    recalculate_cells,
)
from airflow_provider_promptlayer.exceptions import PromptLayerRefusedError
from airflow_provider_promptlayer.testing import Column, Reply, Sheet, Table

OPERATIONS = f"{PATH}/operations"


@pytest.fixture
def client(serve):
    return serve(tables=[TABLE], reports=REPORTS)


class TestOperations:
    def test_cells_are_calculated_one_after_the_other(self, client, clock):
        operation_id = started(client)
        seen = []
        for _ in range(5):
            status = ask(client, SheetOperation(*HERE, operation_id).fetch_call())
            seen.append((status.progress, status.is_complete, status.status))
            clock.now += 1.0
        assert seen == [
            ("0 of 4 cells done", False, "running"),
            ("1 of 4 cells done", False, "running"),
            ("2 of 4 cells done", False, "running"),
            ("3 of 4 cells done, 1 failed", False, "running"),
            ("4 of 4 cells done, 1 failed", True, "completed"),
        ]
        (operation,) = client.server.operations.values()
        assert (operation.was_posted, len(operation.cells)) == (True, 4)

    def test_there_is_nothing_to_do_while_and_after_it_is_done(self, client, clock):
        started(client)
        for seconds in (2.5, 60.0):
            clock.now += seconds
            assert ask(client, recalculate_cells(*HERE)) == NothingToDo()
        started(client, statuses=["COMPLETED"], row_ids=[0, 1])
        assert [len(each.cells) for each in client.server.operations.values()] == [4, 2]

    @pytest.mark.parametrize(
        ("selection", "cells"),
        [
            ({"row_ids": [1, 3, 99]}, 2),
            ({"column_ids": [ANSWER.id.upper()]}, 4),
            ({"statuses": []}, 4),
            ({"statuses": ["STALE", "FAILED"]}, 4),
            ({"statuses": ["FAILED"]}, 0),
            (dict.fromkeys(("column_ids", "row_ids", "statuses", "confirmation_token")), 4),
        ],
    )
    def test_a_selection(self, client, selection, cells):
        reply = checked("POST", OPERATIONS, client.post(OPERATIONS, selection))
        assert reply.json["cell_count"] == cells

    def test_active_ones_are_listed(self, client, clock):
        assert ask(client, SheetCells(*HERE).fetch_call()).active_operations == ()
        operation_id = started(client)
        clock.now += 1.5
        state = ask(client, SheetCells(*HERE).fetch_call())
        assert (state.total_cells, state.pending_count) == (8, 3)
        assert state.status_counts == {"COMPLETED": 5, "QUEUED": 2, "RUNNING": 1}
        assert [each.operation_id for each in state.active_operations] == [operation_id]
        clock.now += 60
        assert ask(client, SheetCells(*HERE).fetch_call()).active_operations == ()

    def test_a_large_one_is_confirmed_once_and_for_the_same_cells(self, client):
        def needed(call):
            answer = ask(client, call)
            assert isinstance(answer, ConfirmationNeeded)
            return answer

        whole, part = recalculate_cells(*THERE), recalculate_cells(*THERE, row_ids=range(6))
        first = needed(whole)
        assert first.affected_cell_count == 10
        assert needed(confirmed(part, first)).affected_cell_count == 6
        again = needed(confirmed(whole, first))
        assert client.server.operations == {}
        ask(client, confirmed(whole, again))
        assert len(client.server.operations) == 1

    def test_a_small_one_needs_no_confirmation(self, client):
        started(client, *THERE, row_ids=[0, 1, 2, 3, 4])

    def test_its_execution_ids_lead_to_it(self, client):
        for row in range(2):
            created = client.post(OPERATIONS, {"row_ids": [row], "statuses": []}).json
            (execution_id,) = created["execution_ids"]
            assert execution_id != created["operation_id"]
            found = ask(client, SheetOperation(*HERE, execution_id).fetch_call())
            assert found.operation_id == created["operation_id"]
        assert_not_found(client, SheetOperation(*THERE, execution_id).fetch_call())

    def test_the_status_lags_behind_the_counts(self, client, clock):
        operation_id = started(client, *THERE, row_ids=[0])
        status = ask(client, SheetOperation(*THERE, operation_id).fetch_call())
        assert (status.status, status.is_complete) == ("running", True)
        clock.now += 3
        assert ask(client, SheetOperation(*THERE, operation_id).fetch_call()).status == "completed"

    def test_a_cancelled_one_keeps_its_cells(self, client, clock):
        operation_id = started(client)
        clock.now += 1.5
        cancel = SheetOperation(*HERE, operation_id).cancel_call()
        assert ask(client, cancel).cancelled_cell_count == 3
        clock.now += 60
        status = ask(client, SheetOperation(*HERE, operation_id).fetch_call())
        assert (status.status, status.is_complete) == ("cancelled", True)
        assert status.progress == "1 of 4 cells done, cancelled"
        assert ask(client, cancel).cancelled_cell_count == 0
        assert ask(client, recalculate_cells(*HERE)).cell_count == 3

    @pytest.mark.parametrize(
        ("column", "status", "pending"),
        [
            (Column("A", cell_duration=math.inf), "running", 2),
            (Column("A", failing_rows=[0, 1]), "failed", 0),
        ],
        ids=["never ends", "all fail"],
    )
    def test_other_endings(self, serve, clock, column, status, pending):
        table = Table("T", [Sheet("S", [column], row_count=2)])
        where = table.id, table.sheets[0].id
        client = serve(tables=[table])
        operation_id = started(client, *where)
        clock.now += 1e9
        found = ask(client, SheetOperation(*where, operation_id).fetch_call())
        assert (found.status, found.pending_count) == (status, pending)

    def test_an_unknown_one_is_404(self, client):
        assert_not_found(
            client,
            recalculate_cells(NOWHERE, SHEET.id),
            recalculate_cells(TABLE.id, NOWHERE),
            recalculate_cells(*HERE, column_ids=[NOWHERE]),
            SheetOperation(*HERE, "nope/../?").fetch_call(),
            SheetOperation(*THERE, started(client)).fetch_call(),
            SheetCells(NOWHERE, NOWHERE).fetch_call(),
            SheetOperation(NOWHERE, NOWHERE, "x").cancel_call(),
        )

    def test_text_cannot_be_recalculated(self, client):
        with pytest.raises(PromptLayerRefusedError, match="Text columns cannot be recalculated"):
            ask(client, recalculate_cells(*HERE, column_ids=[TEXT.id]))

    @pytest.mark.parametrize("acted_on", [False, True])
    def test_a_cancellation_that_meets_a_fault(self, client, acted_on):
        operation_id = started(client)
        client.server.script(Reply(502, ""), method="DELETE", acted_on=acted_on)
        client.send("DELETE", f"{OPERATIONS}/{operation_id}")
        operation = client.server.operations[operation_id]
        assert (operation.cancelled_at is not None) is acted_on


class TestRows:
    ROWS = f"{PATH}/rows"

    def get(self, client, path):
        reply = checked("GET", path, client.get(path))
        assert reply.status == 200, reply.json
        return reply.json

    def test_each_cell_has_its_status(self, client, clock):
        started(client, row_ids=[0, 2, 3])
        clock.now += 2.5
        page = self.get(client, self.ROWS)
        statuses = {row["row_index"]: row["cells"][ANSWER.id]["status"] for row in page["data"]}
        assert statuses == {0: "completed", 1: "stale", 2: "error", 3: "running"}
        assert {row["cells"][TEXT.id]["status"] for row in page["data"]} == {"completed"}
        types = {column["id"]: column["type"] for column in page["columns"]}
        assert types == {TEXT.id: "TEXT", ANSWER.id: "PROMPT_TEMPLATE"}
        assert page["next_cursor"] is None

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_page_by_page(self, client, order):
        path = self.ROWS.replace(SHEET.id, LARGE.id)
        found, cursor = [], ""
        for number in range(4):
            page = self.get(client, f"{path}?limit=3&order={order}{cursor}")
            found += [row["row_index"] for row in page["data"]]
            assert ("columns" in page) is (number == 0)
            assert page["row_count"] == 10
            assert page["has_more"] is (page["next_cursor"] is not None) is (number < 3)
            paging = {"next_cursor": page["next_cursor"], "has_more": page["has_more"]}
            assert page["pagination"] == {**paging, "prev_cursor": None, "limit": 3}
            cursor = f"&cursor={page['next_cursor']}"
        assert found == sorted(range(10), reverse=order == "desc")

    @pytest.mark.parametrize(
        ("query", "has"),
        [
            ("", {"columns", "row_count"}),
            ("include_columns=false&include_row_count=false", set()),
            ("include_columns=False&include_row_count=off", set()),
            ("include_system_columns=True&include_row_count=1", {"columns", "row_count"}),
            (
                "include_execution_metadata_aggregates=true",
                {"columns", "row_count", "execution_metadata_aggregates"},
            ),
        ],
    )
    def test_optional_parts(self, client, query, has):
        page = self.get(client, f"{self.ROWS}?{query}")
        optional = {"columns", "row_count", "execution_metadata_aggregates"}
        assert page.keys() & optional == has
