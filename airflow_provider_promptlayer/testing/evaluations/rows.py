# SPDX-License-Identifier: Apache-2.0
"""The rows and columns of a sheet: ``…/sheets/{sheet_id}/rows`` and ``…/columns``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from ..http.app import answer, get, refusal
from ..http.dialect import Dialect
from ..http.validation import Body, read_body, read_table_query, read_uuid
from ..json_text import JsonValue, dumps
from ..workflows.model import derived_id
from .model import Column, RequestMetrics
from .paging import SHEET_PATH, Endpoints, Limit, Paging, find_sheet, page_of, paging_fields
from .runs import COMPLETED, FAILED, QUEUED, RUNNING, STALE, UnknownEvaluationError, cell_id
from .sheet import TEXT, CellState, SheetState

_DESCRIBED_STATUS = {
    STALE: "stale",
    QUEUED: "queued",
    RUNNING: "running",
    COMPLETED: "completed",
    FAILED: "error",
}
_METRIC_LABELS = {"price": "Price", "latency_ms": "Latency"}


class _ListRows(Paging):
    limit: Limit = 100
    include_columns: bool | None = None
    include_row_count: bool = True
    include_system_columns: bool = False
    include_execution_metadata_aggregates: bool = False


class _ListColumns(Paging):
    limit: Limit = 100
    include_system_columns: bool = False


class _AddRows(Body):
    count: Annotated[int, Field(ge=1, le=100)] = 1
    # Not dict[str, Any]: pydantic refuses names with lone surrogates.
    values: list[dict[Any, Any]] | None = None


class _UpdateColumn(Body):
    title: str | None = None
    config: dict[Any, Any] | None = None


class RowEndpoints(Endpoints):
    """Rows with their cells, and the columns. There are no system columns here."""

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        rows = f"{SHEET_PATH}/rows"
        return [
            get(rows, self.list_rows),
            web.post(rows, self.add_rows),
            get(f"{SHEET_PATH}/columns", self.list_columns),
            web.patch(f"{SHEET_PATH}/columns/{{column_id}}", self.update_column),
        ]

    async def list_rows(self, request: web.Request) -> web.Response:
        """List the rows with their cells by page, and on the first page the columns."""
        sheet = find_sheet(self._workspace, request)
        query = read_table_query(request, _ListRows)
        numbers, next_cursor = page_of(range(sheet.row_count), query)
        dialect = self._workspace.dialect
        body: dict[str, JsonValue] = {
            "data": rows_of(sheet, numbers, dialect),
            "version": sheet.version,
            **paging_fields(next_cursor, query, dialect),
        }
        is_first_page = query.cursor is None
        if is_first_page if query.include_columns is None else query.include_columns:
            body["columns"] = columns_of(sheet, sheet.columns)
        if query.include_row_count:
            body["row_count"] = sheet.row_count
        if query.include_execution_metadata_aggregates:
            body["execution_metadata_aggregates"] = _aggregates(sheet)
        return answer(200, body)

    async def add_rows(self, request: web.Request) -> web.Response:
        """Append rows: 201. Values beyond ``count`` are ignored, and rows without one are empty.

        Only cells of ``TEXT`` columns take a value; the computed cells of a new row are stale.
        """
        sheet = find_sheet(self._workspace, request)
        body = await read_body(request, _AddRows, required=False)
        values = (body.values or [])[: body.count]
        for column_id in {column_id for row in values for column_id in row}:
            try:
                column = sheet.column(column_id)
            except UnknownEvaluationError as error:
                raise refusal(400, str(error)) from None
            if column.type != TEXT:
                raise refusal(400, f"Column {column_id} is not a text column")
        added = sheet.append([*values, *({} for _ in range(body.count - len(values)))])
        return answer(
            201,
            {
                "success": True,
                "rows_created": len(added),
                "start_row_index": added.start,
                "row_indices": list(added),
                "rows": rows_of(sheet, added, self._workspace.dialect),
                "cell_count": len(added) * len(sheet.columns),
                "row_count": sheet.row_count,
                "version": sheet.version,
            },
        )

    async def update_column(self, request: web.Request) -> web.Response:
        """Replace the title or the configuration of a column.

        Another configuration makes the cells of the column stale, and those of the calculated
        columns after it: the description does not say which ones depend on it.
        """
        sheet = find_sheet(self._workspace, request)
        body = await read_body(request, _UpdateColumn)
        column_id = read_uuid(request, "column_id")
        try:
            affected = sheet.update_column(column_id, title=body.title, config=body.config)
        except UnknownEvaluationError as error:
            raise refusal(404, str(error)) from None
        return answer(
            200,
            {
                "success": True,
                "column": columns_of(sheet, [sheet.column(column_id)])[0],
                "requires_recalculation": bool(affected),
                "affected_column_ids": affected,
                "version": sheet.version,
            },
        )

    async def list_columns(self, request: web.Request) -> web.Response:
        """List the columns by page, in their order."""
        sheet = find_sheet(self._workspace, request)
        query = read_table_query(request, _ListColumns)
        columns, next_cursor = page_of(sheet.columns, query)
        return answer(
            200,
            {
                "data": columns_of(sheet, columns),
                **paging_fields(next_cursor, query, self._workspace.dialect),
            },
        )


def rows_of(sheet: SheetState, numbers: Sequence[int], dialect: Dialect) -> list[JsonValue]:
    """Return some rows with their cells as the API shows them."""
    return [
        {
            "row_index": number,
            "cells": {column.id: _cell(sheet, column, number, dialect) for column in sheet.columns},
        }
        for number in numbers
    ]


def _cell(sheet: SheetState, column: Column, row: int, dialect: Dialect) -> JsonValue:
    cell = sheet.cell(column, row)
    is_described = dialect == "description"
    failure = "The cell could not be calculated" if cell.status == FAILED else None
    shown: dict[str, JsonValue] = {
        "id": cell_id(sheet.id, column.id, row),
        "sheet_id": sheet.id,
        "column_id": column.id,
        "row_index": row,
        "status": _DESCRIBED_STATUS[cell.status] if is_described else cell.status,
        "display_value": _display(cell.value),
        "value": cell.value if is_described or cell.value is None else {"value": cell.value},
        "error": failure,
        "error_message": failure,
        "last_computed_version": cell.version,
        "execution_id": cell.execution_id,
    }
    if cell.metrics is not None:
        shown["request_metrics"] = _request_metrics(cell, cell.metrics)
    return shown


def _display(value: JsonValue) -> str | None:
    return value if value is None or isinstance(value, str) else dumps(value)


def _request_metrics(cell: CellState, metrics: RequestMetrics) -> JsonValue:
    return {
        "request_count": 1,
        "request_ids": [cell.request_id],
        "latency_ms": metrics.latency_ms,
        "price": metrics.price,
        "input_tokens": metrics.input_tokens,
        "output_tokens": metrics.output_tokens,
        "trace_ids": [],
    }


def columns_of(sheet: SheetState, columns: Sequence[Column]) -> list[JsonValue]:
    """Return columns as the API shows them."""
    return [
        {
            "id": column.id,
            "sheet_id": sheet.id,
            "workspace_id": 1,
            "title": column.title,
            "type": column.type,
            "config": dict(column.config or {}),
            "position_rank": float(sheet.columns.index(column)),
            "is_output_column": False,
        }
        for column in columns
    ]


def _aggregates(sheet: SheetState) -> JsonValue:
    """Sum up the metrics of the cells, by the metadata column of each metric and for the sheet."""
    by_column: dict[str, JsonValue] = {}
    of_sheet: defaultdict[str, list[float]] = defaultdict(list)
    for column in sheet.columns:
        cells = (sheet.cell(column, row).metrics for row in range(sheet.row_count))
        found = [metrics for metrics in cells if metrics is not None]
        for key in _METRIC_LABELS if found else ():
            values = [value for each in found if (value := getattr(each, key)) is not None]
            of_sheet[key] += values
            identity = derived_id("metadata column", sheet.id, column.id, key)
            ids = {"column_id": identity, "source_column_id": column.id}
            by_column[identity] = {**_aggregate(key, values), **ids}
    return {
        "by_column_id": by_column,
        "sheet": {"by_metric": {key: _aggregate(key, of_sheet[key]) for key in of_sheet}},
    }


def _aggregate(key: str, values: Sequence[float]) -> dict[str, JsonValue]:
    return {
        "metric_key": key,
        "metric_label": _METRIC_LABELS[key],
        "count": len(values),
        "sum": sum(values),
        "avg": sum(values) / len(values) if values else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
    }
