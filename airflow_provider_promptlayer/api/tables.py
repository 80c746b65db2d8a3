# SPDX-License-Identifier: Apache-2.0
"""Tables: recalculating the cells of a sheet, and what the answers say.

Facts are those of PromptLayer's published API description ("Create Table Sheet Operation", "Get
Table Sheet Operation", "Cancel Table Sheet Operation"); what it leaves open is noted where it
matters. :mod:`.cells` reads the counts of a whole sheet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, TypeAlias
from urllib.parse import quote

from airflow_provider_promptlayer.api.arguments import (
    choices,
    encode,
    list_of,
    opaque_text,
    row_number,
    uuid,
)
from airflow_provider_promptlayer.api.errors import (
    PromptLayerConfirmationNeededError,
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.job import Identified, IdParsers, RemoteJob
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.submit import submit_call
from airflow_provider_promptlayer.api.text import one_line

ALL: Final = "all"
"""In place of a list of statuses: cells of every status, also those that are calculated."""

_CANCELLED: Final = frozenset({"cancelled", "canceled"})

_FINAL: Final = _CANCELLED | {"completed", "failed"}
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


@dataclass(frozen=True)
class Sheet(Identified):
    """A sheet of a table, each known by a UUID."""

    table_id: str
    sheet_id: str

    id_parsers: ClassVar[IdParsers] = {"table_id": uuid, "sheet_id": uuid}

    @property
    def page(self) -> Page:
        """The web page of the sheet."""
        return Page("sheet", (self.table_id, self.sheet_id))

    def request(
        self,
        method: Literal["GET", "POST", "PATCH", "DELETE"],
        path: str,
        purpose: str,
        body: bytes | None = None,
    ) -> Request:
        """Return a request for a path below the sheet's own."""
        sheet = f"/api/public/v2/tables/{self.table_id}/sheets/{self.sheet_id}"
        return Request(method, f"{sheet}/{path}", purpose, body)


@dataclass(frozen=True, slots=True)
class QueuedOperation:
    """A recalculation that PromptLayer has accepted (202).

    :param cell_count: None where the answer does not say.
    :param execution_ids: of the executions that calculate the cells, as far as the answer has them.
    """

    operation_id: str
    cell_count: int | None
    execution_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """No cell fits the selection, so nothing was started.

    That does not mean that the cells are calculated: cells of an operation that is under way are
    no longer stale, and neither are cells that failed. The counts of :class:`.SheetCells` tell.
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
    """What a poll of an operation has found.

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
        """Whether the operation has ended, well or badly.

        Its status or its counts decide, as the status can lag behind them.
        """
        return self.status.strip().lower() in _FINAL or self.is_counted_out

    @property
    def is_counted_out(self) -> bool:
        """Whether every cell has ended by the counts, whatever the status says."""
        return self.pending_count == 0 and self.done_count >= self.cell_count > 0

    @property
    def is_cancelled(self) -> bool:
        """Whether the operation was cancelled."""
        return self.status.strip().lower() in _CANCELLED

    @property
    def has_failed(self) -> bool:
        """Whether PromptLayer calls the operation failed; cells may have failed without that."""
        return self.status.strip().lower() == "failed"

    @property
    def broke_off(self) -> bool:
        """Whether PromptLayer gave the operation up before all cells had ended."""
        return self.has_failed and not self.is_counted_out

    @property
    def done_count(self) -> int:
        """The cells that have ended, well or badly."""
        return self.completed_count + self.failed_count

    @property
    def progress(self) -> str:
        """One line for people: ``"37 of 120 cells done, 2 failed"``."""
        line = progress_of_cells(self.done_count, self.cell_count, self.failed_count)
        return line + (", cancelled" if self.is_cancelled else "")


@dataclass(frozen=True, slots=True)
class CancelledOperation:
    """What a cancellation has done.

    :param cancelled_cell_count: 0 where the operation was not active any more.
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
) -> Call[OperationAnswer]:
    """``POST …/operations``: recalculate cells of a sheet.

    Arguments: :meth:`.PromptLayerHook.run_table_operation`; each list may also be JSON. Columns of
    text cannot be recalculated.

    A repeat does harm. With ``statuses`` that cover more than stale cells it calculates, and
    bills, them again. With stale cells alone, which is the default, it finds them queued and
    answers that there is nothing to do, which is not a success.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    sheet = Sheet(table_id, sheet_id)
    body: dict[str, Any] = {
        "operation": "recalculate",
        "column_ids": list_of(uuid, "column_ids", column_ids),
        "row_ids": list_of(row_number, "row_ids", row_ids),
        "statuses": cell_statuses(statuses),
    }
    return submit_call(
        sheet.request(
            "POST",
            "operations",
            f"recalculate the cells of sheet {sheet.sheet_id}",
            encode("statuses", {name: value for name, value in body.items() if value is not None}),
        ),
        _read_answer,
        id_field="operation_id",
        advice=(
            "A recalculation may have been queued all the same, so it was not asked for again: "
            "look at the sheet in PromptLayer before you clear this task."
        ),
        hints={404: "Check table_id, sheet_id and column_ids, and the workspace of the key."},
    )


