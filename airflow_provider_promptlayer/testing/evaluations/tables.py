# SPDX-License-Identifier: Apache-2.0
"""The operations and rows below ``/api/public/v2/tables/{table_id}/sheets/{sheet_id}``.

Here and in the other endpoints, optional fields that would always be null are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from ..http.app import answer, get, refusal
from ..http.validation import (
    Integer,
    Row,
    TableBody,
    Uuid,
    read_table_body,
    read_table_query,
    read_uuid,
)
from ..json_text import JsonValue
from ..workflows.model import derived_id
from .model import Column, Sheet
from .runs import (
    COMPLETED,
    FAILED,
    QUEUED,
    RUNNING,
    STALE,
    EvaluationRuns,
    Operation,
    SheetRuns,
    UnknownEvaluationError,
)

SHEET_PATH = "/api/public/v2/tables/{table_id:[^/]+}/sheets/{sheet_id:[^/]+}"

_STATUS_IN_ROW = {
    STALE: "stale",
    QUEUED: "queued",
    RUNNING: "running",
    COMPLETED: "completed",
    FAILED: "error",
}


class _CreateOperation(TableBody):
    operation: Literal["recalculate"] = "recalculate"
    column_ids: list[Uuid] | None = None
    row_ids: list[Row] | None = None
    statuses: (
        list[Literal["STALE", "QUEUED", "DISPATCHED", "RUNNING", "COMPLETED", "FAILED"]] | None
    ) = None
    confirmation_token: str | None = None


class _ListRows(BaseModel):
    cursor: str | None = None
    limit: Annotated[Integer, Field(ge=1, le=100)] = 100
    order: Literal["asc", "desc"] = "asc"
    include_columns: bool | None = None
    include_row_count: bool = True
    include_system_columns: bool = False
    include_execution_metadata_aggregates: bool = False


def find_sheet(runs: EvaluationRuns, request: web.Request) -> SheetRuns:
    """Return the runs of the sheet that a path names, or refuse with 400 or 404."""
    table_id, sheet_id = read_uuid(request, "table_id"), read_uuid(request, "sheet_id")
    try:
        return runs.sheet(table_id, sheet_id)
    except UnknownEvaluationError as error:
        raise refusal(404, str(error)) from None


class TableEndpoints:
    """Recalculations of cells."""

    def __init__(self, runs: EvaluationRuns) -> None:
        self._runs = runs

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        operations = f"{SHEET_PATH}/operations"
        operation = f"{operations}/{{operation_id:[^/]+}}"
        return [
            get(operations, self.list_operations),
            web.post(operations, self.create_operation),
            get(operation, self.get_operation),
            web.delete(operation, self.cancel_operation),
            get(f"{SHEET_PATH}/rows", self.list_rows),
        ]

    async def create_operation(self, request: web.Request) -> web.Response:
        """Queue an operation: 202; or 200 if there is nothing to do or it has to be confirmed.

        A row that does not exist is a row without stale cells. A confirmation token that is not
        valid is treated as absent: PromptLayer asks for confirmation again.
        """
        runs = find_sheet(self._runs, request)
        body = await read_table_body(request, _CreateOperation, required=True)
        _check_columns(runs.sheet, body.column_ids or [])
        started = runs.start_operation(**body.model_dump(exclude={"operation"}), was_posted=True)
        if isinstance(started, str):
            return answer(200, _confirmation(runs, started))
        if isinstance(started, int):
            return answer(
                200, {"success": True, "cell_count": 0, "virtual_cell_count": 0, "cells": []}
            )
        execution_id = _execution_id(started)
        return answer(
            202,
            {
                "success": True,
                "operation": "recalculate",
                "operation_id": started.id,
                "execution_id": execution_id,
                "execution_ids": [execution_id],
                "cell_count": len(started.cells),
                "version": started.version,
                "status_url": _status_url(started),
                "virtual_cell_count": 0,
                "cells": _cells(started, runs.now()),
            },
        )

    async def list_operations(self, request: web.Request) -> web.Response:
        """List the operations that have not ended, and count the sheet's cells by status."""
        runs = find_sheet(self._runs, request)
        statuses = Counter(runs.cell_statuses().values())
        active = runs.active_operations()
        return answer(
            200,
            {
                "success": True,
                "sheet_id": runs.sheet.id,
                "version": runs.version,
                "total_cells": statuses.total(),
                "status_counts": dict(statuses),
                "pending_count": statuses[QUEUED] + statuses[RUNNING],
                "active_operations": [_operation(operation, runs.now()) for operation in active],
            },
        )

    async def get_operation(self, request: web.Request) -> web.Response:
        """Return the state of an operation, also after its end.

        The id may also be one of the operation's ``execution_ids``: PromptLayer's Python library
        requests each of them here.
        """
        runs = find_sheet(self._runs, request)
        operation_id = request.match_info["operation_id"]
        for operation in list(runs.operations.values()):
            if operation_id in (operation.id, _execution_id(operation)):
                return answer(
                    200, {"success": True, "operation": _operation(operation, runs.now())}
                )
        raise refusal(404, "Operation not found")

    async def cancel_operation(self, request: web.Request) -> web.Response:
        """Cancel an operation; 200 also if there is no active one of this id."""
        runs = find_sheet(self._runs, request)
        operation_id = request.match_info["operation_id"]
        cancelled = runs.cancel_operation(operation_id)
        execution_ids = [_execution_id(runs.operations[operation_id])] if cancelled else []
        return answer(
            200,
            {
                "success": True,
                "message": "Operation cancelled" if cancelled else "No active operation found",
                "operation_id": operation_id,
                "execution_ids": execution_ids,
                "cancelled_cell_count": cancelled,
                "not_started_reset_count": max(0, cancelled - 1),
                "running_invalidated_count": min(1, cancelled),
            },
        )

    async def list_rows(self, request: web.Request) -> web.Response:
        """List the rows with their cells by page, and on the first page the columns.

        There are no system columns here. A cursor is valid only for the order it was made for. It
        is at the top level, as the description says, and in ``pagination``, where PromptLayer's
        libraries read it.
        """
        runs = find_sheet(self._runs, request)
        sheet = runs.sheet
        query = read_table_query(request, _ListRows)
        first = _read_cursor(query.cursor, query.order)
        numbers = range(sheet.row_count)[:: 1 if query.order == "asc" else -1]
        end = first + query.limit
        has_more = end < len(numbers)
        next_cursor = _cursor(end, query.order) if has_more else None
        statuses = runs.cell_statuses()
        body: dict[str, JsonValue] = {
            "data": [_row(sheet, number, statuses) for number in numbers[first:end]],
            "version": runs.version,
            "next_cursor": next_cursor,
            "has_more": has_more,
            "pagination": {
                "next_cursor": next_cursor,
                "prev_cursor": None,
                "has_more": has_more,
                "limit": query.limit,
            },
        }
        is_first_page = query.cursor is None
        if is_first_page if query.include_columns is None else query.include_columns:
            body["columns"] = [_column(sheet, column) for column in sheet.columns]
        if query.include_row_count:
            body["row_count"] = sheet.row_count
        if query.include_execution_metadata_aggregates:
            body["execution_metadata_aggregates"] = {"by_column_id": {}, "sheet": {"by_metric": {}}}
        return answer(200, body)


