# SPDX-License-Identifier: Apache-2.0
"""What one sheet holds at any moment: its columns, rows, operations and calculations."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..json_text import JsonValue
from ..workflows.model import derived_id
from .cases import Cases, RejectedImportError, check_titles
from .model import Column, RequestMetrics, Sheet
from .runs import (
    CELL_STATUSES,
    COMPLETED,
    FAILED,
    QUEUED,
    RUNNING,
    STALE,
    UNFINISHED,
    Calculation,
    Cell,
    Operation,
    PlannedCell,
    UnknownEvaluationError,
)

TEXT = "TEXT"


class CellState(NamedTuple):
    """A cell at one moment; what is ``None`` does not apply to it."""

    status: str
    value: JsonValue = None
    version: int | None = None
    execution_id: str | None = None
    metrics: RequestMetrics | None = None
    request_id: int | None = None


@dataclass
class TableState:
    """One table with its sheets, in their order."""

    id: str
    title: str
    created_at: str
    folder_id: int | None = None
    sheets: list[SheetState] = field(default_factory=list)

    def sheet(self, sheet_id: str) -> SheetState:
        """Return a sheet; ``UnknownEvaluationError`` if there is none of that id."""
        for sheet in self.sheets:
            if sheet.id == sheet_id.lower():
                return sheet
        raise UnknownEvaluationError("Sheet not found")


@dataclass(frozen=True)
class SavedVersion:
    """A snapshot of a sheet, with the latest calculation that had completed."""

    id: str
    number: int
    name: str | None
    created_at: str
    calculation: Calculation | None
    snapshot: JsonValue = field(repr=False)
    columns: Sequence[Column] = field(repr=False)
    rows: Sequence[Mapping[str, JsonValue]] = field(repr=False)


class SheetState:
    """One sheet; its operations and calculations are by id, oldest first.

    Safe to use from any thread.
    """

    def __init__(
        self,
        table: TableState,
        sheet: Sheet,
        clock: Callable[[], float],
        numbers: Iterator[int],
        lock: threading.RLock,
    ) -> None:
        self.table = table
        self.id = sheet.id
        self.title = sheet.title
        self.created_at = table.created_at
        self.scorecard = sheet.scorecard
        self.now = clock
        self.columns = list(sheet.columns)
        self.operations: dict[str, Operation] = {}
        self.calculations: dict[str, Calculation] = {}
        self.versions: list[SavedVersion] = []
        self.version = 1
        """Its number rises with every change: an operation, an import, added rows."""
        self._definition = sheet
        ids = {column.title: column.id for column in sheet.columns}
        self._rows: list[Mapping[str, JsonValue]] = [
            {ids[title]: value for title, value in row.items()}
            for row in ([{}] * sheet.row_count if sheet.rows is None else sheet.rows)
        ]
        self._planned: dict[Cell, tuple[str, PlannedCell]] = {}
        self._numbers = numbers
        self._tokens: dict[str, frozenset[Cell]] = {}
        self._lock = lock

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def column(self, column_id: str) -> Column:
        """Return a column; ``UnknownEvaluationError`` if there is none of that id."""
        for column in self.columns:
            if column.id == column_id:
                return column
        raise UnknownEvaluationError(f"Column {column_id} not found")

    def update_column(
        self, column_id: str, *, title: str | None, config: Mapping[str, JsonValue] | None
    ) -> list[str]:
        """Replace what is given of a column; return the columns whose cells become stale."""
        with self._lock:
            column = self.column(column_id)
            changes = {"title": title, "config": config}
            given = {name: value for name, value in changes.items() if value is not None}
            place = self.columns.index(column)
            self.columns[place] = replace(column, **given)  # type: ignore[arg-type]
            self.version += 1
            if config is None or config == (column.config or {}):
                return []
            affected = []
            for later, each in enumerate(self.columns):
                if later >= place and each.type != TEXT:
                    self.columns[later] = replace(each, is_stale=True)
                    affected.append(each.id)
            for cell in [cell for cell in self._planned if cell[0] in affected]:
                del self._planned[cell]
            return affected

    def append(self, rows: Iterable[Mapping[str, JsonValue]]) -> range:
        """Add rows, each from a column's id to the value of its cell; return their numbers."""
        with self._lock:
            first = len(self._rows)
            self._rows.extend(rows)
            self.version += 1
            return range(first, len(self._rows))

    def load(self, cases: Cases) -> int:
        """Append the rows of an import and return their number.

        Columns are matched by title, and missing ones are created as ``TEXT``. The description
        does not say how: here a title of a computed column is refused.
        """
        with self._lock:
            existing = {column.title: column for column in reversed(self.columns)}
            for title in cases.titles:
                if title in existing and existing[title].type != TEXT:
                    raise RejectedImportError(f"Column {title!r} is not a text column")
            check_titles(list({**existing, **dict.fromkeys(cases.titles)}))
            for title in cases.titles:
                if title not in existing:
                    identity = derived_id("column", self.id, title, next(self._numbers))
                    existing[title] = Column(title, id=identity, type=TEXT)
                    self.columns.append(existing[title])
            ids = [existing[title].id for title in cases.titles]
            return len(self.append(dict(zip(ids, row, strict=True)) for row in cases.rows))

    def save_version(self, name: str | None, created_at: str, snapshot: JsonValue) -> SavedVersion:
        """Save the sheet as it is; names need not be unique."""
        with self._lock:
            now = self.now()
            done = [each for each in self.calculations.values() if each.status(now) == "completed"]
            saved = SavedVersion(
                derived_id("version", next(self._numbers)),
                len(self.versions) + 1,
                name,
                created_at,
                done[-1] if done else None,
                snapshot,
                tuple(self.columns),
                tuple(self._rows),
            )
            self.versions.append(saved)
        return saved

    def restore(self, saved: SavedVersion) -> None:
        """Take back the columns and rows of a version; which cells are stale is left alone."""
        with self._lock:
            self.columns, self._rows = list(saved.columns), list(saved.rows)
            self.version += 1

    def cell(self, column: Column, row: int) -> CellState:
        """Return the present state of a cell."""
        operation, planned, status = self._find(column, row, self.now())
        if operation is None or planned is None or status != COMPLETED:
            is_shown = status == COMPLETED
            return CellState(status, self._value(column, row) if is_shown else None)
        request = f"{operation.id}/{column.id}/{row}".encode()
        has_metrics = column.type == "PROMPT_TEMPLATE"
        return CellState(
            status,
            self._value(column, row),
            operation.version,
            operation.execution_id,
            column.metrics if has_metrics else None,
            zlib.crc32(request) if has_metrics else None,
        )

    def cell_statuses(self) -> dict[Cell, str]:
        """Return the status of every cell."""
        now = self.now()
        return {
            (column.id, row): self._find(column, row, now)[2]
            for row in range(self.row_count)
            for column in self.columns
        }

    def _find(
        self, column: Column, row: int, now: float
    ) -> tuple[Operation | None, PlannedCell | None, str]:
        """Return the status of a cell, and the latest operation that it is a part of."""
        found = self._planned.get((column.id, row))
        if found is not None:
            operation = self.operations[found[0]]
            return operation, found[1], operation.cell_status(found[1], now)
        is_new = row >= self._definition.row_count
        is_stale = column.type != TEXT and (column.is_stale or is_new)
        return None, None, STALE if is_stale else COMPLETED

    def _value(self, column: Column, row: int) -> JsonValue:
        value = self._rows[row].get(column.id)
        is_given = self._definition.rows is not None or row >= self._definition.row_count
        if value is None and not (column.type == TEXT and is_given):
            return f"{column.title} {row}"
        return "" if value is None else value

    def active_operations(self) -> list[Operation]:
        """Return the operations that have not ended."""
        now = self.now()
        return [each for each in list(self.operations.values()) if each.status(now) == "running"]

    def start_operation(
        self,
        *,
        column_ids: Collection[str] | None = None,
        row_ids: Collection[int] | None = None,
        statuses: Collection[str] | None = None,
        confirmation_token: str | None = None,
        confirm: bool = False,
        was_posted: bool = False,
    ) -> Operation | str | int:
        """Start an operation on the cells that fit.

        :return: the operation; 0 if no cell fits; or a confirmation token if it has to be
            confirmed. A token is valid once, for the same cells.
        """
        definition = self._definition
        wanted = (STALE,) if statuses is None else statuses or CELL_STATUSES
        with self._lock:
            computed = {column.id for column in self.columns if column.type != TEXT}
            chosen = [
                cell
                for cell, status in self.cell_statuses().items()
                if cell[0] in computed
                and status in wanted
                and (column_ids is None or cell[0] in column_ids)
                and (row_ids is None or cell[1] in row_ids)
            ]
            if not chosen:
                return 0
            limit = definition.confirm_above
            is_large = limit is not None and len(chosen) > limit
            is_confirmed = self._tokens.pop(confirmation_token or "", None) == frozenset(chosen)
            if is_large and not (confirm or is_confirmed):
                token = derived_id("token", next(self._numbers))
                self._tokens[token] = frozenset(chosen)
                return token
            self.version += 1
            operation = Operation(
                id=derived_id("operation", next(self._numbers)),
                table_id=self.table.id,
                sheet_id=self.id,
                was_posted=was_posted,
                started_at=self.now(),
                version=self.version,
                cells=_plan(self.columns, chosen),
                status_lag=definition.status_lag,
            )
            self.operations[operation.id] = operation
            for cell in operation.cells:
                self._planned[cell.column_id, cell.row_index] = (operation.id, cell)
        return operation

    def cells_of_token(self, token: str) -> int:
        """Return the number of cells that a confirmation token is for."""
        return len(self._tokens[token])

    def cancel_operation(self, operation_id: str) -> int:
        """Cancel an operation if it is active; return the number of cells not calculated."""
        with self._lock:
            operation, now = self.operations.get(operation_id), self.now()
            if operation is None or operation.status(now) != "running":
                return 0
            self.operations[operation_id] = replace(operation, cancelled_at=now)
            return sum(status in (QUEUED, RUNNING) for status in operation.cell_statuses(now))

    def start_calculation(
        self,
        *,
        row_indices: Iterable[int] | None = None,
        step_ids: Iterable[str] | None = None,
        was_posted: bool = False,
    ) -> Calculation:
        """Start a calculation, whether or not another is under way."""
        if self.scorecard is None:
            raise UnknownEvaluationError(f"sheet {self.title!r} has no scorecard")
        calculation = Calculation(
            id=derived_id("calculation", next(self._numbers)),
            table_id=self.table.id,
            sheet_id=self.id,
            row_indices=None if row_indices is None else tuple(row_indices),
            step_ids=None if step_ids is None else tuple(step_ids),
            was_posted=was_posted,
            started_at=self.now(),
            revision=self.version,
            scorecard=self.scorecard,
            added_rows=range(self._definition.row_count, self.row_count),
        )
        with self._lock:
            self.calculations[calculation.id] = calculation
        return calculation

    def latest_calculation(self) -> Calculation | None:
        """Return the latest calculation, if there is one."""
        return next(reversed(list(self.calculations.values())), None)

    def cancel_calculations(self) -> list[Calculation]:
        """Cancel every calculation that is queued or running, and return these."""
        with self._lock:
            now = self.now()
            active = [each for each in self.calculations.values() if each.status(now) in UNFINISHED]
            for each in active:
                self.calculations[each.id] = replace(each, cancelled_at=now)
        return active


def _plan(columns: Sequence[Column], cells: Iterable[Cell]) -> tuple[PlannedCell, ...]:
    by_id = {column.id: column for column in columns}
    planned, at = [], 0.0
    for column_id, row in cells:
        column = by_id[column_id]
        ends_at = at + column.cell_duration
        status = FAILED if row in column.failing_rows else COMPLETED
        planned.append(PlannedCell(column_id, row, at, ends_at, status))
        at = ends_at
    return tuple(planned)
