# SPDX-License-Identifier: Apache-2.0
"""Tables and sheets: ``/api/public/v2/tables`` down to ``…/sheets/{sheet_id}``.

Optional fields that would always be null are left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from pydantic import StringConstraints

from ..http.app import answer, get, refusal
from ..http.validation import Body, Int64, Integer, read_body, read_query
from ..json_text import JsonValue
from .imports import SheetSource, accepted, start_import
from .paging import (
    SHEET_PATH,
    SHEETS_PATH,
    TABLE_PATH,
    TABLES_PATH,
    Endpoints,
    Paging,
    find_sheet,
    find_table,
    page_of,
    paging_fields,
)
from .sheet import SheetState, TableState

_Title = Annotated[str, StringConstraints(max_length=255)]


class _ListSheets(Paging):
    # Validated and then ignored: no column here uses a prompt.
    prompt_id: Integer | None = None
    prompt_version_id: Integer | None = None
    prompt_label_id: Integer | None = None


class _ListTables(_ListSheets):
    order: Literal["asc", "desc"] = "desc"
    folder_id: Integer | None = None
    name: str | None = None


class _CreateTable(Body):
    title: _Title | None = None
    folder_id: Int64 | None = None
    create_default_sheet: bool = True


class _CreateSheet(Body):
    title: _Title | None = None
    index: Int64 | None = None
    operation_id: str | None = None
    source: SheetSource | None = None


class TableEndpoints(Endpoints):
    """Tables and sheets: listed, described and created."""

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        return [
            get(TABLES_PATH, self.list_tables),
            web.post(TABLES_PATH, self.create_table),
            get(TABLE_PATH, self.get_table),
            get(SHEETS_PATH, self.list_sheets),
            web.post(SHEETS_PATH, self.create_sheet),
            get(SHEET_PATH, self.get_sheet),
        ]

    async def list_tables(self, request: web.Request) -> web.Response:
        """List tables by page, newest first; ``name`` finds a part of a title in any case."""
        query = read_query(request, _ListTables)
        wanted = (query.name or "").lower()
        found = [
            table
            for table in self._workspace.tables
            if wanted in table.title.lower() and query.folder_id in (None, table.folder_id)
        ]
        tables, next_cursor = page_of(found, query)
        return answer(
            200,
            {
                "data": [self._table(table) for table in tables],
                **paging_fields(next_cursor, query, self._workspace.dialect),
            },
        )

    async def create_table(self, request: web.Request) -> web.Response:
        """Create a table: 201; another one of the same title is not refused."""
        body = await read_body(request, _CreateTable, required=False)
        table = self._workspace.create_table(
            body.title, folder_id=body.folder_id, with_sheet=body.create_default_sheet
        )
        created = {"success": True, "message": "Table created", "table": self._detail(table)}
        if table.sheets:
            created["default_sheet"] = self._sheet(table.sheets[0])
        return answer(201, created)

    async def get_table(self, request: web.Request) -> web.Response:
        """Describe a table."""
        table = find_table(self._workspace, request)
        return answer(200, {"success": True, "table": self._detail(table)})

    async def list_sheets(self, request: web.Request) -> web.Response:
        """List the sheets of a table by page, in their order."""
        table = find_table(self._workspace, request)
        query = read_query(request, _ListSheets)
        sheets, next_cursor = page_of(table.sheets, query)
        return answer(
            200,
            {
                "data": [self._sheet(sheet) for sheet in sheets],
                **paging_fields(next_cursor, query, self._workspace.dialect),
            },
        )

    async def create_sheet(self, request: web.Request) -> web.Response:
        """Create a blank sheet: 201; or one that an import fills: 202."""
        table = find_table(self._workspace, request)
        body = await read_body(request, _CreateSheet)
        if body.source is None:
            if body.operation_id is not None:
                raise refusal(400, "operation_id needs a source")
            sheet = self._workspace.create_sheet(table, body.title, index=body.index)
            return answer(201, {"success": True, "sheet": self._sheet(sheet)})

        def target() -> SheetState:
            return self._workspace.create_sheet(table, body.title, index=body.index, is_blank=False)

        started = start_import(self._workspace, table, body.operation_id, body.source, target)
        filled = table.sheet(started.sheet_id)
        return answer(202, {**accepted(self._workspace, started), "sheet": self._sheet(filled)})

    async def get_sheet(self, request: web.Request) -> web.Response:
        """Describe a sheet."""
        sheet = find_sheet(self._workspace, request)
        return answer(200, {"success": True, "sheet": self._sheet(sheet)})

    def _table(self, table: TableState) -> dict[str, JsonValue]:
        return {
            "id": table.id,
            "workspace_id": 1,
            "title": table.title,
            "folder_id": table.folder_id,
            "sheet_count": len(table.sheets),
            "created_at": table.created_at,
            "updated_at": table.created_at,
        }

    def _detail(self, table: TableState) -> dict[str, JsonValue]:
        counts = {sheet.id: sheet.row_count for sheet in table.sheets}
        return {**self._table(table), "sheet_row_counts": counts}

    def _sheet(self, sheet: SheetState) -> dict[str, JsonValue]:
        return {
            "id": sheet.id,
            "table_id": sheet.table.id,
            "workspace_id": 1,
            "title": sheet.title,
            "index": sheet.table.sheets.index(sheet),
            "row_count": sheet.row_count,
            "version_count": sheet.version,
            "created_at": sheet.created_at,
            "updated_at": sheet.created_at,
        }
