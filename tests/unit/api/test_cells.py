# SPDX-License-Identifier: Apache-2.0
"""Rows: the bytes of a request, what an answer means, and the count of some of the cells."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from unit.api.answers import NOW, OTHER, SHEET, TABLE, answer

from airflow_provider_promptlayer.api.cells import (
    Row,
    Rows,
    SelectedCells,
    Selection,
    calculated_elsewhere,
    selected_cells,
    sheet_rows,
)
from airflow_provider_promptlayer.api.flow import CallFlow
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
)

TEXT, REFERENCE, A = (f"aaaaaaaa-0000-4000-8000-00000000000{n}" for n in range(3))
B = OTHER
PATH = f"/api/public/v2/tables/{TABLE}/sheets/{SHEET}"
COLUMNS = [
    {"id": TEXT, "type": "TEXT"},
    {"id": REFERENCE.upper(), "type": "composition"},
    {"id": A.upper(), "type": "PROMPT_TEMPLATE"},
    {"id": B, "type": "llm_assertion"},
]


def row(number: int, a: str = "completed", b: str = "completed") -> dict[str, Any]:
    statuses = {TEXT: "completed", REFERENCE: "completed", A: a, B: b}
    cells = {key: {"status": status, "value": "x"} for key, status in statuses.items()}
    return {"row_index": number, "cells": cells}


def page(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"data": list(rows), "next_cursor": None, "has_more": False, "columns": COLUMNS, **more}


def read(body: Any) -> Rows:
    return sheet_rows(TABLE, SHEET).read(answer(200, body), NOW)


def hold(flow: CallFlow[Any], *bodies: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return what a talk comes to, and the targets that it asked for, given all the answers."""
    asked: list[str] = []
    rest = list(bodies)
    try:
        call: Call[Any] = next(flow)
        while True:
            asked.append(call.request.path)
            call = flow.send(call.read(answer(200, rest.pop(0)), NOW))
    except StopIteration as end:
        assert not rest
        return end.value, asked


def selection(column_ids: Any = None, row_ids: Any = None) -> Selection:
    return Selection.of(TABLE, SHEET, column_ids, row_ids)


# One page


def test_the_first_page_describes_the_columns_and_the_others_do_not() -> None:
    request = sheet_rows(TABLE.upper(), SHEET).request
    assert (request.method, request.body) == ("GET", None)
    assert request.path == f"{PATH}/rows?limit=100&include_row_count=false&include_columns=true"
    request = sheet_rows(TABLE, SHEET, cursor="a b&c=ü/\ud800").request
    assert "include_columns" not in request.path
    query = parse_qs(urlsplit(request.path).query, errors="surrogatepass")
    assert query["cursor"] == ["a b&c=ü/\ud800"]
    assert request.path.isascii()


@pytest.mark.parametrize("bad", ["x", None])
def test_ids_that_are_none(bad: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="table_id must be a UUID"):
        sheet_rows(bad, SHEET)
    with pytest.raises(PromptLayerInvalidInputError, match="sheet_id must be a UUID"):
        sheet_rows(TABLE, bad)
    with pytest.raises(PromptLayerInvalidInputError, match=r"column_ids\[0\] must be a UUID"):
        selection([bad])


def test_statuses_are_all_that_is_kept() -> None:
    cells = {A.upper(): {"status": " ERROR", "value": {"a": ["secret"]}}, B: {"status": None}}
    found = read(page({"row_index": 7, "cells": cells}, columns=None))
    assert found == Rows((Row(7, {A: "error", B: None}),), None, None)
    types = read(page()).column_types
    assert types == {
        TEXT: "TEXT",
        REFERENCE: "COMPOSITION",
        A: "PROMPT_TEMPLATE",
        B: "LLM_ASSERTION",
    }


@pytest.mark.parametrize(
    ("fields", "cursor"),
    [
        ({"next_cursor": "c", "has_more": True}, "c"),
        ({"next_cursor": "c", "has_more": None}, "c"),
        ({"next_cursor": "c", "has_more": False}, None),
        ({"next_cursor": "", "has_more": None}, None),
        ({}, None),
    ],
)
def test_the_cursor(fields: dict[str, Any], cursor: str | None) -> None:
    assert read(page(**fields)).next_cursor == cursor


def full(**paging: Any) -> dict[str, Any]:
    """Return a page of as many rows as were asked for."""
    return {"data": [row(number) for number in range(100)], "columns": COLUMNS, **paging}


