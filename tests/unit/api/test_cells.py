# SPDX-License-Identifier: Apache-2.0
"""The counts of a sheet's cells: the bytes of the request, and what each answer means."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.answers import NOW, SHEET, TABLE, answer

from airflow_provider_promptlayer.api.cells import SheetCells, SheetOperations
from airflow_provider_promptlayer.exceptions import PromptLayerUnexpectedAnswerError

PATH = f"/api/public/v2/tables/{TABLE}/sheets/{SHEET}/operations"
OPERATION: dict[str, Any] = {
    "operation_id": "op-1",
    "operation": "recalculate",
    "status": "running",
    "cell_count": 3,
    "completed_count": 2,
    "failed_count": 0,
    "pending_count": 1,
}
COUNTED_OUT = {"completed_count": 2, "failed_count": 1, "pending_count": 0}


def poll(**fields: Any) -> SheetOperations:
    body = {
        "success": True,
        "total_cells": 9,
        "status_counts": {"STALE": 4, "COMPLETED": 5},
        "pending_count": 0,
        "active_operations": [],
        **fields,
    }
    body = {name: value for name, value in body.items() if value is not ...}
    return SheetCells(TABLE, SHEET).fetch_call().read(answer(200, body), NOW)


def test_the_request() -> None:
    job = SheetCells(TABLE, SHEET)
    request = job.fetch_call().request
    assert (request.method, request.path) == ("GET", PATH)
    assert (job.id, job.cancel()) == (SHEET, None)


@pytest.mark.parametrize(
    ("fields", "is_complete"),
    [
        ({}, True),
        ({"total_cells": 0, "status_counts": {}}, True),
        ({"status_counts": {"COMPLETED": 8, "FAILED": 1}}, True),
        ({"status_counts": {"COMPLETED": 8, "new word": 1}}, True),
        ({"pending_count": 1}, False),
        *(
            ({"status_counts": {"COMPLETED": 8, word: 1}}, False)
            for word in ("QUEUED", "DISPATCHED", "RUNNING", "PENDING", "running ")
        ),
        ({"active_operations": [OPERATION]}, False),
        ({"active_operations": [{**OPERATION, "status": "new word"}]}, False),
        # The status can lag behind the counts.
        ({"active_operations": [{**OPERATION, **COUNTED_OUT}]}, True),
        ({"active_operations": [{**OPERATION, **COUNTED_OUT}, OPERATION]}, False),
    ],
)
def test_when_a_sheet_is_idle(fields: dict[str, Any], is_complete: bool) -> None:
    assert poll(**fields).is_complete is is_complete


@pytest.mark.parametrize(
    ("counts", "completed", "failed", "cancelled", "stale", "unknown"),
    [
        ({"COMPLETED": 9}, 9, 0, 0, 0, 0),
        ({"COMPLETED": 6, "FAILED": 2, "error": 1}, 6, 3, 0, 0, 0),
        ({"completed": 7, "CANCELLED": 1, "canceled": 1}, 7, 0, 2, 0, 0),
        ({"COMPLETED": 8, "SKIPPED": 1}, 8, 0, 0, 0, 1),
        ({"COMPLETED": 5, "STALE": 2}, 5, 0, 0, 4, 0),  # two are nowhere
        ({}, 0, 0, 0, 9, 0),
        ({"COMPLETED": 99}, 99, 0, 0, 0, 0),
    ],
)
def test_what_is_counted(
    counts: dict[str, int], completed: int, failed: int, cancelled: int, stale: int, unknown: int
) -> None:
    sheet = poll(status_counts=counts)
    assert (sheet.completed_count, sheet.failed_count) == (completed, failed)
    assert (sheet.cancelled_count, sheet.stale_count) == (cancelled, stale)
    assert sheet.unknown_count == unknown


def test_progress() -> None:
    assert poll().progress == "5 of 9 cells done"
    failed = poll(status_counts={"COMPLETED": 5, "FAILED": 1})
    assert failed.progress == "6 of 9 cells done, 1 failed"
    assert poll(total_cells=10**4000).progress == "5 of countless cells done"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("total_cells", [..., None, True, -1, 1.5, "9"]),
        ("pending_count", [..., None, True, -1, 1.5, "9"]),
        ("status_counts", [..., None, [], "x"]),
        ("active_operations", [..., None, {}, [1]]),
    ],
)
def test_an_answer_without_a_field_that_decides(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(PromptLayerUnexpectedAnswerError, match=f"no .*{name}; it begins") as e:
            poll(**{name: value})
        assert e.value.retry_helps
    for value in (None, True, -1, 1.5, "1"):  # no zero
        with pytest.raises(PromptLayerUnexpectedAnswerError, match="has no FAILED"):
            poll(status_counts={"COMPLETED": 8, "FAILED": value})
