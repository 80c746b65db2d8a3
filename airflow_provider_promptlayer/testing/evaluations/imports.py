# SPDX-License-Identifier: Apache-2.0
"""Imports into a sheet, from a file or from request logs, and how far they are."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, Self

from aiohttp import web
from pydantic import Field, StringConstraints, model_validator

from ..http.app import answer, get, refusal
from ..http.validation import Body, TableBody, read_table_body
from ..json_text import JsonValue
from .cases import ReadCases, read_csv, read_json
from .paging import SHEET_PATH, SHEETS_PATH, TABLES_PATH, find_sheet, find_table
from .request_logs import LogQuery, SheetLogQuery
from .runs import Import
from .sheet import SheetState
from .workspace import Workspace

_LARGEST_FILE = 100 * 2**20
_READERS = {".csv": read_csv, ".json": read_json}
# How PromptLayer's libraries and older pages call a status of the description.
_STATUS_OF_LIBRARIES = {"pending": "queued", "completed": "succeeded"}


class FileSource(Body):
    """The file that a new sheet is made of."""

    type: Literal["file"]
    file_name: str
    file_content_base64: str


class LogsSource(SheetLogQuery):
    """The request logs that a new sheet is made of."""

    type: Literal["request_logs"]


SheetSource = Annotated[FileSource | LogsSource, Field(discriminator="type")]


class _ImportFile(TableBody):
    operation_id: str | None = None
    file_name: Annotated[
        str, StringConstraints(min_length=1, max_length=255, pattern=r"(?i)\.csv$")
    ]
    file_content_base64: Annotated[str, StringConstraints(min_length=1)]


class _ImportLogs(LogQuery, TableBody):
    operation_id: str | None = None

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if (self.request_log_ids is None) == (self.filter_group is None):
            raise ValueError("either request_log_ids or filter_group")
        return self


class ImportEndpoints:
    """Imports into a sheet that exists, and the state of every import."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

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
        return answer(200, {"success": True, "operation": operation_of(self._workspace, found)})

    async def import_file(self, request: web.Request) -> web.Response:
        """Start the import of a CSV file: 202, also if the file turns out to be unusable."""
        sheet = find_sheet(self._workspace, request)
        body = await read_table_body(request, _ImportFile, required=True)
        read = read_file(body.file_name, body.file_content_base64)
        return self._start(sheet, body.operation_id, read, body.file_name)

    async def import_request_logs(self, request: web.Request) -> web.Response:
        """Start the import of request logs: 202, also if there are none."""
        sheet = find_sheet(self._workspace, request)
        body = await read_table_body(request, _ImportLogs, required=True)
        return self._start(sheet, body.operation_id, self._workspace.read_logs(body))

    def _start(
        self,
        sheet: SheetState,
        operation_id: str | None,
        read: ReadCases,
        file_name: str | None = None,
    ) -> web.Response:
        def begin() -> Import:
            if self._workspace.is_importing(sheet):
                raise refusal(409, "Another import into this sheet is in progress")
            return start_import(self._workspace, sheet, read, operation_id, file_name)

        started = started_once(self._workspace, sheet.table.id, operation_id, begin)
        return answer(202, {**accepted(self._workspace, started), "status_url": _url(started)})


def started_once(
    workspace: Workspace, table_id: str, operation_id: str | None, begin: Callable[[], Import]
) -> Import:
    """Begin an import, unless its ``operation_id`` is known: then do as the server is told."""
    known = workspace.find_import(table_id, operation_id)
    if known is None or workspace.repeated_import == "again":
        return begin()
    if workspace.repeated_import == "conflict":
        raise refusal(409, f"Operation {operation_id} already exists")
    return known


def start_import(
    workspace: Workspace,
    sheet: SheetState,
    read: ReadCases,
    operation_id: str | None,
    file_name: str | None,
) -> Import:
    """Start an import that was asked for by a request."""
    return workspace.start_import(
        sheet,
        read,
        source="request_logs" if file_name is None else "file",
        file_name=file_name,
        operation_id=operation_id,
        was_posted=True,
    )


def read_file(file_name: str, content_base64: str) -> ReadCases:
    """Return what reads a file by the ending of its name, or refuse with 400."""
    ending = next((each for each in _READERS if file_name.lower().endswith(each)), None)
    if ending is None:
        raise refusal(400, f"Unsupported file type: {file_name!r}")
    try:
        content = base64.b64decode(content_base64, validate=True)
    except (binascii.Error, ValueError):
        raise refusal(400, "file_content_base64 is not valid base64") from None
    if len(content) > _LARGEST_FILE:
        raise refusal(400, "The file is larger than 100 MB")
    return partial(_READERS[ending], content)


def accepted(workspace: Workspace, started: Import) -> dict[str, JsonValue]:
    """Return the fields that every 202 of an import has."""
    return {
        "success": True,
        "message": "Import started",
        "operation_id": started.operation_id,
        "operation": operation_of(workspace, started),
    }


def operation_of(workspace: Workspace, found: Import) -> JsonValue:
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
        "updated_at": workspace.timestamp(),
    }


def _url(found: Import) -> str:
    return f"{TABLES_PATH}/{found.table_id}/sheets/operations/{found.operation_id}"
