# SPDX-License-Identifier: Apache-2.0
"""Tables: the bytes of a request, and what each answer means."""

from __future__ import annotations

from collections import UserList
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from unit.api.answers import NOW, OTHER, SHEET, TABLE, answer, body_of, check_start_rules

from airflow_provider_promptlayer.api.cells import sheet_operations
from airflow_provider_promptlayer.api.tables import (
    CancelledOperation,
    ConfirmationNeeded,
    NothingToDo,
    QueuedOperation,
    TableOperation,
    cancel_table_operation,
    recalculate_cells,
    table_operation,
    unconfirmed,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerRefusedError,
    PromptLayerUnexpectedAnswerError,
)

PATH = f"/api/public/v2/tables/{TABLE}/sheets/{SHEET}/operations"
OPERATION: dict[str, Any] = {
    "operation_id": "op-1",
    "operation": "recalculate",
    "status": "running",
    "status_counts": {"COMPLETED": 35, "FAILED": 2, "QUEUED": 83},
    "cell_count": 120,
    "completed_count": 35,
    "failed_count": 2,
    "pending_count": 83,
    "status_url": "/x",
}


def poll(**fields: Any) -> TableOperation:
    operation = {**OPERATION, **fields}
    operation = {name: value for name, value in operation.items() if value is not ...}
    body = {"success": True, "operation": operation}
    return table_operation(TABLE, SHEET, "op-1").read(answer(200, body), NOW)


# Starting: the request


def test_a_start_asks_for_no_more_than_was_said() -> None:
    call = recalculate_cells(TABLE.upper(), f" {SHEET} ")
    assert (call.request.method, call.request.path) == ("POST", PATH)
    assert body_of(call) == {"operation": "recalculate"}


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"column_ids": [OTHER.upper(), UUID(TABLE)]}, {"column_ids": [OTHER, TABLE]}),
        ({"column_ids": f'["{OTHER}"]'}, {"column_ids": [OTHER]}),
        ({"column_ids": f"['{OTHER}', '{TABLE}']"}, {"column_ids": [OTHER, TABLE]}),
        ({"column_ids": UserList([OTHER])}, {"column_ids": [OTHER]}),
        ({"row_ids": [0, "7"]}, {"row_ids": [0, 7]}),
        ({"row_ids": "[0, 7]"}, {"row_ids": [0, 7]}),
        ({"row_ids": range(3)}, {"row_ids": [0, 1, 2]}),
        ({"row_ids": (1,)}, {"row_ids": [1]}),
        ({"row_ids": {3}}, {"row_ids": [3]}),
        ({"statuses": ["stale", " FAILED "]}, {"statuses": ["STALE", "FAILED"]}),
        ({"statuses": '["FAILED"]'}, {"statuses": ["FAILED"]}),
        ({"statuses": []}, {"statuses": []}),
        ({"statuses": "[]"}, {"statuses": []}),
        ({"confirmation_token": "t"}, {"confirmation_token": "t"}),
    ],
)
def test_a_selection_as_it_is_sent(arguments: dict[str, Any], sent: dict[str, Any]) -> None:
    body = body_of(recalculate_cells(TABLE, SHEET, **arguments))
    assert body == {"operation": "recalculate", **sent}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"column_ids": ["x"]}, r"column_ids\[0\] must be a UUID such as .*, not 'x'"),
        ({"column_ids": OTHER}, "column_ids must be a list, or a list as JSON, not '3333"),
        ({"column_ids": [OTHER, None]}, r"column_ids\[1\] must be a UUID"),
        ({"column_ids": []}, "column_ids is empty"),
        ({"column_ids": "None"}, "column_ids must be a list, .* not 'None'"),
        ({"column_ids": ""}, "column_ids must be a list"),
        ({"column_ids": {"a": 1}}, "column_ids must be a list"),
        ({"column_ids": b"[]"}, "column_ids must be a list"),
        ({"row_ids": [-1]}, r"row_ids\[0\] must be a row number, 0 for the first row, not -1"),
        ({"row_ids": [1, True]}, r"row_ids\[1\] must be a row number"),
        ({"row_ids": [1.0]}, r"row_ids\[0\]"),
        ({"row_ids": [2**63]}, r"row_ids\[0\]"),
        ({"row_ids": ["9" * 5000]}, r"row_ids\[0\]"),
        ({"row_ids": "[" * 10_000}, "row_ids must be a list"),
        ({"row_ids": 3}, "row_ids must be a list, or a list as JSON, not 3"),
        ({"row_ids": "[]"}, "row_ids is empty"),
        ({"statuses": ["DONE"]}, "list of STALE, QUEUED, .*; 'DONE' is none of them"),
        ({"statuses": [None]}, "None is none of them"),
        ({"statuses": "STALE"}, "statuses must be a list"),
    ],
)
def test_a_selection_that_is_none(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=named) as caught:
        recalculate_cells(TABLE, SHEET, **arguments)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "bad", ["", "x", TABLE[:-1], TABLE.replace("-", ""), f"{{{TABLE}}}", 5, None, ["a"], "None"]
)
def test_ids_that_are_no_uuids(bad: Any) -> None:
    calls: list[Callable[[Any, Any], object]] = [
        recalculate_cells,
        lambda table, sheet: table_operation(table, sheet, "op"),
        lambda table, sheet: cancel_table_operation(table, sheet, "op"),
        sheet_operations,
    ]
    for call in calls:
        with pytest.raises(PromptLayerInvalidInputError, match="table_id must be a UUID"):
            call(bad, SHEET)
        with pytest.raises(PromptLayerInvalidInputError, match="sheet_id must be a UUID"):
            call(TABLE, bad)


# Starting: the answer