@pytest.mark.parametrize(
    ("paging", "cursor"),
    [
        ({"pagination": {"next_cursor": "c"}}, "c"),
        ({"pagination": {"next_cursor": "c", "has_more": True}}, "c"),
        ({"pagination": {"next_cursor": "c", "has_more": False}}, None),
        ({"pagination": {"next_cursor": None, "has_more": False}}, None),
        ({"pagination": None, "next_cursor": "c"}, "c"),
        ({"has_more": False}, None),
        # Either place may be the one that is filled in.
        ({"next_cursor": None, "pagination": {"next_cursor": "c"}}, "c"),
        ({"has_more": False, "pagination": {"next_cursor": "c", "has_more": True}}, "c"),
        ({"has_more": True, "pagination": {"next_cursor": "c"}}, "c"),
        ({"next_cursor": "c", "pagination": {"next_cursor": None, "has_more": False}}, "c"),
        ({"next_cursor": "c", "pagination": {"next_cursor": "c"}}, "c"),
    ],
)
def test_the_cursor_may_be_in_either_place(paging: dict[str, Any], cursor: str | None) -> None:
    assert read(full(**paging)).next_cursor == cursor


@pytest.mark.parametrize(
    "paging",
    [
        {},
        {"next_cursor": None},
        {"next_cursor": "", "has_more": None},
        {"pagination": {}},
        {"pagination": {"next_cursor": None}},
    ],
)
def test_a_full_page_is_not_the_last_unless_it_says_so(paging: dict[str, Any]) -> None:
    """Else a sheet that pages in a third way would be judged by its first rows."""
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="whether more follow"):
        read(full(**paging))
    body = full(**paging)
    body["data"].pop()
    assert read(body).next_cursor is None


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ([], "is not a JSON object"),
        (page(data=None), "has no list of data"),
        (page(data=[1]), "has no list of data"),
        (page({"row_index": 1}), "has no cells"),
        (page({"row_index": 1, "cells": []}), "has no cells"),
        (page({"row_index": 1, "cells": {A: None}}), f"has no {A}"),
        (page({"row_index": 1, "cells": {A: {"status": 5}}}), "has a status that is no text"),
        (page({"row_index": -1, "cells": {}}), "has no row_index"),
        (page({"row_index": True, "cells": {}}), "has no row_index"),
        (page({"cells": {}}), "has no row_index"),
        (page(next_cursor=3), "has a next_cursor that is no text"),
        (page(has_more=True), "has more rows and no next_cursor"),
        (page(pagination={"has_more": True}), "has more rows and no next_cursor"),
        (page(pagination={"next_cursor": 3}), "has a next_cursor that is no text"),
        (page(pagination=["c"]), "has no pagination"),
        (
            page(next_cursor="b", has_more=True, pagination={"next_cursor": "c"}),
            "has two different values of next_cursor",
        ),
        (page(columns={}), "has no list of columns"),
        (page(columns=[{"id": A}]), "has no type"),
    ],
)
def test_a_page_that_is_none(body: Any, problem: str) -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError, match=f"{problem}; it begins"):
        read(body)


def test_a_sheet_that_is_not_there() -> None:
    with pytest.raises(PromptLayerNotFoundError):
        sheet_rows(TABLE, SHEET).read(answer(404, {"message": "Sheet not found"}), NOW)


# Some of the cells


def test_a_selection_as_it_is_given() -> None:
    assert selection(f"['{A.upper()}']", "[1, 2]") == selection([UUID(A)], {2, 1})


@pytest.mark.parametrize(
    ("column_ids", "row_ids", "cells"),
    [
        (None, None, SelectedCells(completed=2, failed=2, stale=1, cancelled=1, other=2)),
        ([A], None, SelectedCells(completed=1, failed=2, stale=1)),
        ([A, B], [0, 3], SelectedCells(completed=1, stale=1, cancelled=1, other=1)),
        ([TEXT], [0, 2], SelectedCells(completed=2)),
        (None, [99], SelectedCells()),
        ([TABLE], None, SelectedCells()),
    ],
)
def test_the_cells_of_a_selection_alone_are_counted(
    column_ids: Any, row_ids: Any, cells: SelectedCells
) -> None:
    first = page(row(0, b="cancelled"), row(1, "error"), next_cursor="c", has_more=True)
    last = page(row(2, "FAILED", "new word"), row(3, "stale", ""), columns=None)
    found, _ = hold(selected_cells(selection(column_ids, row_ids)), first, last)
    assert found == cells


