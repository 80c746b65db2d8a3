# SPDX-License-Identifier: Apache-2.0
"""Tables: recalculating the cells of a sheet, and what the answers say.

Facts are those of PromptLayer's published API description ("Create Table Sheet Operation", "Get
Table Sheet Operation", "List Table Sheet Operations", "Cancel Table Sheet Operation"); what it
leaves open is noted where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from airflow_provider_promptlayer.api.arguments import (
    choices,
    encode,
    opaque_text,
    row_numbers,
    uuid,
    uuids,
)
from airflow_provider_promptlayer.api.fields import FieldError, Fields, read_answer
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.starts import start
from airflow_provider_promptlayer.api.subjects import Subject
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfirmationNeededError,
    PromptLayerInvalidInputError,
)

CANCELLED: Final = frozenset({"cancelled", "canceled"})
"""How an operation or a cell is called that somebody has cancelled, in lower case."""

_FINAL: Final = CANCELLED | {"completed", "failed"}
"""Statuses that end an operation, in lower case.

The description has no list of them; any other says nothing, and the counts decide.
"""


class CellStatus(StrEnum):
    """The statuses of a cell."""

    STALE = "STALE"
    QUEUED = "QUEUED"
    DISPATCHED = "DISPATCHED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


_PENDING: Final = (CellStatus.QUEUED, CellStatus.DISPATCHED, CellStatus.RUNNING)
_UNBLEMISHED: Final = (CellStatus.COMPLETED, CellStatus.STALE)


@dataclass(frozen=True, slots=True)
class QueuedOperation:
    """A recalculation that PromptLayer has accepted (202).

    :param cell_count: None where the answer does not say.
    """

    operation_id: str
    cell_count: int | None


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """No cell fits the selection, so nothing was started.

    It does not tell that the cells are calculated: cells of an operation that is under way are
    no longer stale either. :func:`.cells.selected_cells` tells the one from the other.
    """


@dataclass(frozen=True, slots=True)
class ConfirmationNeeded:
    """The job is large: nothing was started, and PromptLayer asks to send it again with the token.

    :param confirmation_token: for one second POST of the same selection, at once. The
        description does not say how long it holds, nor whether it is bound to the selection.
    :param message: PromptLayer's own words.
    """

    confirmation_token: str = field(repr=False)
    affected_cell_count: int
    message: str


OperationAnswer: TypeAlias = QueuedOperation | NothingToDo | ConfirmationNeeded


@dataclass(frozen=True, slots=True)
class TableOperation:
    """What one look at an operation has shown.

    :param status: as PromptLayer wrote it; any text.
    :param completed_count: cells that have a value; failed ones are not among them.
    :param status_counts: cell status → number of cells.
    """

    operation_id: str
    status: str
    cell_count: int
    completed_count: int
    failed_count: int
    pending_count: int
    status_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether it has ended, well or badly.

        By its status or by its counts, as the status can lag behind them.
        """
        return self.status.strip().lower() in _FINAL or self.is_counted_out

    @property
    def is_counted_out(self) -> bool:
        """Whether every cell has ended by the counts, whatever the status says."""
        return self.pending_count == 0 and self.done_count >= self.cell_count > 0

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody has cancelled it."""
        return self.status.strip().lower() in CANCELLED

    @property
    def has_failed(self) -> bool:
        """Whether PromptLayer calls it failed, which is not the same as having failed cells."""
        return self.status.strip().lower() == "failed"

    @property
    def broke_off(self) -> bool:
        """Whether PromptLayer gave it up before all cells had ended."""
        return self.has_failed and not self.is_counted_out

    @property
    def done_count(self) -> int:
        """The cells that have ended, well or badly."""
        return self.completed_count + self.failed_count

    @property
    def progress(self) -> str:
        """One line for people: ``"37 of 120 cells done, 2 failed"``."""
        line = f"{show_count(self.done_count)} of {show_count(self.cell_count)} cells done"
        if self.failed_count:
            line += f", {show_count(self.failed_count)} failed"
        return line + (", cancelled" if self.is_cancelled else "")


@dataclass(frozen=True, slots=True)
class SheetOperations:
    """The cells of a sheet, and the operations that are under way on it.

    :param pending_count: cells that are queued or being calculated.
    """

    total_cells: int
    pending_count: int
    status_counts: Mapping[str, int]
    active_operations: tuple[TableOperation, ...]

    @property
    def is_idle(self) -> bool:
        """Whether no cell is queued or being calculated, and no operation is under way."""
        pending = sum(self.status_counts.get(status, 0) for status in _PENDING)
        return not (self.pending_count or pending or self.active_operations)

    @property
    def is_unblemished(self) -> bool:
        """Whether each cell is known to be calculated, or stale."""
        good = sum(self.status_counts.get(status, 0) for status in _UNBLEMISHED)
        return good >= self.total_cells and good == sum(self.status_counts.values())


@dataclass(frozen=True, slots=True)
class CancelledOperation:
    """What a cancellation has done.

    :param cancelled_cell_count: 0 where no operation was active any more.
    """

    cancelled_cell_count: int
    message: str


def recalculate_cells(
    table_id: str,
    sheet_id: str,
    *,
    column_ids: Any = None,
    row_ids: Any = None,
    statuses: Any = None,
    confirmation_token: str | None = None,
) -> Call[OperationAnswer]:
    """``POST …/operations``: recalculate cells of a sheet.

    A repeat does harm. With ``statuses`` that cover more than stale cells it calculates, and
    bills, them again. With stale cells alone, which is the default, it finds them queued and
    answers that there is nothing to do, which is no success. So an answer that leaves open
    whether an operation was queued is a :class:`PromptLayerStartUncertainError`.

    :param column_ids: UUIDs of the columns; None for all that are computed. Text columns cannot
        be recalculated.
    :param row_ids: zero-based row numbers; None for all.
    :param statuses: which cells (:class:`CellStatus`); None for the stale ones, ``[]`` for all.
    :param confirmation_token: that of :class:`ConfirmationNeeded`.

    Lists may also be given as text, see :func:`.arguments.items`.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    body: dict[str, Any] = {"operation": "recalculate"}
    for name, value in (
        ("column_ids", uuids("column_ids", column_ids)),
        ("row_ids", row_numbers("row_ids", row_ids)),
        ("statuses", choices("statuses", statuses, [status.value for status in CellStatus])),
        ("confirmation_token", confirmation_token),
    ):
        if value is not None:
            body[name] = value
    sheet = sheet_path(table_id, sheet_id)
    request = Request(
        "POST",
        f"{sheet}/operations",
        f"recalculate the cells of sheet {uuid('sheet_id', sheet_id)}",
        encode("confirmation_token", body),
    )
    return start(
        request,
        _read_answer,
        evidence="operation_id",
        advice=(
            "A recalculation may have been queued all the same, so it was not asked for again: "
            "look at the sheet in PromptLayer before you clear this task."
        ),
        hints={404: "Check table_id, sheet_id and column_ids, and the workspace of the key."},
    )