def test_an_operation_was_queued() -> None:
    body = {"success": True, "operation_id": "op-1", "cell_count": 120, "cells": []}
    start = recalculate_cells(TABLE, SHEET)
    assert start.read(answer(202, body), NOW) == QueuedOperation("op-1", 120)
    assert start.read(answer(202, {**body, "operation_id": 7}), NOW) == QueuedOperation("7", 120)


@pytest.mark.parametrize("rest", [{}, {"cell_count": None}, {"cell_count": "3"}])
@pytest.mark.parametrize("more", [{}, {"requires_confirmation": True, "confirmation_token": "t"}])
def test_an_operation_that_was_queued_is_kept_whatever_else_is_said(
    rest: dict[str, Any], more: dict[str, Any]
) -> None:
    body = {"operation_id": "op-1", **rest, **more}
    assert recalculate_cells(TABLE, SHEET).read(answer(202, body), NOW) == QueuedOperation(
        "op-1", None
    )


def test_there_is_nothing_to_do() -> None:
    body = {"success": True, "cell_count": 0, "virtual_cell_count": 0, "cells": []}
    assert recalculate_cells(TABLE, SHEET).read(answer(200, body), NOW) == NothingToDo()


def test_a_confirmation_is_needed() -> None:
    body = {
        "success": False,
        "requires_confirmation": True,
        "confirmation_token": "secret",
        "affected_cell_count": 50_000,
        "message": "Are you\nsure?",
    }
    needed = recalculate_cells(TABLE, SHEET).read(answer(200, body), NOW)
    assert needed == ConfirmationNeeded("secret", 50_000, "Are you sure?")
    assert isinstance(needed, ConfirmationNeeded)
    assert "secret" not in repr(needed)
    error = unconfirmed(needed, was_confirmed=False)
    assert error.affected_cell_count == 50_000
    assert not error.retry_helps
    for part in ("50000 cells", "confirm_large=True", "Nothing was started", "Are you sure?"):
        assert part in str(error)
    again = str(unconfirmed(needed, was_confirmed=True))
    assert "although one was sent" in again
    assert "confirm_large" not in again


def test_what_leaves_open_whether_it_was_queued() -> None:
    check_start_rules(
        recalculate_cells(TABLE, SHEET), "operation_id", {"operation_id": "o", "cell_count": 3}
    )


def test_a_404_does_not_blame_the_name() -> None:
    with pytest.raises(PromptLayerRefusedError, match="Check table_id, sheet_id and column_ids"):
        recalculate_cells(TABLE, SHEET).read(answer(404, {"error": "Column not found"}), NOW)


# Looking


def test_a_look_is_a_get_with_the_id_as_one_segment() -> None:
    call = table_operation(TABLE, SHEET, "a/b?c")
    assert (call.request.method, call.request.path) == ("GET", f"{PATH}/a%2Fb%3Fc")
    assert call.request.body is None
    assert table_operation(TABLE, SHEET, 5).request.path == f"{PATH}/5"  # type: ignore[arg-type]
    for bad in ("", " ", "..", None, -5, True, 1.5, "\ud800"):
        with pytest.raises(PromptLayerInvalidInputError, match="operation_id must be an id"):
            table_operation(TABLE, SHEET, bad)  # type: ignore[arg-type]  # refused


def test_a_look_while_it_goes_on() -> None:
    operation = poll()
    assert not operation.is_complete
    assert operation.progress == "37 of 120 cells done, 2 failed"
    assert poll(failed_count=0).progress == "35 of 120 cells done"


@pytest.mark.parametrize(
    ("fields", "is_complete"),
    [
        ({"status": "completed"}, True),
        ({"status": "COMPLETED "}, True),
        ({"status": "failed"}, True),
        ({"status": "cancelled"}, True),
        ({"status": "canceled"}, True),
        ({"status": "running", "completed_count": 118, "pending_count": 0}, True),
        ({"status": "new word", "completed_count": 118, "pending_count": 0}, True),
        # An unknown word says nothing.
        ({"status": "new word"}, False),
        ({"status": "running", "completed_count": 117, "pending_count": 0}, False),
        ({"status": "running", "completed_count": 118, "pending_count": 1}, False),
        # Nothing has been counted yet.
        (
            {
                "status": "pending",
                "cell_count": 0,
                "completed_count": 0,
                "failed_count": 0,
                "pending_count": 0,
            },
            False,
        ),
    ],
)
def test_when_it_has_ended(fields: dict[str, Any], is_complete: bool) -> None:
    assert poll(**fields).is_complete is is_complete


@pytest.mark.parametrize("name", ["operation_id", "status", "cell_count", "pending_count"])
@pytest.mark.parametrize("value", [..., None, True, -1, 1.5, [], ""])
def test_a_look_without_what_it_hangs_on(name: str, value: Any) -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError, match=f"has no {name}; it begins") as e:
        poll(**{name: value})
    assert e.value.retry_helps


def test_strange_counts_of_statuses_are_left_out() -> None:
    assert poll(status_counts={"A": 1, "B": None, "C": "x", "D": True}).status_counts == {"A": 1}
    assert poll(status_counts=None).status_counts == {}


def test_a_hostile_count_is_no_line_of_thousands() -> None:
    assert poll(cell_count=10**4000).progress == "37 of countless cells done, 2 failed"


def test_cancelling() -> None:
    call = cancel_table_operation(TABLE, SHEET, "op-1")
    assert (call.request.method, call.request.path) == ("DELETE", f"{PATH}/op-1")
    body = {"success": True, "message": "done", "cancelled_cell_count": 3}
    assert call.read(answer(200, body), NOW) == CancelledOperation(3, "done")
