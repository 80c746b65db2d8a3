# SPDX-License-Identifier: Apache-2.0
"""The operators for evaluations: start one, wait for it, and gate on what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow_provider_promptlayer import xcom
from airflow_provider_promptlayer.api.arguments import choices
from airflow_provider_promptlayer.api.cells import (
    SelectedCells,
    Selection,
    calculated_elsewhere,
)
from airflow_provider_promptlayer.api.gates import judge_cells
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.reports import Report, run_report
from airflow_provider_promptlayer.api.scorecards import (
    CalculationStatus,
    ScorecardCalculation,
    recalculate_scorecard,
)
from airflow_provider_promptlayer.api.subjects import Subject
from airflow_provider_promptlayer.api.tables import (
    CellStatus,
    NothingToDo,
    TableOperation,
    recalculate_cells,
    sheet_operations,
    show_count,
)
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.waiting import Wait
from airflow_provider_promptlayer.evaluation_waiting import (
    PromptLayerReportWaiter,
    PromptLayerScorecardWaiter,
    PromptLayerTableWaiter,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerEvaluationFailedError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.starting import PromptLayerStarter

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

T = TypeVar("T")


_LAG_SECONDS: Final = 30.0
"""For how long cells may be pending without an operation that is known to calculate them.

What PromptLayer says of cells and of operations can lag behind each other.
"""

_LAG_PAUSE: Final = 2.0

_LEAST_SECONDS_TO_ASK: Final = 30.0
"""For how long the cells may be asked about even where the wait has used up its time.

