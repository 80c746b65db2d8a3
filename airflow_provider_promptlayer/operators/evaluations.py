# SPDX-License-Identifier: Apache-2.0
"""The operators for evaluations: start one, wait for it, and gate on its outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer.api.arguments import choices, uuid
from airflow_provider_promptlayer.api.cells import SheetCells, SheetOperations
from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.reports import Report, run_report
from airflow_provider_promptlayer.api.scorecards import (
    CalculationStatus,
    ScorecardCalculation,
    recalculate_scorecard,
)
from airflow_provider_promptlayer.api.tables import (
    CellStatus,
    NothingToDo,
    TableOperation,
    recalculate_cells,
)
from airflow_provider_promptlayer.bases.evaluation import (
    PromptLayerReportWaiter,
    PromptLayerScorecardWaiter,
    PromptLayerTableWaiter,
)
from airflow_provider_promptlayer.bases.submitter import PromptLayerSubmitter
from airflow_provider_promptlayer.outcomes.evaluations import (
    PromptLayerEvaluationFailedError,
    raise_for_sheet,
)
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class PromptLayerRunTableOperator(PromptLayerTableWaiter, PromptLayerSubmitter[TableOperation]):
    """Recalculate the cells of a sheet, and wait for them.

    Where no cell of the selection is left to start, the counts of the whole sheet decide. While
    cells of it are being calculated, the task waits. Then it fails if cells of the sheet have
    failed, unless ``fail_on="never"``; else it succeeds and says that there was nothing to do.
    Ending the task cancels the operation that it has started, also while it is deferred (Airflow
    3.3 and later). Clearing a deferred task does not on Airflow 3.3, where the next try reattaches
    to the operation; on Airflow 3.4 it does, and the next try starts another.

    A lost answer, a crash and a retry start nothing twice, see
    :class:`.PromptLayerRunWorkflowOperator`. An operation that somebody cancelled, or that
    PromptLayer gave up before all cells had ended, may be retried. Not so where cells failed and
    ``fail_on`` is ``"any_cell"``: they are not stale, so a retry would not take them up. With
    ``statuses=["STALE", "FAILED"]`` it does, and calculates those that are left.

    :param table_id: the table, a UUID. Templated.
    :param sheet_id: the sheet, a UUID. Templated.
    :param column_ids: UUIDs of the columns; None for all that are computed. Templated.
    :param row_ids: zero-based row numbers; None for all. Templated.
    :param statuses: which cells, see :class:`.CellStatus`; None for those that are
        stale, ``[]`` for all. Templated.
    :param confirm_large: start a job that is so large that PromptLayer asks first.
    :param fail_on: ``"any_cell"`` (one failed), ``"all_cells"`` (none succeeded) or ``"never"``.
    :param wait_for_completion: False returns the ``operation_id`` as soon as there is one.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`, and ``reattach``.
    :returns: the counts of the cells.
    """

    template_fields: Sequence[str] = (
        "table_id",
        "sheet_id",
        "column_ids",
        "row_ids",
        "statuses",
        "promptlayer_conn_id",
    )

    id_key = xcom.OPERATION_ID_KEY
    other_job_types = (SheetCells,)
    how_to_find = "look at the sheet in PromptLayer"

    def __init__(
        self,
        *,
        column_ids: Sequence[str] | str | XComArg | None = None,
        row_ids: Sequence[int] | str | XComArg | None = None,
        statuses: Sequence[str] | str | XComArg | None = None,
        confirm_large: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.column_ids: Any = column_ids
        self.row_ids: Any = row_ids
        self.statuses: Any = statuses
        self.confirm_large = confirm_large
        self._was_busy = False  # whether cells of the sheet were, or may have been, calculated

    def prepare(self, context: Context) -> Callable[[], str | None]:  # noqa: ARG002
        """Refuse what cannot be sent.

        :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
        """
        recalculate_cells(self.table_id, self.sheet_id, **self._selection())
        return self._queue

    def input_parts(self) -> dict[str, Any]:
        """Return the sheet and the selection."""
        call = recalculate_cells(self.table_id, self.sheet_id, **self._selection())
        return _sent(call.request)

    def restore_job(self, context: Context) -> RemoteJob[Any]:
        """Return the operation whose id was pushed, or the sheet's cells where none was."""
        operation = super().restore_job(context)
        return self._cells_of_sheet() if operation is None else operation

    def poll(self, job: RemoteJob[Any]) -> Any:
        """Poll once, and note whether the job was still running, or may have been."""
        was_busy, self._was_busy = self._was_busy, True  # stays so if the poll fails
        status = super().poll(job)
        self._was_busy = was_busy or not status.is_complete
        return status

    def nothing_to_do(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Return counts of nothing."""
        return {
            "operation_id": None,
            "status": "nothing to do",
            "cell_count": 0,
            "completed_count": 0,
            "failed_count": 0,
        }

    def raise_for_outcome(self, ending: TableOperation | SheetOperations) -> None:
        """Apply ``fail_on`` to the counts of the operation, or to those of the sheet.

        :raises PromptLayerEvaluationFailedError: with the numbers of cells.
        """
        if isinstance(ending, TableOperation):
            super().raise_for_outcome(ending)
            return
        # A sheet that was idle from the start has stale cells outside of the selection alone.
        raise_for_sheet(
            ending, self.fail_on, stale_count=self._has_waited and self._takes(CellStatus.STALE)
        )

    def push_result(
        self, context: Context, ending: TableOperation | SheetOperations
    ) -> dict[str, Any]:
        """Return the counts of the operation's cells, or of the sheet's if it was calculated."""
        if isinstance(ending, TableOperation):
            return super().push_result(context, ending)
        result = self.nothing_to_do(context)
        if self._has_waited:
            result |= {
                "cell_count": ending.total_cells,
                "completed_count": ending.completed_count,
                "failed_count": ending.failed_count,
            }
        stored: dict[str, Any] = self._storable(result)
        return stored

    def may_resubmit(self, error: Exception) -> bool:
        """Return whether a retry calculates what is left, and nothing that is done.

        That is so where the operation was cancelled or broke off, for failed cells if ``statuses``
        has them and not those that succeeded, and for stale cells that another operation has left.
        It is not so where the retry would ignore failed cells that ``fail_on`` counts.
        """
        if not isinstance(error, PromptLayerEvaluationFailedError):
            return False
        ending, takes_failed = error.outcome, self._takes(CellStatus.FAILED)
        if isinstance(ending, SheetOperations):
            if self._takes(CellStatus.COMPLETED):
                return False
            if ending.failed_count:
                return takes_failed
            return ending.stale_count > 0 and self._takes(CellStatus.STALE)
        if not isinstance(ending, TableOperation):
            return False
        if ending.failed_count and self.fail_on == "any_cell" and not takes_failed:
            return False
        if ending.is_cancelled:
            return True
        return (takes_failed or ending.broke_off) and not self._takes(CellStatus.COMPLETED)

    def _start(self, context: Context) -> RemoteJob[Any] | None:
        """Queue the recalculation; where no cell is left to start, return the sheet's cells."""
        operation = super()._start(context)
        if operation is not None or not self.wait_for_completion:
            return operation
        self.cancels_on_kill = False  # nothing that calculates the sheet is this task's
        return self._cells_of_sheet()

    def _queue(self) -> str | None:
        """Queue the recalculation, and return its id, or None if there is nothing to do.

        :raises PromptLayerConfirmationNeededError: for a large job without ``confirm_large``.
        """
        answer = self.hook.run_table_operation(
            self.table_id, self.sheet_id, **self._selection(), confirm_large=self.confirm_large
        )
        if isinstance(answer, NothingToDo):
            self.log.info(
                "There is nothing to do: no cell of the selection is left to start. Reading the "
                "counts of the sheet's cells."
            )
            return None
        return answer.operation_id

    @property
    def _has_waited(self) -> bool:
        return self._was_busy or self._resumed

    def _cells_of_sheet(self) -> SheetCells:
        return SheetCells(uuid("table_id", self.table_id), uuid("sheet_id", self.sheet_id))

    def _takes(self, status: CellStatus) -> bool:
        """Return whether cells of a status are to be calculated."""
        statuses = choices("statuses", self.statuses, list(CellStatus))
        return (
            status is CellStatus.STALE if statuses is None else not statuses or status in statuses
        )

    def _selection(self) -> dict[str, Any]:
        return {
            "column_ids": self.column_ids,
            "row_ids": self.row_ids,
            "statuses": self.statuses,
        }


class PromptLayerRunScorecardOperator(
    PromptLayerScorecardWaiter, PromptLayerSubmitter[ScorecardCalculation]
):
    """Recalculate the scorecard of a sheet, wait for it, and gate on the verdict and the score.

    Pushed to XCom, also where the gate fails: ``promptlayer_score``, ``promptlayer_verdict``,
    ``promptlayer_criterion_summaries``, ``promptlayer_drift_summary`` and, as soon as it is known,
    ``promptlayer_calculation_id``. A gate that fails names the failing criteria and the worst
    rows, and uses up no retries; ``soft_fail=True`` skips what is downstream instead. A
    calculation that did not come to an end may be retried.

    Ending the task cancels the calculation, also while the task is deferred (Airflow 3.3 and
    later), unless a newer one is under way: PromptLayer cancels whatever is being calculated for
    the sheet. Clearing a deferred task is as with :class:`PromptLayerRunTableOperator`. A lost
    answer, a crash and a retry start nothing twice, see :class:`.PromptLayerRunWorkflowOperator`.

    :param table_id: the table, a UUID. Templated.
    :param sheet_id: the sheet, a UUID. Templated.
    :param row_indices: zero-based row numbers; None for all. Templated.
    :param step_ids: UUIDs of the criteria; None for all. Templated.
    :param fail_on_verdict: the verdicts that fail the task; ``()`` for none. Templated.
    :param min_score: the score that is needed, on the scorecard's own scale; left out for none, and
        None is refused. Templated.
    :param wait_for_completion: False returns the ``calculation_id`` as soon as there is one.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`, and ``reattach``.
    :returns: score, verdict and summaries.
    """

    template_fields: Sequence[str] = (
        "table_id",
        "sheet_id",
        "row_indices",
        "step_ids",
        "fail_on_verdict",
        "min_score",
        "promptlayer_conn_id",
    )

    id_key = xcom.CALCULATION_ID_KEY
    how_to_find = "look at the scorecard in PromptLayer"

    def __init__(
        self,
        *,
        row_indices: Sequence[int] | str | XComArg | None = None,
        step_ids: Sequence[str] | str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.row_indices: Any = row_indices
        self.step_ids: Any = step_ids

    def prepare(self, context: Context) -> Callable[[], str]:  # noqa: ARG002
        """Refuse what cannot be sent, and what is no gate.

        :raises PromptLayerInvalidInputError: for such an argument.
        """
        self._gate()
        recalculate_scorecard(self.table_id, self.sheet_id, **self._selection())
        return lambda: self.hook.run_scorecard(self.table_id, self.sheet_id, **self._selection())

    def input_parts(self) -> dict[str, Any]:
        """Return the sheet and the selection."""
        call = recalculate_scorecard(self.table_id, self.sheet_id, **self._selection())
        return _sent(call.request)

    def may_resubmit(self, error: Exception) -> bool:
        """Return whether it was not calculated to the end. A verdict is an answer.

        With an unknown status it may still be running.
        """
        return (
            isinstance(error, PromptLayerEvaluationFailedError)
            and isinstance(error.outcome, ScorecardCalculation)
            and error.outcome.status in (CalculationStatus.FAILED, CalculationStatus.CANCELLED)
        )

    def _selection(self) -> dict[str, Any]:
        return {"row_indices": self.row_indices, "step_ids": self.step_ids}


class PromptLayerRunReportOperator(PromptLayerReportWaiter, PromptLayerSubmitter[Report]):
    """Run a legacy evaluation pipeline, wait for its report, and gate on the score.

    Pushed to XCom: ``promptlayer_report_id``, the id of the report that the run makes, as soon as
    it is known, and ``promptlayer_score``. Reports cannot be cancelled. A gate that fails uses up
    no retries, and neither does an unknown status: the report may still be running.

    A lost answer, a crash and a retry start nothing twice, see
    :class:`.PromptLayerRunWorkflowOperator`.

    :param report_id: the pipeline. Templated.
    :param name: of the report that the run makes. Templated.
    :param dataset_id: None for the pipeline's own. Templated.
    :param refresh_dataset: for dynamic datasets alone.
    :param min_score: the score that is needed, from 0 to 100; left out for none, and None is
        refused. Templated.
    :param fail_on: ``"any_cell"`` (one failed), ``"all_cells"`` (none succeeded) or ``"never"``.
    :param wait_for_completion: False returns the id of the new report as soon as there is one.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`, and ``reattach``.
    :returns: the score, and the counts of the cells.
    """

    template_fields: Sequence[str] = (
        "report_id",
        "name",
        "dataset_id",
        "min_score",
        "promptlayer_conn_id",
    )

    id_key = xcom.REPORT_ID_KEY
    how_to_find = "look in PromptLayer for a report of that name"

    def __init__(
        self,
        *,
        report_id: int | str | XComArg,
        name: str | XComArg,
        dataset_id: int | str | XComArg | None = None,
        refresh_dataset: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.report_id: Any = report_id
        self.name: Any = name
        self.dataset_id: Any = dataset_id
        self.refresh_dataset = refresh_dataset

    def prepare(self, context: Context) -> Callable[[], int]:  # noqa: ARG002
        """Refuse what cannot be sent, and what is no gate.

        :raises PromptLayerInvalidInputError: for such an argument.
        """
        self.job_from_id(self.report_id)
        run_report(self.report_id, self.name, **self._dataset())
        return lambda: self.hook.run_report(self.report_id, self.name, **self._dataset())

    def input_parts(self) -> dict[str, Any]:
        """Return the pipeline and the data. A name may tell the time, and asks for nothing else."""
        return _sent(run_report(self.report_id, "any", **self._dataset()).request)

    def _dataset(self) -> dict[str, Any]:
        return {"dataset_id": self.dataset_id, "refresh_dataset": self.refresh_dataset}


def _sent(request: Request) -> dict[str, str]:
    """Return what a request asks for, however its arguments were written."""
    return {"path": request.path, "body": (request.body or b"").decode()}