def cell_statuses(value: Any) -> list[str] | None:
    """Return statuses of cells to select by; empty for all, None for PromptLayer's default.

    :param value: a list of words of :class:`CellStatus`, which may be JSON; or :data:`ALL`.
    :raises PromptLayerInvalidInputError: for anything else.
    """
    if isinstance(value, str) and value.strip().casefold() == ALL:
        return []
    return choices("statuses", value, list(CellStatus), otherwise=f', or "{ALL}"')


def confirmed(call: Call[OperationAnswer], needed: ConfirmationNeeded) -> Call[OperationAnswer]:
    """Return the same recalculation with the token by which PromptLayer takes so large a job."""
    request = call.request
    body = {**request.fields, "confirmation_token": needed.confirmation_token}
    return replace(call, request=replace(request, body=encode("confirmation_token", body)))


@dataclass(frozen=True)
class SheetOperation(Sheet, RemoteJob[TableOperation]):
    """A recalculation of a sheet's cells, as a job to wait for."""

    operation_id: str

    id_parsers: ClassVar[IdParsers] = {**Sheet.id_parsers, "operation_id": opaque_text}
    noun = "table operation"
    counted_as = "recalculation"

    def fetch_call(self) -> Call[TableOperation]:
        """``GET …/operations/{operation_id}``: ask for the counts of the operation's cells."""
        return object_call(
            self._own_request("GET", "poll"),
            lambda answer: read_operation(answer.object("operation")),
        )

    def cancel_call(self) -> Call[CancelledOperation]:
        """``DELETE …/operations/{operation_id}``: cancel the operation; a repeat does no harm.

        200 is also the answer where the operation was not active any more.
        """
        return object_call(
            self._own_request("DELETE", "cancel"),
            lambda answer: CancelledOperation(
                answer.count("cancelled_cell_count"), _message(answer)
            ),
        )

    def cancel(self) -> Call[bool]:
        """Ask to cancel the operation; the result tells whether cells were left to calculate."""
        return self.cancel_call().then(lambda cancelled: cancelled.cancelled_cell_count > 0)

    def _own_request(self, method: Literal["GET", "DELETE"], action: str) -> Request:
        path = f"operations/{quote(self.operation_id, safe='')}"
        purpose = f"{action} operation {one_line(self.operation_id, 80)}"
        return self.request(method, path, purpose)


def unconfirmed(
    needed: ConfirmationNeeded, *, was_confirmed: bool
) -> PromptLayerConfirmationNeededError:
    """Return the error for a large job that was not confirmed, or whose confirmation failed.

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


def show_count(count: int) -> str:
    """Return a count for people; Python does not write out integers of thousands of digits."""
    return str(count) if count < 10**18 else "countless"


def progress_of_cells(done: int, total: int, failed: int) -> str:
    """Return a line for people: ``"37 of 120 cells done, 2 failed"``."""
    line = f"{show_count(done)} of {show_count(total)} cells done"
    return line + (f", {show_count(failed)} failed" if failed else "")


def read_operation(fields: Fields) -> TableOperation:
    """Return the operation that an object of an answer describes.

    :raises FieldError: if it is not as documented.
    """
    return TableOperation(
        operation_id=_operation_id(fields),
        status=fields.text("status"),
        cell_count=fields.count("cell_count"),
        completed_count=fields.count("completed_count"),
        failed_count=fields.count("failed_count"),
        pending_count=fields.count("pending_count"),
        status_counts=fields.counts_if_any("status_counts"),
    )


def _read_answer(answer: Fields) -> OperationAnswer:
    if answer.get("operation_id") is not None:  # whatever else the answer says, it goes on
        return QueuedOperation(
            _operation_id(answer), answer.count_if_any("cell_count"), _execution_ids(answer)
        )
    # ``success`` says nothing here: it is false in an answer that asks for confirmation.
    if answer.flag("requires_confirmation"):
        return ConfirmationNeeded(
            answer.text("confirmation_token"), answer.count("affected_cell_count"), _message(answer)
        )
    if answer.count("cell_count") == 0:
        return NothingToDo()
    raise FieldError("has no operation_id")


def _message(answer: Fields) -> str:
    return one_line(answer.text_if_any("message") or "")


def _execution_ids(answer: Fields) -> tuple[str, ...]:
    found = answer.get("execution_ids")
    ids = [*(found if isinstance(found, list) else ()), answer.get("execution_id")]
    return tuple(dict.fromkeys(each for each in ids if isinstance(each, str)))


def _operation_id(fields: Fields) -> str:
    try:  # a number is an id too: the id of what is billed already is never thrown away
        return opaque_text("operation_id", fields.get("operation_id"))
    except PromptLayerInvalidInputError:
        raise FieldError("has no operation_id") from None