def table_operation(table_id: str, sheet_id: str, operation_id: str) -> Call[TableOperation]:
    """``GET …/operations/{operation_id}``: look once at an operation.

    :raises PromptLayerInvalidInputError: for an id that is none.
    """
    request = _operation_request("GET", "look at operation", table_id, sheet_id, operation_id)
    return Call(
        request,
        lambda response, now: read_answer(
            request, response, now, lambda answer: _operation(answer.object("operation"))
        ),
    )


def cancel_table_operation(
    table_id: str, sheet_id: str, operation_id: str
) -> Call[CancelledOperation]:
    """``DELETE …/operations/{operation_id}``: cancel it; a repeat does no harm.

    200 is also the answer where it was not active any more.

    :raises PromptLayerInvalidInputError: for an id that is none.
    """
    request = _operation_request("DELETE", "cancel operation", table_id, sheet_id, operation_id)
    return Call(
        request,
        lambda response, now: read_answer(
            request,
            response,
            now,
            lambda answer: CancelledOperation(
                answer.count("cancelled_cell_count"),
                one_line(answer.text_if_any("message") or ""),
            ),
        ),
    )


def sheet_operations(table_id: str, sheet_id: str) -> Call[SheetOperations]:
    """``GET …/operations``: the operations under way on a sheet; a finished one is not listed.

    :raises PromptLayerInvalidInputError: for an id that is none.
    """
    request = Request(
        "GET",
        f"{sheet_path(table_id, sheet_id)}/operations",
        f"list the operations of sheet {uuid('sheet_id', sheet_id)}",
    )
    return Call(
        request,
        lambda response, now: read_answer(
            request,
            response,
            now,
            lambda answer: SheetOperations(
                answer.count("total_cells"),
                answer.count("pending_count"),
                answer.counts("status_counts"),
                tuple(map(_operation, answer.objects("active_operations"))),
            ),
        ),
    )


