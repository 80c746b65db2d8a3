# SPDX-License-Identifier: Apache-2.0
"""Operations, imports, calculations and report runs, and the state of each at any moment.

As with executions of workflows, each has a start time and a plan, and its state is computed from
these and the clock. A cancellation is a second fixed time, at which the state freezes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import TypeAlias

from ..workflows.model import derived_id
from .cases import ReadCases
from .model import Report, Scorecard, ScoredRow

STALE, QUEUED, RUNNING, COMPLETED, FAILED = "STALE", "QUEUED", "RUNNING", "COMPLETED", "FAILED"
CELL_STATUSES = (STALE, QUEUED, "DISPATCHED", RUNNING, COMPLETED, FAILED)
UNFINISHED = ("queued", "running")

Cell: TypeAlias = tuple[str, int]
"""A column's id and the zero-based number of a row."""


def cell_id(sheet_id: str, column_id: str, row: int) -> str:
    """Return the UUID of a cell; pages of thousands of cells need it fast."""
    return f"{_first_cell_id(sheet_id, column_id)[:-8]}{row:08x}"


@lru_cache(maxsize=1024)
def _first_cell_id(sheet_id: str, column_id: str) -> str:
    return derived_id("cell", sheet_id, column_id)


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

    @property
    def execution_id(self) -> str:
        """Another id, which leads to it as well."""
        return derived_id("execution", self.id)

    def cell_status(self, cell: PlannedCell, now: float) -> str:
        """Return the status of one of its cells."""
        is_cancelled = self.cancelled_at is not None
        elapsed = (now if self.cancelled_at is None else self.cancelled_at) - self.started_at
        if elapsed >= cell.ends_at:
            return cell.status
        if is_cancelled:
            return STALE
        return RUNNING if elapsed >= cell.starts_at else QUEUED

    def cell_statuses(self, now: float) -> list[str]:
        """Return the status of each of its cells."""
        return [self.cell_status(cell, now) for cell in self.cells]

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
class Import:
    """One import into a sheet. ``was_posted`` tells whether a request has started it.

    ``status`` is ``pending``, ``running``, ``completed`` or ``failed``. ``rows_added`` and
    ``row_count``, the number of rows of the sheet after it, are ``None`` until it has completed.
    """

    operation_id: str
    table_id: str
    sheet_id: str
    source: str
    file_name: str | None
    was_posted: bool
    started_at: float
    created_at: str = field(repr=False)
    status: str = "pending"
    rows_added: int | None = None
    row_count: int | None = None
    error_message: str | None = None
    duration: float = field(kw_only=True, repr=False)
    read: ReadCases = field(kw_only=True, repr=False, compare=False)

    @property
    def has_ended(self) -> bool:
        """Whether it has completed or failed."""
        return self.status in ("completed", "failed")


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
    added_rows: range = field(default=range(0), repr=False)
    cancelled_at: float | None = None

    @property
    def all_rows(self) -> list[tuple[int, ScoredRow]]:
        """All rows that it can score, by number: an added one is like the whole."""
        card = self.scorecard
        added = ScoredRow(card.verdict, card.score)
        return [*enumerate(card.rows), *((number, added) for number in self.added_rows)]

    @property
    def config_hash(self) -> str | None:
        """The same for calculations whose scores can be compared."""
        card = self.scorecard
        configured = ((each.id, each.primitive_type) for each in card.criteria)
        return derived_id("config", *configured) if card.config_hash == "" else card.config_hash

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
            for number, row in self.all_rows
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


class ReportRuns:
    """All reports of one server; no two have the same id. Safe to use from any thread."""

    def __init__(self, reports: Iterable[Report], clock: Callable[[], float]) -> None:
        self.now = clock
        self._lock = threading.Lock()
        self.blueprints: dict[int, Report] = {}
        self.reports: dict[int, ReportRun] = {}
        reports = list(reports)
        given = [report.id for report in reports if report.id is not None]
        if len(given) != len(set(given)):
            raise ValueError("two reports have the same id")
        self._ids = (number for number in count(1) if number not in given)
        for report in reports:
            number = next(self._ids) if report.id is None else report.id
            if report.is_blueprint:
                self.blueprints[number] = report
            else:
                self.reports[number] = ReportRun(
                    number, None, report.name, None, False, False, -math.inf, report
                )

    def start(
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
                id=next(self._ids),
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
