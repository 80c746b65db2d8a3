# SPDX-License-Identifier: Apache-2.0
"""The operations below ``/api/public/v2/tables/{table_id}/sheets/{sheet_id}``.

Here and in the other endpoints, optional fields that would always be null are left out.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from aiohttp import web

from ..http.app import answer, get, refusal
from ..http.validation import Row, TableBody, Uuid, read_table_body
from ..json_text import JsonValue
from .paging import SHEET_PATH, Endpoints, find_sheet
from .runs import COMPLETED, FAILED, QUEUED, RUNNING, Operation, UnknownEvaluationError, cell_id
from .sheet import TEXT, SheetState


class _CreateOperation(TableBody):
    operation: Literal["recalculate"] = "recalculate"
    column_ids: list[Uuid] | None = None
    row_ids: list[Row] | None = None
    statuses: (
        list[Literal["STALE", "QUEUED", "DISPATCHED", "RUNNING", "COMPLETED", "FAILED"]] | None
    ) = None
    confirmation_token: str | None = None


class OperationEndpoints(Endpoints):
    """Recalculations of cells."""

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
        ]

    async def create_operation(self, request: web.Request) -> web.Response:
        """Queue an operation: 202; or 200 if there is nothing to do or it has to be confirmed.

        A row that does not exist is a row without stale cells. A confirmation token that is not
        valid is treated as absent: PromptLayer asks for confirmation again.
        """
        sheet = find_sheet(self._workspace, request)
        body = await read_table_body(request, _CreateOperation, required=True)
        _check_columns(sheet, body.column_ids or [])
        started = sheet.start_operation(**body.model_dump(exclude={"operation"}), was_posted=True)
        if isinstance(started, str):
            return answer(200, _confirmation(sheet, started))
        if isinstance(started, int):
            return answer(
                200, {"success": True, "cell_count": 0, "virtual_cell_count": 0, "cells": []}
            )
        execution_id = started.execution_id
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
                "cells": _cells(started, sheet.now()),
            },
        )

    async def list_operations(self, request: web.Request) -> web.Response:
        """List the operations that have not ended, and count the sheet's cells by status."""
        sheet = find_sheet(self._workspace, request)
        statuses = Counter(sheet.cell_statuses().values())
        active = sheet.active_operations()
        return answer(
            200,
            {
                "success": True,
                "sheet_id": sheet.id,
                "version": sheet.version,
                "total_cells": statuses.total(),
                "status_counts": dict(statuses),
                "pending_count": statuses[QUEUED] + statuses[RUNNING],
                "active_operations": [_operation(operation, sheet.now()) for operation in active],
            },
        )

    async def get_operation(self, request: web.Request) -> web.Response:
        """Return the state of an operation, also after its end.

        The id may also be one of the operation's ``execution_ids``: PromptLayer's Python library
        requests each of them here.
        """
        sheet = find_sheet(self._workspace, request)
        operation_id = request.match_info["operation_id"]
        for operation in list(sheet.operations.values()):
            if operation_id in (operation.id, operation.execution_id):
                return answer(
                    200, {"success": True, "operation": _operation(operation, sheet.now())}
                )
        raise refusal(404, "Operation not found")

    async def cancel_operation(self, request: web.Request) -> web.Response:
        """Cancel an operation; 200 also if there is no active one of this id."""
        sheet = find_sheet(self._workspace, request)
        operation_id = request.match_info["operation_id"]
        cancelled = sheet.cancel_operation(operation_id)
        execution_ids = [sheet.operations[operation_id].execution_id] if cancelled else []
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


def _confirmation(sheet: SheetState, token: str) -> JsonValue:
    cells = sheet.cells_of_token(token)
    return {
        "success": False,
        "requires_confirmation": True,
        "confirmation_token": token,
        "affected_cell_count": cells,
        "message": f"This operation will recalculate {cells} cells of {sheet.title!r} "
        f"in {sheet.table.title!r}. Send it again with the token.",
    }


def _cells(operation: Operation, now: float) -> list[JsonValue]:
    return [
        {
            "id": cell_id(operation.sheet_id, cell.column_id, cell.row_index),
            "sheet_id": operation.sheet_id,
            "execution_id": operation.execution_id,
            "column_id": cell.column_id,
            "row_index": cell.row_index,
            "status": status,
        }
        for cell, status in zip(operation.cells, operation.cell_statuses(now), strict=True)
    ]


def _check_columns(sheet: SheetState, column_ids: list[str]) -> None:
    for column_id in column_ids:
        try:
            column = sheet.column(column_id)
        except UnknownEvaluationError as error:
            raise refusal(404, str(error)) from None
        if column.type == TEXT:
            raise refusal(400, "Text columns cannot be recalculated")


def _status_url(operation: Operation) -> str:
    sheet = f"/api/public/v2/tables/{operation.table_id}/sheets/{operation.sheet_id}"
    return f"{sheet}/operations/{operation.id}"
