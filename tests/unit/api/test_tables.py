# SPDX-License-Identifier: Apache-2.0
"""Tables: the bytes of a request, and what each answer means."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.answers import NOW, SHEET, TABLE, answer, body_of, check_start_rules

from airflow_provider_promptlayer.api.tables import (
    CancelledOperation,
    ConfirmationNeeded,
    NothingToDo,
    QueuedOperation,
    SheetOperation,
    TableOperation,
    confirmed,
    recalculate_cells,
    unconfirmed,
)
from airflow_provider_promptlayer.exceptions import (
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
    return SheetOperation(TABLE, SHEET, "op-1").fetch_call().read(answer(200, body), NOW)


# Starting


def test_a_start_asks_for_no_more_than_was_said() -> None:
    call = recalculate_cells(TABLE.upper(), f" {SHEET} ")
    assert (call.request.method, call.request.path) == ("POST", PATH)
    assert body_of(call) == {"operation": "recalculate"}
    again = confirmed(recalculate_cells(TABLE, SHEET), ConfirmationNeeded("t", 5, ""))
    assert body_of(again) == {"operation": "recalculate", "confirmation_token": "t"}


def test_an_operation_was_queued() -> None:
    body = {"success": True, "operation_id": "op-1", "cell_count": 120, "cells": []}
    start = recalculate_cells(TABLE, SHEET)
    assert start.read(answer(202, body), NOW) == QueuedOperation("op-1", 120)
    assert start.read(answer(202, {**body, "operation_id": 7}), NOW) == QueuedOperation("7", 120)
    for ids, expected in (
        ({"execution_ids": ["a", 7, "b"], "execution_id": "a"}, ("a", "b")),
        ({"execution_ids": "a", "execution_id": "c"}, ("c",)),
    ):
        found = start.read(answer(202, {**body, **ids}), NOW)
        assert found == QueuedOperation("op-1", 120, expected)


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


# Polling


def test_a_poll() -> None:
    call = SheetOperation(TABLE, SHEET, "a/b?c").fetch_call()
    assert (call.request.method, call.request.path) == ("GET", f"{PATH}/a%2Fb%3Fc")
    assert call.request.body is None
    assert SheetOperation(TABLE, SHEET, 5).fetch_call().request.path == f"{PATH}/5"  # type: ignore[arg-type]
    operation = poll()
    assert not operation.is_complete
    assert operation.progress == "37 of 120 cells done, 2 failed"
    assert poll(failed_count=0).progress == "35 of 120 cells done"
    assert poll(cell_count=10**4000).progress == "37 of countless cells done, 2 failed"


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
        ({"cell_count": 0, "completed_count": 0, "failed_count": 0, "pending_count": 0}, False),
    ],
)
def test_when_it_has_ended(fields: dict[str, Any], is_complete: bool) -> None:
    assert poll(**fields).is_complete is is_complete


@pytest.mark.parametrize("name", ["operation_id", "status", "cell_count", "pending_count"])
@pytest.mark.parametrize("value", [..., None, True, -1, 1.5, [], ""])
def test_a_poll_without_a_field_that_decides(name: str, value: Any) -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError, match=f"has no {name}; it begins") as e:
        poll(**{name: value})
    assert e.value.retry_helps


def test_strange_counts_of_statuses_are_left_out() -> None:
    assert poll(status_counts={"A": 1, "B": None, "C": "x", "D": True}).status_counts == {"A": 1}
    assert poll(status_counts=None).status_counts == {}


def test_cancelling() -> None:
    call = SheetOperation(TABLE, SHEET, "op-1").cancel_call()
    assert (call.request.method, call.request.path) == ("DELETE", f"{PATH}/op-1")
    body = {"success": True, "message": "done", "cancelled_cell_count": 3}
    assert call.read(answer(200, body), NOW) == CancelledOperation(3, "done")