What was waited for had ended in time, so a few pages of rows are no time-out.
"""


class PromptLayerRunTableOperator(PromptLayerTableWaiter, PromptLayerStarter[TableOperation]):
    """Recalculate the cells of a sheet, and wait for them.

    Where no cell of the selection is left to start, ``fail_on`` is held against the cells as they
    are: the task succeeds and says that there is nothing to do, or fails because cells have failed
    before. While something else is calculating cells of the selection, it waits first, for the
    operations on the sheet one after the other, as PromptLayer does not say which of them does.
    Ending the task cancels the operation, also while it is deferred (Airflow 3.3 and later), unless
    something else has started it. Clearing the task while it is deferred does not on Airflow 3.3,
    where the next try goes back to the operation; on Airflow 3.4 it does, and the next try starts
    another.

    A lost answer, a crash and a retry start nothing twice, see
    :class:`.PromptLayerRunWorkflowOperator`. An operation that somebody cancelled, or that
    PromptLayer gave up before all cells had ended, may be retried. Not so where cells failed and
    ``fail_on`` is ``"any_cell"``: they are not stale, so a retry would not take them up. With
    ``statuses=["STALE", "FAILED"]`` it does, and calculates those that are left.

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
        # Where something else calculates the selection: its cells as they were last seen, the wait,
        # and the operations that were seen to have ended, whatever a list may say.
        self._cells: SelectedCells | None = None
        self._wait: Wait | None = None
        self._have_ended: set[str] = set()
        self._asked_since: float | None = None
        self._ask_until = math.inf

    def prepare(self, context: Context) -> Callable[[], str | None]:
        """Refuse what cannot be sent.

        :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
        """
        recalculate_cells(self.table_id, self.sheet_id, **self._selection())
        return lambda: self._queue(context)

    def asks(self) -> dict[str, Any]:
        """Return the sheet and the selection."""
        call = recalculate_cells(self.table_id, self.sheet_id, **self._selection())
        return _sent(call.request)

    def _queue(self, context: Context) -> str | None:
        """Queue the recalculation, and return its id, or None if there is nothing to do.

        :raises PromptLayerConfirmationNeededError: for a large job without ``confirm_large``.
        """
        self._cells = None
        answer = self.hook.run_table_operation(
            self.table_id, self.sheet_id, **self._selection(), confirm_large=self.confirm_large
        )
        if isinstance(answer, NothingToDo):
            self._forget_the_start()  # before what may take long: a crash then leaves no doubt
            self._asked_since = time.time()
            self._set_time_to_ask(context, self._asked_since + self.timeout)
            return self._under_way()
        return answer.operation_id

    def without(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Return counts of nothing."""
        return {
            "operation_id": None,
            "status": "nothing to do",
            "cell_count": 0,
            "completed_count": 0,
            "failed_count": 0,
        }

    def judge(self, ending: TableOperation) -> None:
        """Apply ``fail_on``: to the cells of the selection, where something else calculates them.

        :raises PromptLayerEvaluationFailedError: with the numbers of cells.
        """
        cells = self._cells
        if cells is None:
            super().judge(ending)
            return
        self._judge_cells(cells)
        if cells.stale and self._takes(CellStatus.STALE):
            raise PromptLayerEvaluationFailedError(
                f"{show_count(cells.stale)} cells of the selection were left by what had begun to "
                f"calculate them ({cells.progress}).",
                outcome=cells,
            )

    def deliver(self, context: Context, ending: TableOperation) -> dict[str, Any]:
        """Return the counts of the cells."""
        if (cells := self._cells) is not None:
            ending = TableOperation(
                ending.operation_id,
                ending.status,
                cell_count=cells.count,
                completed_count=cells.completed,
                failed_count=cells.failed,
                pending_count=0,
            )
        return super().deliver(context, ending)

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry can help, and cannot double what goes on."""
        if self._waits_for_others:  # so nothing was started
            return PromptLayerTableWaiter.may_retry(self, error) or self.is_accident(error)
        return super().may_retry(error)

    def is_accident(self, error: Exception) -> bool:
        """Return whether a retry calculates what is left, and nothing that is done.

        That is so where the operation was cancelled or broke off, and for failed cells where
        ``statuses`` has them and not those that succeeded; also for stale ones, which others have
        left. Never where the retry would leave failed cells out of account that count.
        """
        if not isinstance(error, PromptLayerEvaluationFailedError):
            return False
        ending, takes_failed = error.outcome, self._takes(CellStatus.FAILED)
        if isinstance(ending, SelectedCells):
            if self._takes(CellStatus.COMPLETED):
                return False
            if ending.failed:
                return takes_failed
            return ending.stale > 0 and self._takes(CellStatus.STALE)
        if not isinstance(ending, TableOperation):
            return False
        if ending.failed_count and self.fail_on == "any_cell" and not takes_failed:
            return False
        if ending.is_cancelled:
            return True
        return (takes_failed or ending.broke_off) and not self._takes(CellStatus.COMPLETED)

    def _wait_to_the_end(self, subject: Subject[TableOperation], wait: Wait) -> TableOperation:
        self._wait = wait
        return super()._wait_to_the_end(subject, wait)

    def _finish(self, context: Context, ending: TableOperation) -> Any:
        # In a loop: each round waits for one operation of others, for which this task may leave the
        # worker. The time that it has for all of them began with the first.
        while self._waits_for_others and self._wait is not None:
            deadline = math.inf if self._wait.deadline is None else self._wait.deadline
            self._set_time_to_ask(context, deadline)
            operation = self._ask_about_selection(ended=ending.operation_id)
            if operation is None:
                break
            self._is_over = False
            self._subject = subject = self.named(operation.operation_id)
            self._push_id(context, subject)
            wait = self._new_wait(subject, self._wait.started_at, deadline=deadline)
            ending = self._wait_to_the_end(subject, wait)
        return super()._finish(context, ending)

    def _started_at(self, context: Context) -> float:
        # To ask about the cells is a part of the wait.
        return super()._started_at(context) if self._asked_since is None else self._asked_since

    def _set_time_to_ask(self, context: Context, deadline: float) -> None:
        least = time.time() + _LEAST_SECONDS_TO_ASK
        self._ask_until = min(max(deadline, least), self._must_end_by(context))

    @property
    def _waits_for_others(self) -> bool:
        return self._subject is not None and not self.cancels_on_kill

    def _under_way(self) -> str | None:
        """Return an operation that may be calculating the selected cells, or None if none is.

        :raises PromptLayerEvaluationFailedError: if none is, and cells of the selection have
            failed.
        :raises PromptLayerTransientError: if cells are pending, and no operation is known.
        """
        sheet = self._ask(sheet_operations(self.table_id, self.sheet_id))
        if not (sheet.is_idle and sheet.is_unblemished):
            operation = self._ask_about_selection()
            if operation is not None:
                self.cancels_on_kill = False
                return operation.operation_id
            if self._cells is not None:
                self._judge_cells(self._cells)
        self.log.info("There is nothing to do: no cell of the selection has to be calculated.")
        return None

    def _ask_about_selection(self, ended: str | None = None) -> TableOperation | None:
        """Note what has become of the selected cells; return what to wait for, or None if nothing.

        :param ended: an operation that was waited for.
        :raises PromptLayerTransientError: if cells are pending, and no operation is known.
        """
        if ended is not None:
            self._have_ended.add(ended)
        selection = Selection.of(self.table_id, self.sheet_id, self.column_ids, self.row_ids)
        give_up_at = time.monotonic() + _LAG_SECONDS
        while True:
            talk = calculated_elsewhere(selection, not_for=self._have_ended)
            try:
                self._cells, operation = self.hook.converse(talk, self._ask)
            except PromptLayerTransientError:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(_LAG_PAUSE)
            else:
                break
        if operation is not None:
            self.log.info(
                "No cell is left to start, and something else is calculating cells of the "
                "selection. Waiting for operation %s (%s), which something else has started.",
                one_line(operation.operation_id, 80),
                operation.progress,
            )
        return operation

    def _ask(self, call: Call[T]) -> T:
        return self.hook.ask(
            call,
            about="the cells of the sheet",
            max_outage=self.max_outage,
            deadline=self._ask_until,
        )

    def _judge_cells(self, cells: SelectedCells) -> None:
        judge_cells(cells, self.fail_on, stale_count=self._takes(CellStatus.STALE))

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

    def asks(self) -> dict[str, Any]:
        """Return the sheet and the selection."""
        call = recalculate_scorecard(self.table_id, self.sheet_id, **self._selection())
        return _sent(call.request)

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
        self.named(self.report_id)
        run_report(self.report_id, self.name, **self._dataset())
        return lambda: self.hook.run_report(self.report_id, self.name, **self._dataset())

    def asks(self) -> dict[str, Any]:
        """Return the pipeline and the data. A name may tell the time, and asks for nothing else."""
        return _sent(run_report(self.report_id, "any", **self._dataset()).request)

    def _dataset(self) -> dict[str, Any]:
        return {"dataset_id": self.dataset_id, "refresh_dataset": self.refresh_dataset}


def _sent(request: Request) -> dict[str, str]:
    """Return what a request asks for, however its arguments were written."""
    return {"path": request.path, "body": (request.body or b"").decode()}
