# SPDX-License-Identifier: Apache-2.0
"""Operations and rows below ``/api/public/v2/tables/{table_id}/sheets/{sheet_id}``.

The rule here is that of ``workflow_endpoints.py``: what the description says, and a docstring
where it is silent.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Mapping

from airflow_provider_promptlayer.testing.evaluations.model import Column, Sheet, Table, derived_id
from airflow_provider_promptlayer.testing.evaluations.runs import (
    CELL_STATUSES,
    COMPLETED,
    FAILED,
    QUEUED,
    RUNNING,
    STALE,
    EvaluationRuns,
    Operation,
    UnknownEvaluationError,
)
from airflow_provider_promptlayer.testing.http.messages import Answer, Request, refusal
from airflow_provider_promptlayer.testing.http.routing import Route
from airflow_provider_promptlayer.testing.http.strict_body import (
    check_uuids,
    is_row,
    is_uuid,
    list_of,
    one_of,
    query_flag,
    query_number,
    query_word,
    read_body,
)
from airflow_provider_promptlayer.testing.workflows.model import JsonValue

SHEET_PATH = "/api/public/v2/tables/{table_id}/sheets/{sheet_id}"

_OPERATION_FIELDS = {
    "operation": one_of(("recalculate",)),
    "column_ids": list_of(is_uuid),
    "row_ids": list_of(is_row),
    "statuses": list_of(one_of(CELL_STATUSES)),
    "confirmation_token": lambda value: isinstance(value, str),
}
_STATUS_IN_ROW = {
    STALE: "stale",
    QUEUED: "queued",
    RUNNING: "running",
    COMPLETED: "completed",
    FAILED: "error",
}
_NULLABLE = ("column_ids", "row_ids", "statuses", "confirmation_token")


def find_sheet(runs: EvaluationRuns, table_id: str, sheet_id: str) -> tuple[Table, Sheet]:
    """Give the sheet that a path means.

    Raises:
        RefusalError: 400 for an id that is no UUID, 404 if there is no such sheet.

    """
    check_uuids(table_id=table_id, sheet_id=sheet_id)
    try:
        return runs.sheet(table_id, sheet_id)
    except UnknownEvaluationError as error:
        raise refusal(404, str(error)) from None


class TableEndpoints:
    """Recalculations of cells."""

    def __init__(self, runs: EvaluationRuns) -> None:
        self._runs = runs

    @property
    def routes(self) -> list[Route]:
        """The endpoints with their methods and paths."""
        operations = f"{SHEET_PATH}/operations"
        return [
            Route("GET", operations, self.list_operations),
            Route("POST", operations, self.create_operation),
            Route("GET", f"{operations}/{{operation_id}}", self.get_operation),
            Route("DELETE", f"{operations}/{{operation_id}}", self.cancel_operation),
            Route("GET", f"{SHEET_PATH}/rows", self.list_rows),
        ]

    def create_operation(self, request: Request, table_id: str, sheet_id: str) -> Answer:
        """Queue an operation: 202; or 200 where there is nothing to do or it has to be confirmed.

        A row that does not exist has no cells that fit. A token that does not hold is as good as
        none: PromptLayer asks again.
        """
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        fields = read_body(request, _OPERATION_FIELDS, nullable=_NULLABLE, required=True)
        column_ids = fields.get("column_ids")
        if column_ids is not None:
            column_ids = [column_id.lower() for column_id in column_ids]
            _check_columns(sheet, column_ids)
        started = self._runs.start_operation(
            table,
            sheet,
            column_ids=column_ids,
            row_ids=fields.get("row_ids"),
            statuses=fields.get("statuses"),
            confirmation_token=fields.get("confirmation_token"),
            was_posted=True,
        )
        if isinstance(started, str):
            return Answer(200, self._confirmation(table, sheet, started))
        if isinstance(started, int):
            empty: list[JsonValue] = []
            return Answer(
                200, {"success": True, "cell_count": 0, "virtual_cell_count": 0, "cells": empty}
            )
        execution_id = _execution_id(started)
        return Answer(
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

    def list_operations(self, _request: Request, table_id: str, sheet_id: str) -> Answer:
        """List the operations that are under way."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        statuses = Counter(self._runs.cell_statuses(table, sheet).values())
        active = self._runs.active_operations(table, sheet)
        return Answer(
            200,
            {
                "success": True,
                "sheet_id": sheet.id,
                "version": self._runs.version(table, sheet),
                "total_cells": statuses.total(),
                "status_counts": dict(statuses),
                "pending_count": statuses["QUEUED"] + statuses["RUNNING"],
                "active_operations": [self._operation(operation) for operation in active],
            },
        )

    def get_operation(
        self, _request: Request, table_id: str, sheet_id: str, operation_id: str
    ) -> Answer:
        """Give the state of an operation, also after its end.

        The id may be one of the ``execution_ids`` of the operation as well: PromptLayer's Python
        library asks for each of them here.
        """
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        operation = self._find(table, sheet, operation_id) or self._executing(
            table, sheet, operation_id
        )
        if operation is None:
            raise refusal(404, "Operation not found")
        return Answer(200, {"success": True, "operation": self._operation(operation)})

    def cancel_operation(
        self, _request: Request, table_id: str, sheet_id: str, operation_id: str
    ) -> Answer:
        """Cancel an operation; 200 too where none of this id is active."""
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        operation = self._find(table, sheet, operation_id)
        cancelled = self._runs.cancel_operation(operation) if operation else 0
        return Answer(
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

    def list_rows(self, request: Request, table_id: str, sheet_id: str) -> Answer:
        """List the rows with their cells by page, and on the first page the columns.

        There are no system columns here. A cursor holds for the order in which it was given.
        """
        table, sheet = find_sheet(self._runs, table_id, sheet_id)
        query = request.query
        order = query_word(query, "order", ("asc", "desc"))
        limit = query_number(query, "limit", least=1, most=100) or 100
        first = _read_cursor(query.get("cursor"), order)
        with_columns = query_flag(query, "include_columns", default="cursor" not in query)
        with_count = query_flag(query, "include_row_count", default=True)
        with_aggregates = query_flag(query, "include_execution_metadata_aggregates", default=False)
        query_flag(query, "include_system_columns", default=False)
        numbers = range(sheet.row_count)[:: 1 if order == "asc" else -1]
        page, has_more = numbers[first : first + limit], first + limit < len(numbers)
        next_cursor = _cursor(first + limit, order) if has_more else None
        statuses = self._runs.cell_statuses(table, sheet)
        body: dict[str, JsonValue] = {
            "data": [_row(sheet, number, statuses) for number in page],
            "version": self._runs.version(table, sheet),
        }
        if sheet.rows_paging != "nested":
            body |= {"next_cursor": next_cursor, "has_more": has_more}
        if sheet.rows_paging != "flat":
            body["pagination"] = {
                "next_cursor": next_cursor,
                "prev_cursor": None,
                "has_more": has_more,
                "limit": limit,
            }
        if with_columns:
            body["columns"] = [_column(sheet, column) for column in sheet.columns]
        if with_count:
            body["row_count"] = sheet.row_count
        if with_aggregates:
            body["execution_metadata_aggregates"] = {"by_column_id": {}, "sheet": {"by_metric": {}}}
        return Answer(200, body)

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
            "pending_count": statuses["QUEUED"] + statuses["RUNNING"],
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
    """Give the place of the first row of a page.

    Raises:
        RefusalError: 400, the cursor is none that was given for this order.

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
    sheet = SHEET_PATH.format(table_id=operation.table_id, sheet_id=operation.sheet_id)
    return f"{sheet}/operations/{operation.id}"
