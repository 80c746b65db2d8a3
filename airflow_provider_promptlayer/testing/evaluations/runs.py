# SPDX-License-Identifier: Apache-2.0
"""Operations, calculations and report runs, and the state of each at any moment.

As with executions of workflows, each has a start time and a plan, and its state is computed from
these and the clock. A cancellation is a second fixed time, at which the state freezes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeAlias

from ..workflows.model import derived_id
from .model import Report, Scorecard, ScoredRow, Sheet, Table

STALE, QUEUED, RUNNING, COMPLETED, FAILED = "STALE", "QUEUED", "RUNNING", "COMPLETED", "FAILED"
CELL_STATUSES = (STALE, QUEUED, "DISPATCHED", RUNNING, COMPLETED, FAILED)
UNFINISHED = ("queued", "running")

Cell: TypeAlias = tuple[str, int]
"""A column's id and the zero-based number of a row."""


class UnknownEvaluationError(LookupError):
    """There is no such table, sheet, scorecard or pipeline: the API answers 404."""


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


class SheetRuns:
    """The operations and calculations of one sheet, oldest first, by id.

    Safe to use from any thread.
    """

    def __init__(
        self, table: Table, sheet: Sheet, clock: Callable[[], float], numbers: Iterator[int]
    ) -> None:
        self.table = table
        self.sheet = sheet
        self.now = clock
        self.operations: dict[str, Operation] = {}
        self.calculations: dict[str, Calculation] = {}
        self._numbers = numbers
        self._tokens: dict[str, frozenset[Cell]] = {}
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        """The number of the sheet's version; every operation makes a new one."""
        return 1 + len(self.operations)

    def cell_statuses(self) -> dict[Cell, str]:
        """Return the status of every cell."""
        statuses = {
            (column.id, row): STALE if column.is_stale and column.type != "TEXT" else COMPLETED
            for row in range(self.sheet.row_count)
            for column in self.sheet.columns
        }
        now = self.now()
        for operation in list(self.operations.values()):
            for cell, status in zip(operation.cells, operation.cell_statuses(now), strict=True):
                statuses[cell.column_id, cell.row_index] = status
        return statuses

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

        Returns:
            the operation; 0 if no cell fits; or a confirmation token if it has to be confirmed. A
            token is valid once, for the same cells.

        """
        sheet = self.sheet
        wanted = (STALE,) if statuses is None else statuses or CELL_STATUSES
        computed = {column.id for column in sheet.columns if column.type != "TEXT"}
        with self._lock:
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
            is_large = sheet.confirm_above is not None and len(chosen) > sheet.confirm_above
            is_confirmed = self._tokens.pop(confirmation_token or "", None) == frozenset(chosen)
            if is_large and not (confirm or is_confirmed):
                token = derived_id("token", next(self._numbers))
                self._tokens[token] = frozenset(chosen)
                return token
            operation = Operation(
                id=derived_id("operation", next(self._numbers)),
                table_id=self.table.id,
                sheet_id=sheet.id,
                was_posted=was_posted,
                started_at=self.now(),
                version=self.version + 1,
                cells=_plan(sheet, chosen),
                status_lag=sheet.status_lag,
            )
            self.operations[operation.id] = operation
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
        if self.sheet.scorecard is None:
            raise UnknownEvaluationError(f"sheet {self.sheet.title!r} has no scorecard")
        calculation = Calculation(
            id=derived_id("calculation", next(self._numbers)),
            table_id=self.table.id,
            sheet_id=self.sheet.id,
            row_indices=None if row_indices is None else tuple(row_indices),
            step_ids=None if step_ids is None else tuple(step_ids),
            was_posted=was_posted,
            started_at=self.now(),
            revision=self.version,
            scorecard=self.sheet.scorecard,
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


class EvaluationRuns:
    """All sheets and reports of one server; no two have the same id.

    Safe to use from any thread.
    """

    def __init__(
        self, tables: Iterable[Table], reports: Iterable[Report], clock: Callable[[], float]
    ) -> None:
        self.now = clock
        self._lock = threading.Lock()
        numbers = count(1)
        self._sheets: dict[str, dict[str, SheetRuns]] = {}
        for table in tables:
            if table.id in self._sheets:
                raise ValueError(f"two tables have the id {table.id}")
            self._sheets[table.id] = {
                sheet.id: SheetRuns(table, sheet, clock, numbers) for sheet in table.sheets
            }
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

    def sheet(self, table_id: str, sheet_id: str) -> SheetRuns:
        """Return the runs of a sheet."""
        sheets = self._sheets.get(table_id.lower())
        if sheets is None:
            raise UnknownEvaluationError("Table not found")
        if sheet_id.lower() not in sheets:
            raise UnknownEvaluationError("Sheet not found")
        return sheets[sheet_id.lower()]

    @property
    def sheets(self) -> list[SheetRuns]:
        """All sheets of all tables."""
        return [runs for sheets in self._sheets.values() for runs in sheets.values()]

    def start_report(
        self,
        blueprint_id: int,
        name: str,
        *,
        dataset_id: int | None = None,
        refresh_dataset: bool = False,
        was_posted: bool = False,
    ) -> ReportRun:
        """Start a run of a pipeline."""
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


def _plan(sheet: Sheet, cells: Iterable[Cell]) -> tuple[PlannedCell, ...]:
    columns = {column.id: column for column in sheet.columns}
    planned, at = [], 0.0
    for column_id, row in cells:
        column = columns[column_id]
        ends_at = at + column.cell_duration
        status = FAILED if row in column.failing_rows else COMPLETED
        planned.append(PlannedCell(column_id, row, at, ends_at, status))
        at = ends_at
    return tuple(planned)
