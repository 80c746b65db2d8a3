# SPDX-License-Identifier: Apache-2.0
"""The operations and rows below ``/api/public/v2/tables/{table_id}/sheets/{sheet_id}``."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from airflow_provider_promptlayer.testing.evaluations.model import Column, Sheet, Table, derived_id
from airflow_provider_promptlayer.testing.evaluations.runs import (
    COMPLETED,
    FAILED,
    QUEUED,
    RUNNING,
    STALE,
    EvaluationRuns,
    Operation,
    UnknownEvaluationError,
)
from airflow_provider_promptlayer.testing.http.app import answer, get, refusal
from airflow_provider_promptlayer.testing.http.validation import (
    Integer,
    Row,
    TableBody,
    Uuid,
    path_uuid,
    read_table_body,
    read_table_query,
)
from airflow_provider_promptlayer.testing.json_text import JsonValue

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


def find_sheet(runs: EvaluationRuns, request: web.Request) -> tuple[Table, Sheet]:
    """Return the sheet of a path, and its table.

    Raises:
        RefusalError: 400 for an id that is not a UUID, 404 if there is no such sheet.

    """
    table_id, sheet_id = path_uuid(request, "table_id"), path_uuid(request, "sheet_id")
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
        table, sheet = find_sheet(self._runs, request)
        body = await read_table_body(request, _CreateOperation, required=True)
        _check_columns(sheet, body.column_ids or [])
        started = self._runs.start_operation(
            table,
            sheet,
            column_ids=body.column_ids,
            row_ids=body.row_ids,
            statuses=body.statuses,
            confirmation_token=body.confirmation_token,
            was_posted=True,
        )
        if isinstance(started, str):
            return answer(200, self._confirmation(table, sheet, started))
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
                "cells": self._cells(started),
            },
        )

    async def list_operations(self, request: web.Request) -> web.Response:
        """List the operations that have not ended, and count the sheet's cells by status."""
        table, sheet = find_sheet(self._runs, request)
        statuses = Counter(self._runs.cell_statuses(table, sheet).values())
        active = self._runs.active_operations(table, sheet)
        return answer(
            200,
            {
                "success": True,
                "sheet_id": sheet.id,
                "version": self._runs.version(table, sheet),
                "total_cells": statuses.total(),
                "status_counts": dict(statuses),
                "pending_count": statuses[QUEUED] + statuses[RUNNING],
                "active_operations": [self._operation(operation) for operation in active],
            },
        )

    async def get_operation(self, request: web.Request) -> web.Response:
        """Return the state of an operation, also after its end.

        The id may also be one of the operation's ``execution_ids``: PromptLayer's Python library
        requests each of them here.
        """
        table, sheet = find_sheet(self._runs, request)
        operation_id = request.match_info["operation_id"]
        operation = self._find(table, sheet, operation_id) or self._executing(
            table, sheet, operation_id
        )
        if operation is None:
            raise refusal(404, "Operation not found")
        return answer(200, {"success": True, "operation": self._operation(operation)})

    async def cancel_operation(self, request: web.Request) -> web.Response:
        """Cancel an operation; 200 also if there is no active one of this id."""
        table, sheet = find_sheet(self._runs, request)
        operation_id = request.match_info["operation_id"]
        operation = self._find(table, sheet, operation_id)
        cancelled = self._runs.cancel_operation(operation) if operation else 0
        return answer(
            200,
            {
                "success": True,
                "message": "Operation cancelled" if cancelled else "No active operation found",
                "operation_id": operation_id,
                "execution_ids": [_execution_id(operation)] if operation and cancelled else [],
                "cancelled_cell_count": cancelled,
                "not_started_reset_count": max(0, cancelled - 1),
                "running_invalidated_count": min(1, cancelled),
            },
        )

    async def list_rows(self, request: web.Request) -> web.Response:
        """List the rows with their cells by page, and on the first page the columns.

        There are no system columns here. A cursor is valid only for the order it was made for.
        """
        table, sheet = find_sheet(self._runs, request)
        query = read_table_query(request, _ListRows)
        first = _read_cursor(query.cursor, query.order)
        numbers = range(sheet.row_count)[:: 1 if query.order == "asc" else -1]
        end = first + query.limit
        has_more = end < len(numbers)
        next_cursor = _cursor(end, query.order) if has_more else None
        statuses = self._runs.cell_statuses(table, sheet)
        body: dict[str, JsonValue] = {
            "data": [_row(sheet, number, statuses) for number in numbers[first:end]],
            "version": self._runs.version(table, sheet),
        }
        if sheet.rows_paging != "nested":
            body |= {"next_cursor": next_cursor, "has_more": has_more}
        if sheet.rows_paging != "flat":
            body["pagination"] = {
                "next_cursor": next_cursor,
                "prev_cursor": None,
                "has_more": has_more,
                "limit": query.limit,
            }
        is_first_page = query.cursor is None
        if is_first_page if query.include_columns is None else query.include_columns:
            body["columns"] = [_column(sheet, column) for column in sheet.columns]
        if query.include_row_count:
            body["row_count"] = sheet.row_count
        if query.include_execution_metadata_aggregates:
            body["execution_metadata_aggregates"] = {"by_column_id": {}, "sheet": {"by_metric": {}}}
        return answer(200, body)

    def _find(self, table: Table, sheet: Sheet, operation_id: str) -> Operation | None:
        operation = self._runs.operations.get(operation_id)
        if operation and (operation.table_id, operation.sheet_id) == (table.id, sheet.id):
            return operation
        return None

    def _executing(self, table: Table, sheet: Sheet, execution_id: str) -> Operation | None:
        for operation in self._runs.operations_on(table, sheet):
            if _execution_id(operation) == execution_id:
                return operation
        return None

    def _operation(self, operation: Operation) -> JsonValue:
        now = self._runs.now()
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

    def _confirmation(self, table: Table, sheet: Sheet, token: str) -> JsonValue:
        cells = self._runs.cells_of_token(token)
        return {
            "success": False,
            "requires_confirmation": True,
            "confirmation_token": token,
            "affected_cell_count": cells,
            "message": f"This operation will recalculate {cells} cells of {sheet.title!r} "
            f"in {table.title!r}. Send it again with the token.",
        }

    def _cells(self, operation: Operation) -> list[JsonValue]:
        statuses = operation.cell_statuses(self._runs.now())
        return [
            {
                "id": derived_id("cell", operation.sheet_id, cell.column_id, cell.row_index),
                "sheet_id": operation.sheet_id,
                "execution_id": _execution_id(operation),
                "column_id": cell.column_id,
                "row_index": cell.row_index,
                "last_computed_version": None,
                "status": status,
                "display_value": None,
                "input_hash": None,
                "value": None,
                "updated_at": None,
            }
            for cell, status in zip(operation.cells, statuses, strict=True)
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
    return urlsafe_b64encode(f"{order} {first}".encode()).decode()


def _read_cursor(cursor: str | None, order: str) -> int:
    """Return the place of the first row of a page.

    Raises:
        RefusalError: 400, the cursor was not made for this order.

    """
    if cursor is None:
        return 0
    try:
        first = int(urlsafe_b64decode(cursor).decode().removeprefix(f"{order} "))
    except ValueError:
        first = -1
    if first < 0 or _cursor(first, order) != cursor:
        raise refusal(400, "Invalid query parameter cursor")
    return first


def _execution_id(operation: Operation) -> str:
    return derived_id("execution", operation.id)


def _status_url(operation: Operation) -> str:
    sheet = f"/api/public/v2/tables/{operation.table_id}/sheets/{operation.sheet_id}"
    return f"{sheet}/operations/{operation.id}"
