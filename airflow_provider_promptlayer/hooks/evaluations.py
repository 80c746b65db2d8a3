# SPDX-License-Identifier: Apache-2.0
"""The hook's methods for tables, scorecards and reports.

:mod:`..api.tables`, :mod:`..api.scorecards` and :mod:`..api.reports` say what the results mean. A
request that starts a job is sent again only if it certainly did not arrive.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, TypeVar

from airflow_provider_promptlayer.api import cells, reports, scorecards, tables
from airflow_provider_promptlayer.api.arguments import NOTSET, NotSet
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.hooks.base import Wait, twins
from airflow_provider_promptlayer.hooks.versions import VersionMethods
from airflow_provider_promptlayer.outcomes.baseline import PREVIOUS, DropGate
from airflow_provider_promptlayer.outcomes.evaluations import (
    DEFAULT_FAIL_ON_VERDICT,
    FailOnCells,
    check_fail_on_cells,
    check_fail_on_verdict,
    check_min_score,
    raise_for_operation,
    raise_for_report,
)
from airflow_provider_promptlayer.outcomes.explained import explained_outcome, score_of
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import Loop, each_with_backoff, poll_until_ended
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE

T = TypeVar("T")


class EvaluationMethods(VersionMethods):
    """The methods for evaluations of :class:`.PromptLayerHook`."""

    # --- tables -------------------------------------------------------------------------------

    def _run_table_operation(
        self,
        table_id: str,
        sheet_id: str,
        *,
        column_ids: Any = None,
        row_ids: Any = None,
        statuses: Any = None,
        confirm_large: bool = False,
    ) -> Loop[tables.QueuedOperation | tables.NothingToDo]:
        """Recalculate cells of a sheet, and return without waiting for them.

        :param column_ids: UUIDs of the columns; None for all that are computed.
        :param row_ids: zero-based row numbers; None for all.
        :param statuses: which cells, see :class:`.CellStatus`; None for the stale ones,
            ``"all"`` or ``[]`` for all.
        :param confirm_large: start a job that is so large that PromptLayer asks first.
        :returns: what was queued; or :class:`.NothingToDo` if no cell fits. That does not
            mean that the cells are calculated: another operation may be calculating them, or they
            have failed before. :class:`.PromptLayerRunTableOperator` finds out.
        :raises PromptLayerConfirmationNeededError: for a large job without ``confirm_large``.
        :raises PromptLayerStartUncertainError: if an operation may have been queued and its id is
            not known.
        """
        call = tables.recalculate_cells(
            table_id, sheet_id, column_ids=column_ids, row_ids=row_ids, statuses=statuses
        )
        return self._start_table_operation(call, confirm_large)

    run_table_operation, arun_table_operation = twins(_run_table_operation)

    def start_table_operation(
        self, call: Call[tables.OperationAnswer], *, confirm_large: bool
    ) -> tables.QueuedOperation | tables.NothingToDo:
        """Send a recalculation that is built already, as :meth:`run_table_operation` does.

        :param call: from :func:`.recalculate_cells`.
        """
        return self._run(self._start_table_operation(call, confirm_large))

    def _start_table_operation(
        self, call: Call[tables.OperationAnswer], confirm_large: bool
    ) -> Loop[tables.QueuedOperation | tables.NothingToDo]:
        answer = yield from self._submit(call)
        if isinstance(answer, tables.ConfirmationNeeded) and confirm_large:
            self.log.info(
                "Confirming to PromptLayer that it is to calculate %s cells.",
                tables.show_count(answer.affected_cell_count),
            )
            answer = yield from self._submit(tables.confirmed(call, answer))
        if isinstance(answer, tables.ConfirmationNeeded):
            raise tables.unconfirmed(answer, was_confirmed=confirm_large)
        if isinstance(answer, tables.QueuedOperation):
            count = answer.cell_count
            self.log.info(
                "PromptLayer calculates %s in operation %s.",
                "cells" if count is None else f"{tables.show_count(count)} cells",
                one_line(answer.operation_id, 80),
            )
        return answer

    def get_table_operation(
        self, table_id: str, sheet_id: str, operation_id: str
    ) -> tables.TableOperation:
        """Poll an operation once. Does not wait, and does not raise for how it ended."""
        return self.call(tables.SheetOperation(table_id, sheet_id, operation_id).fetch_call())

    def get_sheet_operations(self, table_id: str, sheet_id: str) -> cells.SheetOperations:
        """Return the operations under way on a sheet, and the counts of its cells."""
        return self.call(cells.SheetCells(table_id, sheet_id).fetch_call())

    def _cancel_table_operation(
        self, table_id: str, sheet_id: str, operation_id: str
    ) -> Loop[tables.CancelledOperation]:
        """Cancel an operation; harmless if it has ended."""
        return _once(tables.SheetOperation(table_id, sheet_id, operation_id).cancel_call())

    cancel_table_operation, acancel_table_operation = twins(_cancel_table_operation)

    def _wait_for_table_operation(
        self,
        table_id: str,
        sheet_id: str,
        operation_id: str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on: FailOnCells = "any_cell",
    ) -> Wait[tables.TableOperation]:
        """Wait for an operation to end; for use inside ``@task`` functions. Holds the worker.

        Retries failed polls, as the sensor does.

        :param timeout: seconds to wait at most.
        :param poke_interval: seconds between two polls; None for intervals that grow with the wait.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :param fail_on: which failed cells count as a failure, see :data:`.FailOnCells`.
        :raises PromptLayerEvaluationFailedError: if ``fail_on`` calls for it; has the counts.
        :raises PromptLayerWaitTimeoutError: if the operation did not end in time. It goes on.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for too long.
        """
        job = tables.SheetOperation(table_id, sheet_id, operation_id)
        check_fail_on_cells(fail_on)
        poller = self._new_poller(job, timeout, poke_interval, max_outage)

        def loop() -> Loop[tables.TableOperation]:
            ending = yield from poll_until_ended(poller, job.fetch_call())
            raise_for_operation(ending, fail_on)
            return ending

        return Wait(poller, loop())

    wait_for_table_operation, await_for_table_operation = twins(_wait_for_table_operation)

    # --- scorecards ---------------------------------------------------------------------------

    def _run_scorecard(
        self, table_id: str, sheet_id: str, *, row_indices: Any = None, step_ids: Any = None
    ) -> Loop[str]:
        """Recalculate the scorecard of a sheet, and return without waiting for it.

        :param row_indices: zero-based row numbers; None for all.
        :param step_ids: UUIDs of the criteria; None for all.
        :returns: the ``calculation_id``.
        :raises PromptLayerStartUncertainError: if a calculation may have been queued and its id is
            not known.
        """
        call = scorecards.recalculate_scorecard(
            table_id, sheet_id, row_indices=row_indices, step_ids=step_ids
        )
        return self._start(call, scorecards.SheetCalculation.noun)

    run_scorecard, arun_scorecard = twins(_run_scorecard)

    def get_scorecard(self, table_id: str, sheet_id: str) -> scorecards.Scorecard | None:
        """Return the scorecard of a sheet, or None if it has none."""
        return self.call(scorecards.scorecard(tables.Sheet(table_id, sheet_id)))

    def get_scorecard_calculation(
        self, table_id: str, sheet_id: str, calculation_id: str
    ) -> scorecards.ScorecardCalculation:
        """Poll a calculation once. Does not wait, and does not raise for how it ended."""
        return self.call(
            scorecards.SheetCalculation(table_id, sheet_id, calculation_id).fetch_call()
        )

    def get_scorecard_rows(
        self,
        table_id: str,
        sheet_id: str,
        *,
        calculation_id: str | None = None,
        verdict: str | None = None,
        cursor: int | None = None,
        limit: int = scorecards.MAX_ROWS,
    ) -> scorecards.ScorecardRows:
        """Return a page of rows.

        :param calculation_id: None for the latest.
        :param verdict: rows of this verdict alone.
        :param cursor: ``next_cursor`` of the page before.
        :param limit: rows on the page, 1 to 100.
        """
        return self.call(
            scorecards.scorecard_rows(
                tables.Sheet(table_id, sheet_id),
                calculation_id=calculation_id,
                verdict=verdict,
                cursor=cursor,
                limit=limit,
            )
        )

    def get_scorecard_row(
        self, table_id: str, sheet_id: str, row_index: int, *, calculation_id: str | None = None
    ) -> scorecards.ScorecardRow:
        """Return one row with the results of its steps.

        :param calculation_id: None for the latest.
        """
        sheet = tables.Sheet(table_id, sheet_id)
        return self.call(scorecards.scorecard_row(sheet, row_index, calculation_id=calculation_id))

    def _cancel_scorecard(
        self, table_id: str, sheet_id: str, *, row_indices: Any = None, step_ids: Any = None
    ) -> Loop[scorecards.CancelledScorecard]:
        """Cancel all calculations of a sheet's scorecard, whoever has started them."""
        return _once(
            scorecards.cancel_scorecard(
                tables.Sheet(table_id, sheet_id), row_indices=row_indices, step_ids=step_ids
            )
        )

    cancel_scorecard, acancel_scorecard = twins(_cancel_scorecard)

    def _wait_for_scorecard(
        self,
        table_id: str,
        sheet_id: str,
        calculation_id: str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on_verdict: Sequence[str] | str = DEFAULT_FAIL_ON_VERDICT,
        min_score: float | NotSet = NOTSET,
        max_drop: float | NotSet = NOTSET,
        baseline: str = PREVIOUS,
    ) -> Wait[scorecards.ScorecardCalculation]:
        """Wait for a calculation to end, and raise if its gate fails. Holds the worker.

        Waits and raises as :meth:`wait_for_table_operation` does. Fetching why the gate fails may
        take two minutes more than ``timeout``.

        :param fail_on_verdict: the verdicts that fail the gate; ``()`` for none.
        :param min_score: the score that is needed, on the scorecard's own scale. Left out for
            none; None is refused, as a missing XCom must not open the gate.
        :param max_drop: how far the score may be below an earlier one. Left out for any; None is
            refused.
        :param baseline: whose score that is, see :class:`.PromptLayerScorecardSensor`.
        :raises PromptLayerEvaluationFailedError: if the gate fails; names the failing criteria and
            the worst rows.
        """
        job = scorecards.SheetCalculation(table_id, sheet_id, calculation_id)
        verdicts = check_fail_on_verdict(fail_on_verdict)
        needed = check_min_score(min_score, highest=math.inf)
        drop_gate = DropGate.of(max_drop, baseline)
        poller = self._new_poller(job, timeout, poke_interval, max_outage)

        def loop() -> Loop[scorecards.ScorecardCalculation]:
            ending = yield from poll_until_ended(poller, job.fetch_call())
            drop = ""
            if drop_gate is not None and ending.is_completed:
                earlier = yield from self.baseline_loop(drop_gate, job, ending, poller.max_outage)
                drop = self.compare_scores(drop_gate, ending, earlier)
            outcome = explained_outcome(
                job, ending, fail_on_verdict=verdicts, min_score=needed, drop=drop
            )
            yield from _explained(job, outcome)
            return ending

        return Wait(poller, loop())

    wait_for_scorecard, await_for_scorecard = twins(_wait_for_scorecard)

    def raise_for_scorecard(
        self,
        calculation: scorecards.SheetCalculation,
        ending: scorecards.ScorecardCalculation,
        *,
        fail_on_verdict: Sequence[str],
        min_score: float | None,
        drop: str = "",
    ) -> None:
        """Return if a calculation passes its gate; else fetch the reasons and raise.

        :param drop: the problem that :meth:`compare_scores` has found.
        :raises PromptLayerEvaluationFailedError: naming the failing criteria and the worst rows.
        """
        outcome = explained_outcome(
            calculation, ending, fail_on_verdict=fail_on_verdict, min_score=min_score, drop=drop
        )
        self._run(_explained(calculation, outcome))

    # --- reports ------------------------------------------------------------------------------

    def _run_report(
        self,
        report_id: int | str,
        name: str,
        *,
        dataset_id: int | str | None = None,
        refresh_dataset: bool | None = None,
    ) -> Loop[int]:
        """Run a legacy evaluation pipeline, and return without waiting for its report.

        :param report_id: the pipeline.
        :param name: the name of the report that the run makes.
        :param dataset_id: None for the pipeline's own.
        :param refresh_dataset: only for dynamic datasets.
        :returns: the id of the report that the run makes.
        :raises PromptLayerStartUncertainError: if a run may have been started and its id is not
            known.
        """
        call = reports.run_report(
            report_id, name, dataset_id=dataset_id, refresh_dataset=refresh_dataset
        )
        return self._start(call, reports.FinalReport.noun)

    run_report, arun_report = twins(_run_report)

    def get_report(self, report_id: int | str) -> reports.Report:
        """Poll a report that a run has made, once. Does not wait or raise for how it ended."""
        return self.call(reports.FinalReport.of(report_id).fetch_call())

    def get_report_score(self, report_id: int | str) -> reports.ReportScore:
        """Return the score of a report that a run has made."""
        return self.call(reports.report_score(report_id))

    def _wait_for_report(
        self,
        report_id: int | str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on: FailOnCells = "all_cells",
        min_score: float | NotSet = NOTSET,
    ) -> Wait[tuple[reports.Report, reports.ReportScore]]:
        """Wait for a report to end, and raise if it does not pass. Holds the worker.

        Waits and raises as :meth:`wait_for_table_operation` does.

        :param fail_on: which failed cells count as a failure, see :data:`.FailOnCells`.
        :param min_score: the score that is needed, from 0 to 100. Left out for none; None is
            refused.
        :returns: the report and its score.
        :raises PromptLayerEvaluationFailedError: if it does not pass.
        """
        job = reports.FinalReport.of(report_id)
        check_fail_on_cells(fail_on)
        needed = check_min_score(min_score)
        poller = self._new_poller(job, timeout, poke_interval, max_outage)

        def loop() -> Loop[tuple[reports.Report, reports.ReportScore]]:
            ending = yield from poll_until_ended(poller, job.fetch_call())
            score = yield from _score_of(ending, poller.max_outage)
            raise_for_report(ending, score, fail_on=fail_on, min_score=needed)
            return ending, score

        return Wait(poller, loop())

    wait_for_report, await_for_report = twins(_wait_for_report)

    def score_of_report(
        self, ending: reports.Report, *, max_outage: float = DEFAULT_MAX_OUTAGE
    ) -> reports.ReportScore:
        """Return the score of a report that has ended; it is empty if the report did not complete.

        :param max_outage: seconds for which PromptLayer may be out of reach.
        """
        return self._run(_score_of(ending, max_outage))


def _once(call: Call[T]) -> Loop[T]:
    answer: T = yield call
    return answer


def _explained(job: scorecards.SheetCalculation, outcome: CallFlow[None]) -> Loop[None]:
    return each_with_backoff(
        outcome,
        about=f"the rows of {job.name}",
        policy=retries.EXPLAINING,
        deadline=time.time() + retries.EXPLAINING_SECONDS,
    )


def _score_of(ending: reports.Report, max_outage: float) -> Loop[reports.ReportScore]:
    return each_with_backoff(
        score_of(ending),
        about=f"the score of report {ending.report_id}",
        policy=retries.POLLING.within(max_outage),
    )
