# SPDX-License-Identifier: Apache-2.0
"""What has become of some of a sheet's cells, whatever has calculated them.

Facts are those of PromptLayer's published API description ("List Rows", "List Table Sheet
Operations"); what it leaves open is noted where it matters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from airflow_provider_promptlayer.api.arguments import row_numbers, uuid, uuids
from airflow_provider_promptlayer.api.errors import (
    PromptLayerTransientError,
    PromptLayerUnexpectedAnswerError,
)
from airflow_provider_promptlayer.api.fields import FieldError, Fields, read_answer
from airflow_provider_promptlayer.api.flow import CallFlow
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.tables import (
    CANCELLED,
    TableOperation,
    sheet_operations,
    sheet_path,
    show_count,
)

PAGE: Final = 100
"""The most rows that PromptLayer puts on a page."""

_NOT_COMPUTED: Final = frozenset({"TEXT", "COMPOSITION"})
"""Column types whose cells are typed in, or refer to others; all other types are computed."""

_PENDING: Final = frozenset({"queued", "dispatched", "running"})
"""The description lists no ``dispatched`` for a row's cells; for those of an operation it does."""

_FAILED: Final = frozenset({"error", "failed"})
"""A row's cell that has failed is an ``error``; in the counts of a sheet it is ``FAILED``."""


_STATES: Final = ("completed", "failed", "pending", "stale", "cancelled", "other")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a sheet.

    :param row_index: zero-based.
    :param statuses: id of a column → the status of its cell, in lower case; None where the answer
        has none.
    """

    row_index: int
    statuses: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of rows.

    :param next_cursor: for the next page, or None after the last.
    :param column_types: id of a column → its type, in upper case; None where the answer does not
        describe the columns, as on later pages.
    """

    rows: tuple[Row, ...]
    next_cursor: str | None
    column_types: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Selection:
    """Some of a sheet's cells.

    :param column_ids: UUIDs in lower case; None for the columns that are computed.
    :param row_ids: zero-based row numbers; None for all.
    """

    table_id: str
    sheet_id: str
    column_ids: frozenset[str] | None = None
    row_ids: frozenset[int] | None = None

    @classmethod
    def of(cls, table_id: Any, sheet_id: Any, column_ids: Any, row_ids: Any) -> Selection:
        """Return a selection, given as for :func:`.recalculate_cells`.

        :raises PromptLayerInvalidInputError: for an argument that is none.
        """
        columns, rows = uuids("column_ids", column_ids), row_numbers("row_ids", row_ids)
        return cls(
            uuid("table_id", table_id),
            uuid("sheet_id", sheet_id),
            None if columns is None else frozenset(columns),
            None if rows is None else frozenset(rows),
        )


@dataclass(frozen=True, slots=True)
class SelectedCells:
    """How many cells of a selection are in which state.

    :param pending: queued or being calculated. Where there are any, the rest may not have been
        counted.
    :param other: of a status that nobody knows.
    """

    completed: int = 0
    failed: int = 0
    pending: int = 0
    stale: int = 0
    cancelled: int = 0
    other: int = 0

    @property
    def count(self) -> int:
        """All cells."""
        return (
            self.completed + self.failed + self.pending + self.stale + self.cancelled + self.other
        )

    @property
    def progress(self) -> str:
        """One line for people: ``"3 of 4 cells done, 1 failed"``."""
        line = f"{show_count(self.completed + self.failed)} of {show_count(self.count)} cells done"
        return line + (f", {show_count(self.failed)} failed" if self.failed else "")


def sheet_rows(table_id: str, sheet_id: str, *, cursor: str | None = None) -> Call[Rows]:
    """``GET …/rows``: a page of up to a hundred rows, of whose cells the statuses alone are kept.

    :param cursor: ``next_cursor`` of the page before; None for the first page, which describes
        the columns too.
    :raises PromptLayerInvalidInputError: for an id that is no UUID.
    """
    query: dict[str, str | int] = {"limit": PAGE, "include_row_count": "false"}
    query |= {"include_columns": "true"} if cursor is None else {"cursor": cursor}
    request = Request(
        "GET",
        # A cursor may hold anything, even what no UTF-8 has.
        f"{sheet_path(table_id, sheet_id)}/rows?{urlencode(query, errors='surrogatepass')}",
        f"list the rows of sheet {uuid('sheet_id', sheet_id)}",
    )
    # Not decoded as an outline, which keeps no lists: the rows are one.
    return Call(request, lambda response, now: read_answer(request, response, now, _rows))


