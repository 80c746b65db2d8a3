# SPDX-License-Identifier: Apache-2.0
"""Lists by page below ``/api/public/v2/tables``, and what the paths there name."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field

from ..http.app import refusal
from ..http.dialect import Dialect
from ..http.validation import Integer, read_uuid
from ..json_text import JsonValue
from .runs import UnknownEvaluationError
from .sheet import SheetState, TableState
from .workspace import Workspace

TABLES_PATH = "/api/public/v2/tables"
TABLE_PATH = f"{TABLES_PATH}/{{table_id:[^/]+}}"
SHEETS_PATH = f"{TABLE_PATH}/sheets"
SHEET_PATH = f"{SHEETS_PATH}/{{sheet_id:[^/]+}}"

ItemT = TypeVar("ItemT")
Limit = Annotated[Integer, Field(ge=1, le=100)]


class Endpoints:
    """Requests that are answered from a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace


class Paging(BaseModel):
    """The part of a query that asks for a page."""

    cursor: str | None = None
    limit: Limit = 20
    order: Literal["asc", "desc"] = "asc"


def page_of(items: Sequence[ItemT], query: Paging) -> tuple[Sequence[ItemT], str | None]:
    """Return the items of one page, and the cursor of the next.

    A cursor is valid only for the order and the filters it was made for.
    """
    ordered = items if query.order == "asc" else items[::-1]
    filters = [
        f"{name}={value!r}"
        for name, value in query
        if name not in Paging.model_fields and not name.startswith("include_")
    ]
    made_for = f"{query.order}-{zlib.crc32(ascii(filters).encode()):08x}"
    first = 0
    if query.cursor is not None:
        found = re.fullmatch(rf"{made_for}-([0-9]{{1,9}})", query.cursor)
        if found is None:
            raise refusal(400, "Invalid query parameter cursor")
        first = int(found[1])
    end = first + query.limit
    return ordered[first:end], f"{made_for}-{end}" if end < len(ordered) else None


def paging_fields(next_cursor: str | None, query: Paging, dialect: Dialect) -> dict[str, JsonValue]:
    """Return the fields of an answer that say whether there is a next page.

    They are at the top level in the description, and in ``pagination`` in PromptLayer's libraries
    and in what the description says of versions.
    """
    has_more = next_cursor is not None
    at_the_top = {"next_cursor": next_cursor, "has_more": has_more}
    pagination: dict[str, Any] = {**at_the_top, "prev_cursor": None, "limit": query.limit}
    return {**(at_the_top if dialect == "description" else {}), "pagination": pagination}


def find_table(workspace: Workspace, request: web.Request) -> TableState:
    """Return the table that a path names, or refuse with 400 or 404."""
    try:
        return workspace.table(read_uuid(request, "table_id"))
    except UnknownEvaluationError as error:
        raise refusal(404, str(error)) from None


def find_sheet(workspace: Workspace, request: web.Request) -> SheetState:
    """Return the sheet that a path names, or refuse with 400 or 404."""
    table_id, sheet_id = read_uuid(request, "table_id"), read_uuid(request, "sheet_id")
    try:
        return workspace.sheet(table_id, sheet_id)
    except UnknownEvaluationError as error:
        raise refusal(404, str(error)) from None
