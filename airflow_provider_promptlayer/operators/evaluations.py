# SPDX-License-Identifier: Apache-2.0
"""The operators for evaluations: start one, wait for it, and gate on what came out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer import xcom
from airflow_provider_promptlayer.api.arguments import choices
from airflow_provider_promptlayer.api.gates import judge_sheet
from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.api.reports import Report, run_report
from airflow_provider_promptlayer.api.scorecards import (
    CalculationStatus,
    ScorecardCalculation,
    recalculate_scorecard,
)
from airflow_provider_promptlayer.api.tables import (
    CellStatus,
    NothingToDo,
    SheetOperations,
    TableOperation,
    recalculate_cells,
    sheet_operations,
    show_count,
)
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.evaluation_waiting import (
    PromptLayerReportWaiter,
    PromptLayerScorecardWaiter,
    PromptLayerTableWaiter,
)
from airflow_provider_promptlayer.exceptions import PromptLayerEvaluationFailedError
from airflow_provider_promptlayer.starting import PromptLayerStarter

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class PromptLayerRunTableOperator(PromptLayerTableWaiter, PromptLayerStarter[TableOperation]):
    """Recalculate the cells of a sheet, and wait for them.

    Where no cell is left to calculate the task succeeds and says so. Where operations are under way
    on the sheet that something else has started, it waits for the largest of them. Ending the task
    cancels the operation, also while it is deferred (Airflow 3.3 and later), unless something else
    has started it.

    A lost answer, a crash and a retry start nothing twice, see
    :class:`.PromptLayerRunWorkflowOperator`. An operation that somebody cancelled may be retried.
    Cells that failed are not stale, so a retry would not take them up, and uses up no retries;
    with ``statuses=["STALE", "FAILED"]`` it does, and calculates those that are left.

    :param table_id: the table, a UUID. Templated.
    :param sheet_id: the sheet, a UUID. Templated.
    :param column_ids: UUIDs of the columns; None for all that are computed. Templated.
    :param row_ids: zero-based row numbers; None for all. Templated.
    :param statuses: which cells, see :class:`.api.tables.CellStatus`; None for those that are
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

    def check(self, context: Context) -> None:  # noqa: ARG002
        """Refuse what cannot be sent.

        :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
        """
        recalculate_cells(self.table_id, self.sheet_id, **self._selection())

    def asks(self) -> dict[str, Any]:
        """Return the sheet and the selection."""
        call = recalculate_cells(self.table_id, self.sheet_id, **self._selection())
        return _sent(call.request)

    def start(self, context: Context) -> str | None:  # noqa: ARG002
        """Queue the recalculation, and return its id, or None if there is nothing to do.

        :raises PromptLayerConfirmationNeededError: for a large job without ``confirm_large``.
        """
        answer = self.hook.run_table_operation(
            self.table_id, self.sheet_id, **self._selection(), confirm_large=self.confirm_large
        )
        return self._under_way() if isinstance(answer, NothingToDo) else answer.operation_id

    def without(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Return counts of nothing."""
        return {
            "operation_id": None,
            "status": "nothing to do",
            "cell_count": 0,
            "completed_count": 0,
            "failed_count": 0,
        }

    def is_accident(self, error: Exception) -> bool:
        """Return whether a retry calculates what is left, and nothing that is done.

        That is so where the operation was cancelled, and for failed cells where ``statuses`` has
        them and not those that succeeded.
        """
        if not isinstance(error, PromptLayerEvaluationFailedError):
            return False
        ending = error.outcome
        if not isinstance(ending, TableOperation):
            return False
        statuses = choices("statuses", self.statuses, list(CellStatus)) or ()
        return ending.is_cancelled or (
            CellStatus.FAILED in statuses and CellStatus.COMPLETED not in statuses
        )

    def _under_way(self) -> str | None:
        """Return the operation that is calculating the cells already, or None if none is.

        :raises PromptLayerEvaluationFailedError: if none is, and cells of the sheet have failed.
        """
        sheet = self.hook.ask(
            sheet_operations(self.table_id, self.sheet_id),
            about="the operations on the sheet",
            max_outage=self.max_outage,
        )
        if sheet.active_operations:
            largest = max(sheet.active_operations, key=lambda operation: operation.pending_count)
            self.cancels_on_kill = False
            self.log.info(
                "No cell is left to start, and operation %s is under way on the sheet (%s), which "
                "something else has started. Waiting for it.",
                one_line(largest.operation_id, 80),
                largest.progress,
            )
            return largest.operation_id
        if self.column_ids is None and self.row_ids is None:
            judge_sheet(sheet, self.fail_on)
        elif not self._takes_up_failed_cells():
            self._judge_selection(sheet)
        self.log.info("There is nothing to do: no cell of the selection has to be calculated.")
        return None

    def _judge_selection(self, sheet: SheetOperations) -> None:
        """Refuse to call cells good that an earlier try of this task has seen fail.

        Which cells of a sheet have failed, PromptLayer does not say.
        """
        if not (failed := sheet.status_counts.get(CellStatus.FAILED, 0)):
            return
        failure = self._replaced[1] if self._replaced else None
        if isinstance(failure, PromptLayerEvaluationFailedError):
            ending = failure.outcome
            if isinstance(ending, TableOperation) and not ending.is_cancelled:
                raise failure
        self.log.warning(
            "%s cells of the sheet have failed before, and PromptLayer does not say whether they "
            "are of the selection: statuses=['STALE', 'FAILED'] calculates them again.",
            show_count(failed),
        )

    def _takes_up_failed_cells(self) -> bool:
        statuses = choices("statuses", self.statuses, list(CellStatus))
        return statuses is not None and (not statuses or CellStatus.FAILED in statuses)

    def _selection(self) -> dict[str, Any]:
        return {
            "column_ids": self.column_ids,
            "row_ids": self.row_ids,
            "statuses": self.statuses,
        }


class PromptLayerRunScorecardOperator(
    PromptLayerScorecardWaiter, PromptLayerStarter[ScorecardCalculation]
):
    """Recalculate the scorecard of a sheet, wait for it, and gate on the verdict and the score.

    Pushed to XCom, also where the gate fails: ``promptlayer_score``, ``promptlayer_verdict``,
    ``promptlayer_criterion_summaries``, ``promptlayer_drift_summary`` and, as soon as it is known,
    ``promptlayer_calculation_id``. A gate that fails names the failing criteria and the worst
    rows, and uses up no retries; ``soft_fail=True`` skips what is downstream instead. A
    calculation that did not come to an end may be retried.

    Ending the task cancels the calculation, also while the task is deferred (Airflow 3.3 and
    later), unless a newer one is under way: PromptLayer cancels whatever is being calculated for
    the sheet. A lost answer, a crash and a retry start nothing twice, see
    :class:`.PromptLayerRunWorkflowOperator`.

    :param table_id: the table, a UUID. Templated.
    :param sheet_id: the sheet, a UUID. Templated.
    :param row_indices: zero-based row numbers; None for all. Templated.
    :param step_ids: UUIDs of the criteria; None for all. Templated.
    :param fail_on_verdict: the verdicts that fail the task; ``()`` for none. Templated.
    :param min_score: the score that is needed, on the scorecard's own scale. Templated.
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

    def check(self, context: Context) -> None:  # noqa: ARG002
        """Refuse what cannot be sent, and what is no gate.

        :raises PromptLayerInvalidInputError: for such an argument.
        """
        self._gate()
        recalculate_scorecard(self.table_id, self.sheet_id, **self._selection())

    def asks(self) -> dict[str, Any]:
        """Return the sheet and the selection."""
        call = recalculate_scorecard(self.table_id, self.sheet_id, **self._selection())
        return _sent(call.request)

    def start(self, context: Context) -> str:  # noqa: ARG002
        """Queue the calculation and return its id."""
        return self.hook.run_scorecard(self.table_id, self.sheet_id, **self._selection())

    def is_accident(self, error: Exception) -> bool:
        """Return whether it was not calculated to the end. A verdict is an answer.

        Of a status that nobody knows, nobody knows either whether the calculation still goes on.
        """
        return (
            isinstance(error, PromptLayerEvaluationFailedError)
            and isinstance(error.outcome, ScorecardCalculation)
            and error.outcome.status in (CalculationStatus.FAILED, CalculationStatus.CANCELLED)
        )

    def _selection(self) -> dict[str, Any]:
        return {"row_indices": self.row_indices, "step_ids": self.step_ids}


class PromptLayerRunReportOperator(PromptLayerReportWaiter, PromptLayerStarter[Report]):
    """Run an evaluation pipeline of old, wait for its report, and gate on the score.

    Pushed to XCom: ``promptlayer_report_id``, the id of the report that the run makes, as soon as
    it is known, and ``promptlayer_score``. Reports cannot be cancelled. A gate that fails uses up
    no retries, and neither does a status that nobody knows: the report may still go on.

    A lost answer, a crash and a retry start nothing twice, see
    :class:`.PromptLayerRunWorkflowOperator`.

    :param report_id: the pipeline. Templated.
    :param name: of the report that the run makes. Templated.
    :param dataset_id: None for the pipeline's own. Templated.
    :param refresh_dataset: for dynamic datasets alone.
    :param min_score: the score that is needed, from 0 to 100. Templated.
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

    def check(self, context: Context) -> None:  # noqa: ARG002
        """Refuse what cannot be sent, and what is no gate.

        :raises PromptLayerInvalidInputError: for such an argument.
        """
        self.named(self.report_id)
        run_report(self.report_id, self.name, **self._dataset())

    def asks(self) -> dict[str, Any]:
        """Return the pipeline and the data. A name may tell the time, and asks for nothing else."""
        return _sent(run_report(self.report_id, "any", **self._dataset()).request)

    def start(self, context: Context) -> int:  # noqa: ARG002
        """Start the run and return the id of the report that it makes."""
        return self.hook.run_report(self.report_id, self.name, **self._dataset())

    def _dataset(self) -> dict[str, Any]:
        return {"dataset_id": self.dataset_id, "refresh_dataset": self.refresh_dataset}


def _sent(request: Request) -> dict[str, str]:
    """Return what a request asks for, however its arguments were written."""
    return {"path": request.path, "body": (request.body or b"").decode()}