def selected_cells(selection: Selection) -> CallFlow[SelectedCells]:
    """Count the cells of a selection, page by page, until it is clear what is to be done.

    That is so at the last of its rows, and on a page that has a pending cell.

    :raises PromptLayerUnexpectedAnswerError: if the pages lead back to an earlier one.
    """
    columns, wanted = selection.column_ids, selection.row_ids
    counts = dict.fromkeys(_STATES, 0)
    cursor: str | None = None
    cursors: set[str] = set()
    rows: set[int] = set()
    while True:
        page: Rows = yield sheet_rows(selection.table_id, selection.sheet_id, cursor=cursor)
        if columns is None:
            columns = _computed(page)
        rows_before = len(rows)
        for row in page.rows:
            if row.row_index in rows:
                continue  # it has moved to this page since the last one was read
            rows.add(row.row_index)
            if wanted is not None and row.row_index not in wanted:
                continue
            # A cell that the row does not have is none that PromptLayer would calculate.
            for column_id in columns & row.statuses.keys():
                counts[_state(row.statuses[column_id])] += 1
        cursor = page.next_cursor
        if cursor is None or counts["pending"] or (wanted is not None and wanted <= rows):
            return SelectedCells(**counts)
        if cursor in cursors or len(rows) == rows_before:
            raise PromptLayerUnexpectedAnswerError(
                f"Could not list the rows of sheet {selection.sheet_id}: the pages lead back."
            )
        cursors.add(cursor)


def calculated_elsewhere(
    selection: Selection, *, not_for: Collection[str] = ()
) -> CallFlow[tuple[SelectedCells, TableOperation | None]]:
    """Return what has become of cells that something else may be calculating.

    :param not_for: operations that have ended, whatever the list says.
    :returns: the cells; and the operation to wait for before the next look, where cells are
        pending. Which operation calculates which cells PromptLayer does not say, so that is the one
        with the fewest cells left: the wait for it is the least likely to outlast those that are
        meant.
    :raises PromptLayerTransientError: if cells are pending and no operation is listed.
    """
    for _ in range(2):  # an operation may have ended between the two answers
        cells = yield from selected_cells(selection)
        if not cells.pending:
            return cells, None
        sheet = yield sheet_operations(selection.table_id, selection.sheet_id)
        active = [
            operation
            for operation in sheet.active_operations
            if not operation.is_complete and operation.operation_id not in not_for
        ]
        if active:
            return cells, min(active, key=lambda operation: operation.pending_count)
    raise PromptLayerTransientError(
        f"Cells of the selection are queued or being calculated ({show_count(cells.pending)} at "
        "least), and PromptLayer lists no operation to wait for. Nothing was started: try again "
        "later."
    )


def _rows(answer: Fields) -> Rows:
    described = answer.get("columns") is not None
    rows = tuple(map(_row, answer.objects("data")))
    return Rows(
        rows=rows,
        next_cursor=_next_cursor(answer, is_full=len(rows) >= PAGE),
        column_types={
            column.text("id").lower(): column.text("type").upper()
            for column in answer.objects("columns")
        }
        if described
        else None,
    )


def _next_cursor(answer: Fields, *, is_full: bool) -> str | None:
    """Return the cursor of the next page, or None after the last.

    The description has it at the top of the answer; PromptLayer's own libraries read it from
    ``pagination``. Either may be there, or both. A full page that says neither how to go on nor
    that it is the last proves no end: what follows it may have failed.
    """
    pagination = answer.object_or_none("pagination")
    places = [answer] if pagination is None else [answer, pagination]
    found = [(place.text_or_none("next_cursor"), place.get("has_more")) for place in places]
    cursors = {cursor for cursor, has_more in found if cursor and has_more is not False}
    if len(cursors) > 1:
        raise FieldError("has two different values of next_cursor")
    if cursors:
        return cursors.pop()
    if any(has_more is True for _, has_more in found):
        raise FieldError("has more rows and no next_cursor")
    if is_full and not any(has_more is False for _, has_more in found):
        raise FieldError("is a full page of rows that does not say whether more follow")
    return None


def _row(fields: Fields) -> Row:
    statuses = {}
    cells = fields.object("cells")
    for column_id in fields.mapping_or_none("cells") or ():
        status = cells.object(column_id).text_or_none("status")
        statuses[column_id.lower()] = None if status is None else status.strip().lower()
    return Row(fields.count("row_index"), statuses)


def _computed(page: Rows) -> frozenset[str]:
    types = page.column_types
    if types is None:
        raise PromptLayerUnexpectedAnswerError(
            "Could not tell which columns are computed: the rows came without columns."
        )
    return frozenset(
        column_id for column_id, column_type in types.items() if column_type not in _NOT_COMPUTED
    )


def _state(status: str | None) -> str:
    if status in _PENDING:
        return "pending"
    if status in _FAILED:
        return "failed"
    if status in CANCELLED:
        return "cancelled"
    return status if status in ("completed", "stale") else "other"