def _operation(operation: Operation, now: float) -> JsonValue:
    statuses = Counter(operation.cell_statuses(now))
    return {
        "operation_id": operation.id,
        "operation": "recalculate",
        "status": operation.status(now),
        "status_counts": dict(statuses),
        "cell_count": len(operation.cells),
        "completed_count": statuses[COMPLETED],
        "failed_count": statuses[FAILED],
        "pending_count": statuses[QUEUED] + statuses[RUNNING],
        "status_url": _status_url(operation),
    }


def _confirmation(runs: SheetRuns, token: str) -> JsonValue:
    cells = runs.cells_of_token(token)
    return {
        "success": False,
        "requires_confirmation": True,
        "confirmation_token": token,
        "affected_cell_count": cells,
        "message": f"This operation will recalculate {cells} cells of {runs.sheet.title!r} "
        f"in {runs.table.title!r}. Send it again with the token.",
    }


def _cells(operation: Operation, now: float) -> list[JsonValue]:
    return [
        {
            "id": derived_id("cell", operation.sheet_id, cell.column_id, cell.row_index),
            "sheet_id": operation.sheet_id,
            "execution_id": _execution_id(operation),
            "column_id": cell.column_id,
            "row_index": cell.row_index,
            "status": status,
        }
        for cell, status in zip(operation.cells, operation.cell_statuses(now), strict=True)
    ]


def _check_columns(sheet: Sheet, column_ids: list[str]) -> None:
    columns = {column.id: column for column in sheet.columns}
    for column_id in column_ids:
        if column_id not in columns:
            raise refusal(404, f"Column {column_id} not found")
        if columns[column_id].type == "TEXT":
            raise refusal(400, "Text columns cannot be recalculated")


def _row(sheet: Sheet, number: int, statuses: Mapping[tuple[str, int], str]) -> JsonValue:
    return {
        "row_index": number,
        "cells": {
            column.id: _cell(sheet, column, number, statuses[column.id, number])
            for column in sheet.columns
        },
    }


def _cell(sheet: Sheet, column: Column, row: int, status: str) -> JsonValue:
    is_done = status == COMPLETED
    failure = "The cell could not be calculated" if status == FAILED else None
    return {
        "id": derived_id("cell", sheet.id, column.id, row),
        "sheet_id": sheet.id,
        "column_id": column.id,
        "row_index": row,
        "status": _STATUS_IN_ROW[status],
        "display_value": f"{column.title} {row}" if is_done else None,
        "value": f"{column.title} {row}" if is_done else None,
        "error": failure,
        "error_message": failure,
    }


def _column(sheet: Sheet, column: Column) -> JsonValue:
    return {
        "id": column.id,
        "sheet_id": sheet.id,
        "workspace_id": 1,
        "title": column.title,
        "type": column.type,
        "config": {},
        "position_rank": float(sheet.columns.index(column)),
        "is_output_column": False,
    }


def _cursor(first: int, order: str) -> str:
    return f"{order}-{first}"


def _read_cursor(cursor: str | None, order: str) -> int:
    """Return the place of the first row of a page, or refuse a cursor not made for this order."""
    if cursor is None:
        return 0
    found = re.fullmatch(rf"{order}-([0-9]{{1,9}})", cursor)
    if found is None:
        raise refusal(400, "Invalid query parameter cursor")
    return int(found[1])


def _execution_id(operation: Operation) -> str:
    return derived_id("execution", operation.id)


def _status_url(operation: Operation) -> str:
    sheet = f"/api/public/v2/tables/{operation.table_id}/sheets/{operation.sheet_id}"
    return f"{sheet}/operations/{operation.id}"
