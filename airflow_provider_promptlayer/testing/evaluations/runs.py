# SPDX-License-Identifier: Apache-2.0
"""Operations, calculations and report runs, and the state of each at any moment.

As with executions of workflows, each has a start time and a plan, and its state is computed from
these and the clock. A cancellation is a second fixed time, at which the state freezes.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID

from airflow_provider_promptlayer.testing.evaluations.model import (
    Report,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
    derived_id,
)

STALE, QUEUED, RUNNING, COMPLETED, FAILED = "STALE", "QUEUED", "RUNNING", "COMPLETED", "FAILED"
CELL_STATUSES = (STALE, QUEUED, "DISPATCHED", RUNNING, COMPLETED, FAILED)
UNFINISHED = ("queued", "running")


class UnknownEvaluationError(LookupError):
    """There is no such table, sheet, report or run: the API answers 404."""


@dataclass(frozen=True)
class PlannedCell:
    """When a cell starts and ends, in seconds after its operation, and how it ends."""

    column_id: str
    row_index: int
    starts_at: float
    ends_at: float
    status: str


@dataclass(frozen=True)
class Operation:
    """One recalculation of cells. ``was_posted`` tells whether a request has started it."""

    id: str
    table_id: str
    sheet_id: str
    was_posted: bool
    started_at: float
    version: int
    cancelled_at: float | None = None
    cells: tuple[PlannedCell, ...] = field(default=(), repr=False)
    status_lag: float = field(default=0.0, repr=False)

    def cell_statuses(self, now: float) -> list[str]:
        """Return the status of each of its cells."""
        is_cancelled = self.cancelled_at is not None
        elapsed = (now if self.cancelled_at is None else self.cancelled_at) - self.started_at
        statuses = []
        for cell in self.cells:
            if elapsed >= cell.ends_at:
                statuses.append(cell.status)
            elif is_cancelled:
                statuses.append(STALE)
            else:
                statuses.append(RUNNING if elapsed >= cell.starts_at else QUEUED)
        return statuses

    def status(self, now: float) -> str:
        """Return its own status, which lags behind that of its cells.

        PromptLayer's description does not list its values; these are those of a scorecard.
        """
        if self.cancelled_at is not None:
            return "cancelled"
        if now - self.started_at < self.cells[-1].ends_at + self.status_lag:
            return "running"
        return "failed" if {cell.status for cell in self.cells} == {FAILED} else "completed"


@dataclass(frozen=True)
class Calculation:
    """One calculation of a scorecard. ``was_posted`` tells whether a request has started it."""

    id: str
    table_id: str
    sheet_id: str
    row_indices: tuple[int, ...] | None
    step_ids: tuple[str, ...] | None
    was_posted: bool
    started_at: float
    revision: int
    scorecard: Scorecard = field(repr=False)
    cancelled_at: float | None = None

    def status(self, now: float) -> str:
        """Return its status."""
        if self.cancelled_at is not None:
            return "cancelled"
        elapsed = now - self.started_at
        card = self.scorecard
        if elapsed < card.queue_duration:
            return "queued"
        return "running" if elapsed < card.queue_duration + card.duration else card.status

    def rows(self, now: float) -> list[tuple[int, ScoredRow]]:
        """Return the rows it has scored, by number; none before its end."""
        if self.status(now) != "completed":
            return []
        return [
            (number, row)
            for number, row in enumerate(self.scorecard.rows)
            if self.row_indices is None or number in self.row_indices
        ]


@dataclass(frozen=True)
class ReportRun:
    """One final report. ``was_posted`` tells whether a request has started it."""

    id: int
    parent_report_id: int | None
    name: str
    dataset_id: int | None
    refresh_dataset: bool
    was_posted: bool
    started_at: float
    report: Report = field(repr=False)

    def status(self, now: float) -> str:
        """Return its status."""
        return RUNNING if now - self.started_at < self.report.duration else COMPLETED

    def status_counts(self, now: float) -> dict[str, int]:
        """Return the number of cells in each status."""
        cells, failing = self.report.cells, self.report.failed_cells
        is_done = self.status(now) == COMPLETED
        share = 1.0 if is_done else (now - self.started_at) / self.report.duration
        done = cells if is_done else math.floor(cells * share)
        running = 0 if is_done or not cells else 1
        return {
            COMPLETED: min(done, cells - failing),
            FAILED: max(0, done - (cells - failing)),
            QUEUED: cells - done - running,
            RUNNING: running,
        }


class EvaluationRuns:
    """All operations, calculations and report runs of one server.

    Safe to use from any thread.

    Raises:
        ValueError: two definitions claim the same id.

    """

    def __init__(
        self, tables: Iterable[Table], reports: Iterable[Report], clock: Callable[[], float]
    ) -> None:
        self.now = clock
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._tables: dict[str, Table] = {}
        for table in tables:
            if table.id in self._tables:
                raise ValueError(f"two tables have the id {table.id}")
            self._tables[table.id] = table
        self.operations: dict[str, Operation] = {}
        self.calculations: dict[str, Calculation] = {}
        self._tokens: dict[str, frozenset[tuple[str, int]]] = {}
        self._versions: Counter[tuple[str, str]] = Counter()
        self.blueprints: dict[int, Report] = {}
        self.reports: dict[int, ReportRun] = {}
        reports = list(reports)
        given = [report.id for report in reports if report.id is not None]
        if len(given) != len(set(given)):
            raise ValueError("two reports have the same id")
        self._report_ids = (number for number in count(1) if number not in given)
        for report in reports:
            number = next(self._report_ids) if report.id is None else report.id
            if report.is_blueprint:
                self.blueprints[number] = report
            else:
                self.reports[number] = ReportRun(
                    number, None, report.name, None, False, False, -math.inf, report
                )

    def sheet(self, table_id: str, sheet_id: str) -> tuple[Table, Sheet]:
        """Return a sheet, and its table.

        Raises:
            UnknownEvaluationError: there is none.

        """
        table = self._tables.get(_canonical(table_id))
        if table is None:
            raise UnknownEvaluationError("Table not found")
        for sheet in table.sheets:
            if sheet.id == _canonical(sheet_id):
                return table, sheet
        raise UnknownEvaluationError("Sheet not found")

    def version(self, table: Table, sheet: Sheet) -> int:
        """Return the number of a sheet's version; every operation makes a new one."""
        return 1 + self._versions[table.id, sheet.id]

    def cell_statuses(self, table: Table, sheet: Sheet) -> dict[tuple[str, int], str]:
        """Return the status of every cell of a sheet, by column and row."""
        statuses = {
            (column.id, row): STALE if column.is_stale and column.type != "TEXT" else COMPLETED
            for row in range(sheet.row_count)
            for column in sheet.columns
        }
        for operation in self.operations_on(table, sheet):
            states = operation.cell_statuses(self.now())
            for cell, status in zip(operation.cells, states, strict=True):
                statuses[cell.column_id, cell.row_index] = status
        return statuses

    def active_operations(self, table: Table, sheet: Sheet) -> list[Operation]:
        """Return the operations on a sheet that have not ended."""
        now = self.now()
        found = self.operations_on(table, sheet)
        return [operation for operation in found if operation.status(now) == "running"]

    def start_operation(
        self,
        table: Table,
        sheet: Sheet,
        *,
        column_ids: Collection[str] | None = None,
        row_ids: Collection[int] | None = None,
        statuses: Collection[str] | None = None,
        confirmation_token: str | None = None,
        confirm: bool = False,
        was_posted: bool = False,
    ) -> Operation | str | int:
        """Start an operation on the cells that fit.

        Returns:
            the operation; 0 if no cell fits; or a confirmation token if it has to be confirmed. A
            token is valid once, for the same cells.

        """
        with self._lock:
            current = self.cell_statuses(table, sheet)
            wanted = (STALE,) if statuses is None else statuses or CELL_STATUSES
            computed = {column.id for column in sheet.columns if column.type != "TEXT"}
            chosen = [
                cell
                for cell, status in current.items()
                if cell[0] in computed
                and status in wanted
                and (column_ids is None or cell[0] in column_ids)
                and (row_ids is None or cell[1] in row_ids)
            ]
            if not chosen:
                return 0
            is_large = sheet.confirm_above is not None and len(chosen) > sheet.confirm_above
            holds = self._tokens.pop(confirmation_token or "", None) == frozenset(chosen)
            if is_large and not (confirm or holds):
                token = derived_id("token", next(self._numbers))
                self._tokens[token] = frozenset(chosen)
                return token
            self._versions[table.id, sheet.id] += 1
            operation = Operation(
                id=derived_id("operation", next(self._numbers)),
                table_id=table.id,
                sheet_id=sheet.id,
                was_posted=was_posted,
                started_at=self.now(),
                version=self.version(table, sheet),
                cells=_plan(sheet, chosen),
                status_lag=sheet.status_lag,
            )
            self.operations[operation.id] = operation
        return operation

    def cells_of_token(self, token: str) -> int:
        """Return the number of cells that a confirmation token is for."""
        return len(self._tokens[token])

    def cancel_operation(self, operation: Operation) -> int:
        """Cancel an operation; return the number of cells that it has not calculated."""
        with self._lock:
            operation = self.operations[operation.id]
            now = self.now()
            if operation.cancelled_at is not None or operation.status(now) != "running":
                return 0
            open_cells = [s for s in operation.cell_statuses(now) if s in (QUEUED, RUNNING)]
            self.operations[operation.id] = replace(operation, cancelled_at=now)
            return len(open_cells)

    def start_calculation(
        self,
        table: Table,
        sheet: Sheet,
        scorecard: Scorecard,
        *,
        row_indices: Iterable[int] | None = None,
        step_ids: Iterable[str] | None = None,
        was_posted: bool = False,
    ) -> Calculation:
        """Start a calculation, whether or not another is under way."""
        with self._lock:
            calculation = Calculation(
                id=derived_id("calculation", next(self._numbers)),
                table_id=table.id,
                sheet_id=sheet.id,
                row_indices=None if row_indices is None else tuple(row_indices),
                step_ids=None if step_ids is None else tuple(step_ids),
                was_posted=was_posted,
                started_at=self.now(),
                revision=self.version(table, sheet),
                scorecard=scorecard,
            )
            self.calculations[calculation.id] = calculation
        return calculation

    def calculations_on(self, table: Table, sheet: Sheet) -> list[Calculation]:
        """Return the calculations of a sheet's scorecard, oldest first."""
        with self._lock:
            return [
                calculation
                for calculation in self.calculations.values()
                if (calculation.table_id, calculation.sheet_id) == (table.id, sheet.id)
            ]

    def cancel_calculations(self, table: Table, sheet: Sheet) -> list[Calculation]:
        """Cancel every calculation that is queued or running, and return these."""
        now = self.now()
        cancelled = []
        for calculation in self.calculations_on(table, sheet):
            if calculation.status(now) in UNFINISHED:
                with self._lock:
                    self.calculations[calculation.id] = replace(calculation, cancelled_at=now)
                cancelled.append(calculation)
        return cancelled

    def start_report(
        self,
        blueprint_id: int,
        name: str,
        *,
        dataset_id: int | None = None,
        refresh_dataset: bool = False,
        was_posted: bool = False,
    ) -> ReportRun:
        """Start a run of a pipeline.

        Raises:
            UnknownEvaluationError: there is no such pipeline.

        """
        if blueprint_id not in self.blueprints:
            raise UnknownEvaluationError("Report not found")
        with self._lock:
            run = ReportRun(
                id=next(self._report_ids),
                parent_report_id=blueprint_id,
                name=name,
                dataset_id=dataset_id,
                refresh_dataset=refresh_dataset,
                was_posted=was_posted,
                started_at=self.now(),
                report=self.blueprints[blueprint_id],
            )
            self.reports[run.id] = run
        return run

    def operations_on(self, table: Table, sheet: Sheet) -> list[Operation]:
        """Return the operations of a sheet, oldest first."""
        return [
            operation
            for operation in list(self.operations.values())
            if (operation.table_id, operation.sheet_id) == (table.id, sheet.id)
        ]


def _plan(sheet: Sheet, cells: Iterable[tuple[str, int]]) -> tuple[PlannedCell, ...]:
    columns = {column.id: column for column in sheet.columns}
    planned, at = [], 0.0
    for column_id, row in cells:
        column = columns[column_id]
        ends_at = at + column.cell_duration
        status = FAILED if row in column.failing_rows else COMPLETED
        planned.append(PlannedCell(column_id, row, at, ends_at, status))
        at = ends_at
    return tuple(planned)


def _canonical(uuid: str) -> str:
    try:
        return str(UUID(uuid))
    except ValueError:
        return uuid