@dataclass(frozen=True)
class SheetOperation(Subject[TableOperation]):
    """A recalculation of a sheet's cells, as something to wait for."""

    table_id: str
    sheet_id: str
    operation_id: str

    @property
    def id(self) -> str:
        """The ``operation_id``."""
        return self.operation_id

    @property
    def name(self) -> str:
        """What messages call the operation."""
        return f"table operation {one_line(self.operation_id, 80)}"

    def read(self) -> Call[TableOperation]:
        """Ask for the counts of its cells."""
        return table_operation(self.table_id, self.sheet_id, self.operation_id)

    def cancel(self) -> Call[bool]:
        """Ask to cancel it; the result tells whether cells were left to be calculated."""
        call = cancel_table_operation(self.table_id, self.sheet_id, self.operation_id)
        return call.then(lambda cancelled: cancelled.cancelled_cell_count > 0)


def unconfirmed(
    needed: ConfirmationNeeded, *, was_confirmed: bool
) -> PromptLayerConfirmationNeededError:
    """Return the error for a large job that nobody has confirmed, or in vain.

    :param was_confirmed: whether the token was sent, and PromptLayer asked again.
    """
    count = show_count(needed.affected_cell_count)
    said = f" PromptLayer says: {needed.message}" if needed.message else ""
    problem = (
        "PromptLayer asks for a confirmation although one was sent: the job may have changed "
        f"meanwhile, and is now {count} cells large. Clear the task to ask anew."
        if was_confirmed
        else f"The recalculation covers {count} cells, so many that PromptLayer asks for a "
        "confirmation: set confirm_large=True, or choose fewer with column_ids, row_ids or "
        "statuses."
    )
    return PromptLayerConfirmationNeededError(
        f"{problem} Nothing was started.{said}", affected_cell_count=needed.affected_cell_count
    )


def sheet_path(table_id: Any, sheet_id: Any) -> str:
    """Return the path of a sheet.

    :raises PromptLayerInvalidInputError: for an id that is no UUID.
    """
    table, sheet = uuid("table_id", table_id), uuid("sheet_id", sheet_id)
    return f"/api/public/v2/tables/{table}/sheets/{sheet}"


def show_count(count: int) -> str:
    """Return a count for people; Python does not write out integers of thousands of digits."""
    return str(count) if count < 10**18 else "countless"


def _operation_request(
    method: Any, action: str, table_id: str, sheet_id: str, operation_id: str
) -> Request:
    operation_id = opaque_text("operation_id", operation_id)
    return Request(
        method,
        f"{sheet_path(table_id, sheet_id)}/operations/{quote(operation_id, safe='')}",
        f"{action} {one_line(operation_id, 80)}",
    )


def _read_answer(answer: Fields) -> OperationAnswer:
    if answer.get("operation_id") is not None:  # whatever else it says, this goes on
        return QueuedOperation(_operation_id(answer), answer.count_if_any("cell_count"))
    # ``success`` says nothing here: it is false in an answer that asks for confirmation.
    if answer.flag("requires_confirmation"):
        return ConfirmationNeeded(
            answer.text("confirmation_token"),
            answer.count("affected_cell_count"),
            one_line(answer.text_if_any("message") or ""),
        )
    if answer.count("cell_count") == 0:
        return NothingToDo()
    raise FieldError("has no operation_id")


def _operation_id(fields: Fields) -> str:
    try:  # a number is an id too: of what is billed already, none is thrown away
        return opaque_text("operation_id", fields.get("operation_id"))
    except PromptLayerInvalidInputError:
        raise FieldError("has no operation_id") from None


def _operation(fields: Fields) -> TableOperation:
    return TableOperation(
        operation_id=_operation_id(fields),
        status=fields.text("status"),
        cell_count=fields.count("cell_count"),
        completed_count=fields.count("completed_count"),
        failed_count=fields.count("failed_count"),
        pending_count=fields.count("pending_count"),
        status_counts=fields.counts("status_counts"),
    )
