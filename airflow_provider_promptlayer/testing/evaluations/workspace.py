# SPDX-License-Identifier: Apache-2.0
"""The tables of a server, and the imports into their sheets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import count
from typing import Literal, TypeAlias

from ..http.dialect import Dialect
from ..workflows.model import derived_id
from .cases import ReadCases, RejectedImportError
from .model import Column, Sheet, Table
from .request_logs import RequestLog
from .runs import Import, UnknownEvaluationError
from .sheet import TEXT, SheetState, TableState

RepeatedImport: TypeAlias = Literal["same", "conflict", "again"]
"""What a repeated ``operation_id`` does, which no source says: it answers with the same import, is
refused with 409, or imports again."""

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Workspace:
    """All tables of one server; no two have the same id. Safe to use from any thread."""

    def __init__(
        self,
        tables: Iterable[Table],
        clock: Callable[[], float],
        *,
        request_logs: Iterable[RequestLog] = (),
        import_duration: float = 0.0,
        repeated_import: RepeatedImport = "same",
        dialect: Dialect = "description",
    ) -> None:
        self.now = clock
        self.dialect = dialect
        self.repeated_import = repeated_import
        self._import_duration = import_duration
        self._numbers = count(1)
        self._lock = threading.RLock()
        self._tables: dict[str, TableState] = {}
        self._imports: list[Import] = []
        self.request_logs = tuple(request_logs)
        if len({log.id for log in self.request_logs}) != len(self.request_logs):
            raise ValueError("two request logs have the same id")
        for table in tables:
            if table.id in self._tables:
                raise ValueError(f"two tables have the id {table.id}")
            state = self._tables[table.id] = TableState(table.id, table.title, _shown(_EPOCH))
            state.sheets += (self._state(state, sheet) for sheet in table.sheets)

    @cached_property
    def _began(self) -> float:
        # Not when the server is made: a clock may depend on the server.
        return self.now()

    def timestamp(self, at: float | None = None) -> str:
        """Return a time of the server's clock as the API shows it, or the present time.

        At the first use of the clock 2026 begins.
        """
        began = self._began  # before the clock is read
        return _shown(_EPOCH + timedelta(seconds=(self.now() if at is None else at) - began))

    @property
    def tables(self) -> list[TableState]:
        """All tables, oldest first."""
        self._settle_imports()
        return list(self._tables.values())

    @property
    def sheets(self) -> list[SheetState]:
        """All sheets of all tables."""
        return [sheet for table in self.tables for sheet in table.sheets]

    @property
    def imports(self) -> list[Import]:
        """All imports, oldest first."""
        self._settle_imports()
        return list(self._imports)

    def table(self, table_id: str) -> TableState:
        """Return a table."""
        self._settle_imports()
        try:
            return self._tables[table_id.lower()]
        except KeyError:
            raise UnknownEvaluationError("Table not found") from None

    def sheet(self, table_id: str, sheet_id: str) -> SheetState:
        """Return a sheet."""
        return self.table(table_id).sheet(sheet_id)

    def create_table(
        self, title: str | None = None, *, folder_id: int | None = None, with_sheet: bool = True
    ) -> TableState:
        """Create a table, with a blank sheet if asked; titles need not be unique."""
        with self._lock:
            taken = {table.title for table in self._tables.values()}
            names = ("Untitled Table", *(f"Untitled Table {n}" for n in range(2, len(taken) + 3)))
            table = TableState(
                derived_id("created table", next(self._numbers)),
                next(name for name in names if name not in taken) if title is None else title,
                self.timestamp(),
                folder_id,
            )
            self._tables[table.id] = table
            if with_sheet:
                self.create_sheet(table)
        return table

    def create_sheet(
        self,
        table: TableState,
        title: str | None = None,
        *,
        index: int | None = None,
        is_blank: bool = True,
    ) -> SheetState:
        """Create a sheet at a place, or at the end; a blank one has a column and an empty row."""
        with self._lock:
            identity = derived_id("created sheet", next(self._numbers))
            column = Column("Column A", id=derived_id("column A", identity), type=TEXT)
            definition = Sheet(
                f"Sheet {len(table.sheets) + 1}" if title is None else title,
                [column] if is_blank else [],
                rows=[{}] if is_blank else [],
                id=identity,
            )
            sheet = self._state(table, definition)
            sheet.created_at = self.timestamp()
            table.sheets.insert(len(table.sheets) if index is None else index, sheet)
        return sheet

    def find_import(self, table_id: str, operation_id: str | None) -> Import | None:
        """Return the latest import of that id into a sheet of a table, if there is one."""
        for each in reversed(self.imports):
            if (each.table_id, each.operation_id) == (table_id, operation_id):
                return each
        return None

    def is_importing(self, sheet: SheetState) -> bool:
        """Return whether an import into a sheet has not ended."""
        return any(each.sheet_id == sheet.id and not each.has_ended for each in self.imports)

    def start_import(
        self,
        sheet: SheetState,
        read: ReadCases,
        *,
        source: str = "file",
        file_name: str | None = None,
        operation_id: str | None = None,
        was_posted: bool = False,
        duration: float | None = None,
    ) -> Import:
        """Start an import, which appends to a sheet at its end."""
        with self._lock:
            started = Import(
                operation_id or derived_id("import", next(self._numbers)),
                sheet.table.id,
                sheet.id,
                source,
                file_name,
                was_posted,
                self.now(),
                self.timestamp(),
                duration=self._import_duration if duration is None else duration,
                read=read,
            )
            self._imports.append(started)
        return started

    def _state(self, table: TableState, sheet: Sheet) -> SheetState:
        return SheetState(table, sheet, self.now, self._numbers, self._lock)

    def _settle_imports(self) -> None:
        """Bring the imports up to now: those whose time has passed append their rows."""
        with self._lock:
            now = self.now()
            for place, each in enumerate(self._imports):
                if each.has_ended or (now == each.started_at and each.duration):
                    continue
                if now - each.started_at < each.duration:
                    self._imports[place] = replace(each, status="running")
                else:
                    self._imports[place] = self._ended(each)

    def _ended(self, each: Import) -> Import:
        sheet = self._tables[each.table_id].sheet(each.sheet_id)
        try:
            added = sheet.load(each.read())
        except RejectedImportError as error:
            return replace(each, status="failed", error_message=str(error))
        return replace(each, status="completed", rows_added=added, row_count=sheet.row_count)


def _shown(time: datetime) -> str:
    return f"{time.isoformat(timespec='seconds').removesuffix('+00:00')}Z"
