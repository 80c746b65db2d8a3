# SPDX-License-Identifier: Apache-2.0
"""Imports into a sheet, from a file or from request logs, and how far they are."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal, Self

from aiohttp import web
from pydantic import Field, StringConstraints, model_validator

from ..http.app import answer, get, refusal
from ..http.validation import Body, TableBody, read_table_body
from ..json_text import JsonValue
from .cases import ReadCases, read_csv, read_json
from .paging import SHEET_PATH, SHEETS_PATH, TABLES_PATH, Endpoints, find_sheet, find_table
from .request_logs import LogQuery, RequestLog, SheetLogQuery
from .runs import Import
from .sheet import SheetState, TableState
from .workspace import Workspace

_LARGEST_FILE = 100 * 2**20
_CSV = r"(?i)\.csv$"
_READERS = {".csv": read_csv, ".json": read_json}
# How PromptLayer's libraries and older pages call a status of the description.
_STATUS_OF_LIBRARIES = {"pending": "queued", "completed": "succeeded"}


class _File(Body):
    """A file whose content is a part of the body."""

    kind: ClassVar[str] = "file"

    file_name: str
    file_content_base64: str

    def reader(self, _logs: Sequence[RequestLog]) -> ReadCases:
        """Return what reads the file by the ending of its name, or refuse with 400."""
        ending = next((each for each in _READERS if self.file_name.lower().endswith(each)), None)
        if ending is None:
            raise refusal(400, f"Unsupported file type: {self.file_name!r}")
        try:
            content = base64.b64decode(self.file_content_base64, validate=True)
        except ValueError:
            raise refusal(400, "file_content_base64 is not valid base64") from None
        if len(content) > _LARGEST_FILE:
            raise refusal(400, "The file is larger than 100 MB")
        return partial(_READERS[ending], content)


class _Logs(LogQuery):
    """Request logs that a query finds."""

    kind: ClassVar[str] = "request_logs"
    file_name: ClassVar[None] = None

    def reader(self, logs: Sequence[RequestLog]) -> ReadCases:
        """Return what reads the logs."""
        return partial(self.cases, logs)


class _FileOfSheet(_File):
    type: Literal["file"]


class _LogsOfSheet(_Logs, SheetLogQuery):
    type: Literal["request_logs"]


SheetSource = Annotated[_FileOfSheet | _LogsOfSheet, Field(discriminator="type")]
"""What a new sheet is made of."""


class _ImportFile(_File, TableBody):
    operation_id: str | None = None
    file_name: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=_CSV)]
    file_content_base64: Annotated[str, StringConstraints(min_length=1)]


class _ImportLogs(_Logs, TableBody):
    operation_id: str | None = None

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if (self.request_log_ids is None) == (self.filter_group is None):
            raise ValueError("either request_log_ids or filter_group")
        return self


class ImportEndpoints(Endpoints):
    """Imports into a sheet that exists, and the state of every import."""

    @property
    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        return [
            get(f"{SHEETS_PATH}/operations/{{operation_id:[^/]+}}", self.get_import),
            web.post(f"{SHEET_PATH}/imports/file", self.import_file),
            web.post(f"{SHEET_PATH}/imports/request-logs", self.import_request_logs),
        ]

    async def get_import(self, request: web.Request) -> web.Response:
        """Return the state of an import, also after its end; 404 if it was never started."""
        table = find_table(self._workspace, request)
        found = self._workspace.find_import(table.id, request.match_info["operation_id"])
        if found is None:
            raise refusal(404, "Operation not found")
        return answer(200, {"success": True, "operation": _operation(self._workspace, found)})

    async def import_file(self, request: web.Request) -> web.Response:
        """Start the import of a CSV file: 202, also if the file turns out to be unusable."""
        return await self._import(request, _ImportFile)

    async def import_request_logs(self, request: web.Request) -> web.Response:
        """Start the import of request logs: 202, also if there are none."""
        return await self._import(request, _ImportLogs)

    async def _import(
        self, request: web.Request, model: type[_ImportFile | _ImportLogs]
    ) -> web.Response:
        sheet = find_sheet(self._workspace, request)
        body = await read_table_body(request, model, required=True)

        def target() -> SheetState:
            if self._workspace.is_importing(sheet):
                raise refusal(409, "Another import into this sheet is in progress")
            return sheet

        started = start_import(self._workspace, sheet.table, body.operation_id, body, target)
        return answer(202, {**accepted(self._workspace, started), "status_url": _url(started)})


def start_import(
    workspace: Workspace,
    table: TableState,
    operation_id: str | None,
    source: _File | _Logs,
    target: Callable[[], SheetState],
) -> Import:
    """Start an import into the sheet that ``target`` returns, or refuse.

    Unless its ``operation_id`` is known: then do what the server is told to.
    """
    read = source.reader(workspace.request_logs)
    known = workspace.find_import(table.id, operation_id)
    if known is not None and workspace.repeated_import == "same":
        return known
    if known is not None and workspace.repeated_import == "conflict":
        raise refusal(409, f"Operation {operation_id} already exists")
    return workspace.start_import(
        target(),
        read,
        source=source.kind,
        file_name=source.file_name,
        operation_id=operation_id,
        was_posted=True,
    )


def accepted(workspace: Workspace, started: Import) -> dict[str, JsonValue]:
    """Return the fields that every 202 of an import has."""
    return {
        "success": True,
        "message": "Import started",
        "operation_id": started.operation_id,
        "operation": _operation(workspace, started),
    }


def _operation(workspace: Workspace, found: Import) -> JsonValue:
    """Return an import as the API shows it."""
    status, is_described = found.status, workspace.dialect == "description"
    return {
        "operation_id": found.operation_id,
        "source": found.source,
        "status": status if is_described else _STATUS_OF_LIBRARIES.get(status, status),
        "progress": 100 if found.has_ended else 0,
        "message": None,
        "rows_added": found.rows_added,
        "row_count": found.row_count,
        "file_name": found.file_name,
        "error_message": found.error_message,
        "created_at": found.created_at,
        "updated_at": workspace.timestamp(
            found.started_at + found.duration if found.has_ended else None
        ),
    }


def _url(found: Import) -> str:
    return f"{TABLES_PATH}/{found.table_id}/sheets/operations/{found.operation_id}"