def test_the_pages_follow_each_other_by_their_cursors() -> None:
    first = page(row(0), next_cursor="c/1", has_more=True)
    _, asked = hold(selected_cells(selection()), first, page(columns=None))
    assert [target.partition("cursor=")[2] for target in asked] == ["", "c%2F1"]


@pytest.mark.parametrize("status", ["queued", "running", "dispatched", "RUNNING"])
def test_a_pending_cell_is_enough_to_know(status: str) -> None:
    more = {"next_cursor": "c", "has_more": True}
    found, asked = hold(selected_cells(selection()), page(row(0, "error", status), **more))
    assert (found.pending, found.failed, len(asked)) == (1, 1, 1)
    # Unless it is no cell of the selection.
    found, asked = hold(
        selected_cells(selection([A])), page(row(0, "error", status), **more), page()
    )
    assert (found.pending, found.failed, len(asked)) == (0, 1, 2)


def test_no_page_after_the_last_row_of_the_selection() -> None:
    more = {"next_cursor": "c", "has_more": True}
    found, asked = hold(selected_cells(selection(None, [1, 0])), page(row(0), row(1), **more))
    assert (found.completed, len(asked)) == (4, 1)


@pytest.mark.parametrize(
    ("rows", "cursors"),
    [
        ([[0], [1], [2]], "aba"),
        ([[0], [0]], "ab"),  # ever new cursors, and no new rows
        ([[0], [2, 1], [1, 2]], "abc"),
        ([[0], []], "ab"),
    ],
)
def test_pages_that_lead_back(rows: list[list[int]], cursors: str) -> None:
    pages = [
        page(*map(row, numbers), next_cursor=cursor, has_more=True)
        for numbers, cursor in zip(rows, cursors, strict=True)
    ]
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="the pages lead back"):
        hold(selected_cells(selection()), *pages)


def test_a_row_that_is_on_two_pages_counts_once() -> None:
    first = page(row(0), row(1, "error"), next_cursor="c", has_more=True)
    found, _ = hold(selected_cells(selection()), first, page(row(1, "error"), row(2)))
    assert found == SelectedCells(completed=5, failed=1)


def test_columns_of_which_nobody_says_what_they_are() -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="without columns"):
        hold(selected_cells(selection()), page(columns=None))
    found, _ = hold(selected_cells(selection([A])), page(row(0), columns=None))
    assert found == SelectedCells(completed=1)


def test_the_counts_in_a_line() -> None:
    assert SelectedCells(2, 1, 0, 3, 4).progress == "3 of 10 cells done, 1 failed"
    assert SelectedCells(2).progress == "2 of 2 cells done"


# What to wait for


def operations(*operations: tuple[str, str, int]) -> dict[str, Any]:
    return {
        "total_cells": 9,
        "status_counts": {},
        "pending_count": 3,
        "active_operations": [
            {
                "operation_id": name,
                "status": status,
                "cell_count": 9,
                "completed_count": 9 - pending,
                "failed_count": 0,
                "pending_count": pending,
            }
            for name, status, pending in operations
        ],
    }


PENDING = page(row(0, "running"))


def test_the_operation_that_may_be_over_first_is_waited_for() -> None:
    listed = operations(("large", "running", 5), ("small", "running", 2), ("over", "running", 0))
    (cells, operation), _ = hold(calculated_elsewhere(selection()), PENDING, listed)
    assert (cells.pending, operation.operation_id) == (1, "small")
    flow = calculated_elsewhere(selection(), not_for={"small"})
    (_, operation), _ = hold(flow, PENDING, listed)
    assert operation.operation_id == "large"


def test_nothing_is_waited_for_where_nothing_is_pending() -> None:
    flow = calculated_elsewhere(selection([A]))
    assert hold(flow, page(row(0, "error", "running")))[0] == (SelectedCells(failed=1), None)


def test_an_operation_that_ends_between_two_answers() -> None:
    flow = calculated_elsewhere(selection())
    (cells, operation), _ = hold(flow, PENDING, operations(), page(row(0)))
    assert (cells, operation) == (SelectedCells(completed=2), None)


@pytest.mark.parametrize("listed", [[], [("over", "running", 0)], [("ended", "running", 3)]])
def test_pending_cells_of_no_operation(listed: list[tuple[str, str, int]]) -> None:
    flow = calculated_elsewhere(selection(), not_for={"ended"})
    with pytest.raises(PromptLayerTransientError, match=r"1 at least.*no operation to wait for"):
        hold(flow, PENDING, operations(*listed), PENDING, operations(*listed))
