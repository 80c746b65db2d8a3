# SPDX-License-Identifier: Apache-2.0
"""What a test sees and does of tables and reports without HTTP."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from ..json_text import JsonValue
from .cases import read_csv
from .model import Report, Scorecard, Sheet, Table
from .runs import Calculation, Import, Operation, ReportRun, ReportRuns
from .workspace import Workspace


class EvaluationControl:
    """The part of ``LocalPromptLayer`` that is about tables and reports."""

    def __init__(
        self, workspace: Workspace, reports: ReportRuns, announce_change: Callable[[], None]
    ) -> None:
        self._workspace = workspace
        self._reports = reports
        self._announce_change = announce_change

    @property
    def tables(self) -> list[Table]:
        """The tables with their sheets as they are now, oldest first.

        The definitions of ``Table`` and ``Sheet`` describe them; of a sheet only ``title``, ``id``,
        ``columns`` and ``row_count`` are those of now.
        """
        return [
            Table(
                table.title,
                [
                    Sheet(sheet.title, sheet.columns, sheet.row_count, id=sheet.id)
                    for sheet in table.sheets
                ],
                id=table.id,
            )
            for table in self._workspace.tables
        ]

    @property
    def imports(self) -> list[Import]:
        """A copy of all imports into sheets, oldest first."""
        return self._workspace.imports

    @property
    def operations(self) -> dict[str, Operation]:
        """A copy of all table operations, by ``operation_id``."""
        return dict(ChainMap(*(sheet.operations for sheet in self._workspace.sheets)))

    @property
    def calculations(self) -> dict[str, Calculation]:
        """A copy of all scorecard calculations, by ``calculation_id``."""
        return dict(ChainMap(*(sheet.calculations for sheet in self._workspace.sheets)))

    @property
    def pipelines(self) -> dict[int, Report]:
        """The definitions of which reports can be run, by the ``report_id`` to run."""
        return dict(self._reports.blueprints)

    @property
    def reports(self) -> dict[int, ReportRun]:
        """A copy of all final reports, by ``report_id``, including those that were defined."""
        return dict(self._reports.reports)

    def start_operation(
        self,
        table_id: str,
        sheet_id: str,
        *,
        column_ids: Collection[str] | None = None,
        row_ids: Collection[int] | None = None,
    ) -> str:
        """Recalculate the stale cells of a sheet without HTTP; return the ``operation_id``.

        :param table_id: the table.
        :param sheet_id: the sheet.
        :param column_ids: the columns; ``None`` for all.
        :param row_ids: zero-based numbers of the rows; ``None`` for all.
        :raises LookupError: no such sheet, or no stale cell.
        """
        sheet = self._workspace.sheet(table_id, sheet_id)
        operation = sheet.start_operation(column_ids=column_ids, row_ids=row_ids, confirm=True)
        if not isinstance(operation, Operation):
            raise LookupError(f"sheet {sheet.title!r} has no stale cell")
        self._announce_change()
        return operation.id

    def cancel_operation(self, operation_id: str) -> None:
        """Cancel a table operation without HTTP, if it is active."""
        for sheet in self._workspace.sheets:
            sheet.cancel_operation(operation_id)
        self._announce_change()

    def add_rows(
        self, table_id: str, sheet_id: str, rows: Iterable[Mapping[str, JsonValue]]
    ) -> None:
        """Append rows to a sheet without HTTP, each from a column's title to a value.

        :raises LookupError: no such sheet or column.
        """
        sheet = self._workspace.sheet(table_id, sheet_id)
        ids = {column.title: column.id for column in sheet.columns}
        sheet.append([{ids[title]: value for title, value in row.items()} for row in rows])
        self._announce_change()

    def update_column(
        self, table_id: str, sheet_id: str, title: str, config: Mapping[str, JsonValue]
    ) -> None:
        """Replace the configuration of a column without HTTP.

        :raises LookupError: no such sheet or column.
        """
        sheet = self._workspace.sheet(table_id, sheet_id)
        ids = {column.title: column.id for column in sheet.columns}
        sheet.update_column(ids[title], title=None, config=config)
        self._announce_change()

    def start_import(
        self,
        table_id: str,
        sheet_id: str,
        content: bytes,
        *,
        operation_id: str | None = None,
        duration: float | None = None,
    ) -> str:
        """Import a CSV file into a sheet without HTTP; return the ``operation_id``.

        :param table_id: the table.
        :param sheet_id: the sheet.
        :param content: the file.
        :param operation_id: ``None`` for a new one.
        :param duration: seconds that the import takes; ``None`` for the server's
            ``import_duration``.
        :raises LookupError: no such sheet.
        """
        sheet = self._workspace.sheet(table_id, sheet_id)
        started = self._workspace.start_import(
            sheet,
            partial(read_csv, content),
            file_name="cases.csv",
            operation_id=operation_id,
            duration=duration,
        )
        self._announce_change()
        return started.operation_id

    def start_calculation(self, table_id: str, sheet_id: str) -> str:
        """Recalculate the scorecard of a sheet without HTTP; return the ``calculation_id``.

        :raises LookupError: no such sheet, or it has no scorecard.
        """
        calculation = self._workspace.sheet(table_id, sheet_id).start_calculation()
        self._announce_change()
        return calculation.id

    def use_scorecard(self, table_id: str, sheet_id: str, scorecard: Scorecard | None) -> None:
        """Give a sheet another scorecard, for the calculations that start from now on.

        :raises LookupError: no such sheet.
        """
        self._workspace.sheet(table_id, sheet_id).scorecard = scorecard

    def start_report(self, report_id: int, name: str) -> int:
        """Run an evaluation pipeline without HTTP; return the ``report_id`` of its final report.

        :raises LookupError: no such pipeline.
        """
        run = self._reports.start(report_id, name)
        self._announce_change()
        return run.id
