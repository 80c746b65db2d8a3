# SPDX-License-Identifier: Apache-2.0
"""The hook's methods for what a sheet was and has cost: its saved versions, scores and usage."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from airflow_provider_promptlayer.api.arguments import NOTSET, NotSet, title_text
from airflow_provider_promptlayer.api.errors import PromptLayerError
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, Page
from airflow_provider_promptlayer.api.scorecards import ScorecardCalculation
from airflow_provider_promptlayer.api.tables import Sheet, TableOperation
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.usage import MAX_ROWS_READ, Usage, usage_of
from airflow_provider_promptlayer.api.versions import (
    SheetVersion,
    create_version,
    find_version,
    list_versions,
    version_of,
)
from airflow_provider_promptlayer.hooks.base import twins
from airflow_provider_promptlayer.hooks.tables import TableMethods
from airflow_provider_promptlayer.outcomes.baseline import Baseline, DropGate
from airflow_provider_promptlayer.outcomes.summary import EvaluationSummary, PastScore, summarize
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import Loop, each_with_backoff
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE


class VersionMethods(TableMethods):
    """The methods for versions, earlier scores and costs of :class:`.PromptLayerHook`."""

    def get_versions(
        self,
        table_id: str,
        sheet_id: str,
        *,
        cursor: str | None = None,
        limit: int = PAGE_SIZE,
    ) -> Page[SheetVersion]:
        """Return a page of the saved versions of a sheet, the newest first.

        :param cursor: ``next_cursor`` of the page before.
        :param limit: versions on the page, 1 to 100.
        """
        return self.call(list_versions(Sheet(table_id, sheet_id), cursor=cursor, limit=limit))

    def get_version(self, table_id: str, sheet_id: str, version_id: str) -> SheetVersion:
        """Return a saved version of a sheet, with the score that it had."""
        return self.call(version_of(Sheet(table_id, sheet_id), version_id))

    def _save_version(
        self,
        table_id: str,
        sheet_id: str,
        name: str,
        *,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Loop[SheetVersion]:
        """Save a sheet as it is under a name; return the newest version of that name.

        Nothing is saved where there is one. Two callers at the same time may save two.

        :param name: 1 to 255 characters, matched exactly.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerStartUncertainError: if the version may have been saved and is not found.
        """
        sheet, wanted = Sheet(table_id, sheet_id), title_text("name", name)
        return self._ensured(
            lambda: find_version(sheet, wanted),
            lambda: create_version(sheet, wanted),
            "version",
            max_outage,
        )

    save_version, asave_version = twins(_save_version)

    def find_baseline(
        self,
        gate: DropGate,
        sheet: Sheet,
        judged: ScorecardCalculation | None = None,
        *,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Baseline | None:
        """Return the earlier score that a gate compares with, or None where there is none yet.

        :param judged: the calculation to compare; None where it has not been started.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        """
        return self._run(self.baseline_loop(gate, sheet, judged, max_outage))

    def compare_scores(
        self,
        gate: DropGate,
        ending: ScorecardCalculation,
        baseline: Baseline | None,
    ) -> str:
        """Log how a score compares with an earlier one; return the problem, empty if it passes."""
        comparison = gate.compare(ending, baseline)
        if comparison.note:
            log = self.log.info if comparison.is_compared else self.log.warning
            log("%s", comparison.note)
        return comparison.problem

    def _get_usage(
        self,
        table_id: str,
        sheet_id: str,
        execution_ids: Collection[str],
        *,
        cell_count: int | None = None,
        max_rows: int | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Loop[Usage | None]:
        """Return what a recalculation has cost; None where PromptLayer does not say.

        :param execution_ids: those of :class:`.QueuedOperation`.
        :param cell_count: how many cells were calculated: the rows are read, the last one first,
            until these are found. None reads all rows.
        :param max_rows: how many rows to read; None for all.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        """
        return each_with_backoff(
            usage_of(
                Sheet(table_id, sheet_id),
                execution_ids,
                cell_count=cell_count,
                max_rows=max_rows,
            ),
            about=f"the cost of cells of sheet {sheet_id}",
            policy=retries.POLLING.within(max_outage),
        )

    get_usage, aget_usage = twins(_get_usage)

    def find_usage(
        self,
        sheet: Sheet,
        ending: TableOperation,
        execution_ids: Collection[str],
        *,
        is_needed: bool = False,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Usage | None:
        """Return what a recalculation has cost; None where PromptLayer does not say.

        :param ending: the operation, which has ended.
        :param execution_ids: of the executions that its start has named.
        :param is_needed: read all rows of a sheet, and raise if that fails, rather than return
            None.
        :param max_outage: seconds for which PromptLayer may be out of reach, if it is needed.
        """
        name = f"operation {one_line(ending.operation_id, 80)}"
        usage = None
        try:
            if execution_ids:
                usage = self.get_usage(
                    sheet.table_id,
                    sheet.sheet_id,
                    execution_ids,
                    cell_count=ending.done_count,
                    max_rows=None if is_needed else MAX_ROWS_READ,
                    max_outage=max_outage if is_needed else retries.EXPLAINING.give_up_after,
                )
        except PromptLayerError as error:
            if is_needed:
                raise
            self.log.warning("Could not read what %s has cost: %s", name, error)
            return None
        if usage is None:
            self.log.info("PromptLayer does not say what %s has cost.", name)
        return usage

    def _summarize_evaluation(
        self,
        table_id: str,
        sheet_id: str,
        *,
        calculation_id: str | NotSet | None = NOTSET,
        known: Sequence[PastScore] = (),
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Loop[EvaluationSummary]:
        """Return what there is to say about an evaluation: scores, criteria and worst rows.

        :param calculation_id: left out for the latest calculation; None where none was made.
        :param known: earlier scores, the oldest first; PromptLayer's are used where it has more.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        """
        return each_with_backoff(
            summarize(Sheet(table_id, sheet_id), calculation_id=calculation_id, known=known),
            about=f"the evaluation of sheet {sheet_id}",
            policy=retries.POLLING.within(max_outage),
        )

    summarize_evaluation, asummarize_evaluation = twins(_summarize_evaluation)

    def baseline_loop(
        self,
        gate: DropGate,
        sheet: Sheet,
        judged: ScorecardCalculation | None,
        max_outage: float,
    ) -> Loop[Baseline | None]:
        """Return the loop of :meth:`find_baseline`."""
        return each_with_backoff(
            gate.find(sheet, judged),
            about=f"the earlier scores of sheet {sheet.sheet_id}",
            policy=retries.POLLING.within(max_outage),
        )
