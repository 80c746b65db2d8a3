# SPDX-License-Identifier: Apache-2.0
"""The operators for evaluations: start one, wait for it, and gate on its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack

from airflow_provider_promptlayer.api.arguments import (
    NOTSET,
    NotSet,
    list_of,
    mapping,
    positive,
    row_number,
    title_or_uuid,
    title_text,
    uuid,
)
from airflow_provider_promptlayer.api.cells import SheetCells
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.reports import Report, run_report
from airflow_provider_promptlayer.api.scorecards import (
    ScorecardCalculation,
    recalculate_scorecard,
    scorecard,
)
from airflow_provider_promptlayer.api.tables import (
    ALL,
    NothingToDo,
    TableOperation,
    cell_statuses,
    recalculate_cells,
)
from airflow_provider_promptlayer.api.usage import Usage
from airflow_provider_promptlayer.bases.canceller import PromptLayerCanceller
from airflow_provider_promptlayer.bases.column_versions import ColumnVersions
from airflow_provider_promptlayer.bases.evaluation import (
    ReportTask,
    ScorecardTask,
    TableTask,
    given_field,
    optional_field,
)
from airflow_provider_promptlayer.bases.kind import JobKind, Submission
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS
from airflow_provider_promptlayer.bases.submitter import PromptLayerSubmitter
from airflow_provider_promptlayer.outcomes.baseline import Baseline, DropGate
from airflow_provider_promptlayer.outcomes.price import check_max_price, price_problem, too_dear

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_promptlayer.bases.arguments import (
        RunReportKwargs,
        RunScorecardKwargs,
        RunTableKwargs,
    )


_MAX_EXECUTIONS_NOTED: Final = 1000
"""Of how many executions the ids are kept, to tell what they have cost.

Airflow's task state store is made for values of up to 64 KB.
"""


class PromptLayerRunTableOperator(TableTask, ColumnVersions):
    """Recalculate the cells of a sheet, and wait for them.

    Where no cell of the selection is left to start, the counts of the whole sheet decide. While
    cells of the sheet are being calculated, the task waits. Then it fails if cells of the sheet
    have failed, unless ``fail_on="never"``; else it succeeds and says that there was nothing to do.

    Ending the task cancels the operation that it has started, also while the task is deferred
    (Airflow 3.3 and later). Clearing a deferred task cancels nothing on Airflow 3.3, where the next
    try goes back to the operation; on Airflow 3.4 it cancels, and the next try starts another.

    A lost answer, a crash and a retry start nothing twice, see
    :class:`.PromptLayerRunWorkflowOperator`. An operation that was cancelled, or that PromptLayer
    gave up before all cells had ended, may be retried. Failed cells under ``fail_on="any_cell"``
    are not retried: they are not stale, so a retry would leave them out. With
    ``statuses=["STALE", "FAILED"]`` a retry calculates the cells that are left.

    What the recalculation has cost is in the log and in the XCom ``promptlayer_usage``, as far as
    PromptLayer says it: ``price`` in US dollars, ``input_tokens``, ``output_tokens``, ``requests``.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet. Templated.
    :param table_id: UUID of the table, in place of ``table``. Templated.
    :param sheet_id: UUID of the sheet, in place of ``sheet``. Templated.
    :param columns: titles or UUIDs of the columns; None for all that are computed. Templated.
    :param column_ids: UUIDs of the columns, in place of ``columns``. Templated.
    :param row_ids: zero-based row numbers; None for all. Templated.
    :param statuses: which cells, see :class:`.CellStatus`; None for those that are stale, ``"all"``
        (or ``[]``) for all. A new version of a prompt or workflow makes no cell stale. Templated.
    :param column_versions: title or UUID of a column → ``{"label": "staging"}`` or
        ``{"version": 5}``: before the start, the column is pointed at that version of its prompt
        or workflow, which makes its cells and those that depend on it stale. Where the column was
        at that label already, all cells of the selection are calculated, unless ``statuses`` is
        given, as the label may lead to another version by now. Templated.
    :param restore: point the columns back when the task ends, also when it fails or is ended, but
        for one whose version somebody else has changed meanwhile. After a crash a retry does it, on
        Airflow 3.3 and later. Before 3.3, a deferred task that is ended leaves them as they are.
        Pointing them back makes their cells stale again, before a gate, a report or an export
        downstream reads them.
    :param confirm_large: start a job that is so large that PromptLayer asks first.
    :param max_price: what the recalculation may cost, in US dollars; left out for any price, and
        None is refused. It is judged at the end: the cells are calculated, and nothing is retried.
        A price that PromptLayer does not say is a failure too. Templated.
    :param fail_on: ``"any_cell"`` (one failed), ``"all_cells"`` (none succeeded) or ``"never"``.
    :param wait_for_completion: False returns the ``operation_id`` as soon as there is one.
    :param cancel_on_kill: False lets the operation go on when the task is ended; not together with
        ``restore``.
    :param cancel_on_timeout: True cancels the operation when it has not ended within ``timeout``,
        as ``restore`` does in any case.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`, and ``reattach``.
    :returns: the counts of the cells.
    """

    template_fields: Sequence[str] = (
        *SHEET_FIELDS,
        "columns",
        "column_ids",
        "row_ids",
        "statuses",
        "max_price",
        "column_versions",
        "promptlayer_conn_id",
    )

    def __init__(
        self,
        *,
        columns: Sequence[str] | str | XComArg | None = None,
        column_ids: Sequence[str] | str | XComArg | None = None,
        row_ids: Sequence[int] | str | XComArg | None = None,
        statuses: Sequence[str] | str | XComArg | None = None,
        confirm_large: bool = False,
        max_price: float | str | XComArg | NotSet = NOTSET,
        **kwargs: Unpack[RunTableKwargs],
    ) -> None:
        super().__init__(**kwargs)
        if columns is not None and column_ids is not None:
            raise PromptLayerInvalidInputError("Give columns or column_ids, not both.")
        self.columns: Any = columns
        self.column_ids: Any = column_ids
        self.row_ids: Any = row_ids
        self.statuses: Any = statuses
        self.confirm_large = confirm_large
        self.max_price, self._needs_price = optional_field(max_price)
        _refuse_unless_waiting(self, "max_price", is_given=self._needs_price)
        self._usages = dict[str, Usage | None]()
        self.refuse_constants(
            columns=partial(list_of, title_or_uuid),
            column_ids=partial(list_of, uuid),
            row_ids=partial(list_of, row_number),
            statuses=lambda _, value: cell_statuses(value),
            max_price=lambda _, value: check_max_price(value),
        )

    def new_kind(self) -> JobKind[Any]:
        """Return recalculations of the sheet's cells, which may be too dear."""
        kind = super().new_kind()
        max_price = check_max_price(given_field(self.max_price, is_given=self._needs_price))
        self._usages = {}

        def problem(ending: Any) -> str:
            if max_price is None or not isinstance(ending, TableOperation):
                return ""
            return price_problem(self.usage_of(ending), max_price)

        def check(ending: Any) -> None:
            kind.raise_for_outcome(ending)
            if found := problem(ending):
                raise too_dear(ending, found)

        return replace(
            kind,
            raise_for_outcome=check,
            may_resubmit=lambda ending: kind.may_resubmit(ending) and not problem(ending),
        )

    def usage_of(self, ending: TableOperation) -> Usage | None:
        """Return what an operation has cost; None where PromptLayer does not say, or no more."""
        if ending.operation_id not in self._usages:
            self._usages[ending.operation_id] = self.hook.find_usage(
                self.found_sheet,
                ending,
                self.notes.get("execution_ids") or (),
                is_needed=self._needs_price,
                max_outage=self.max_outage,
            )
        return self._usages[ending.operation_id]

    def _note_executions(self, execution_ids: Sequence[str]) -> None:
        if len(execution_ids) <= _MAX_EXECUTIONS_NOTED:
            self.notes["execution_ids"] = list(execution_ids)
            return
        self.notes["execution_ids"] = []
        self.log.warning(
            "PromptLayer calculates the cells in %d executions, and the task keeps the ids of at "
            "most %d: it will not know what they have cost.",
            len(execution_ids),
            _MAX_EXECUTIONS_NOTED,
        )

    def new_submission(self, context: Context) -> Submission:
        """Return the start of a recalculation."""
        column_ids = self.column_ids
        if self.columns is not None:
            sheet, patience = self.found_sheet, self.max_outage
            column_ids = self.hook.find_columns(sheet, self.columns, max_outage=patience)
        selection = {"column_ids": column_ids, "row_ids": self.row_ids}
        call = self.on_sheet(recalculate_cells, **selection, statuses=self.statuses)
        is_busy = self.on_sheet(SheetCells).fetch_call().then(lambda cells: not cells.is_complete)

        def send() -> str | None:
            all_cells = self.statuses is None and self.calculates_all(context)
            if all_cells:
                self.log.info(
                    "A column was at its label already, which may lead to another version by now: "
                    "calculating all cells."
                )
            answer = self.hook.start_table_operation(
                self.on_sheet(recalculate_cells, **selection, statuses=ALL) if all_cells else call,
                confirm_large=self.confirm_large,
            )
            if not isinstance(answer, NothingToDo):
                self._note_executions(answer.execution_ids)
                return answer.operation_id
            if self.statuses is None and not all_cells:
                self.refuse_if_unknown(is_busy)
            self.log.info(
                "There is nothing to do: no cell of the selection is left to start. Reading the "
                "counts of the sheet's cells."
            )
            if not self.wait_for_completion:  # else the counts tell whether to warn
                self.warn_of_nothing_to_do()
            return None

        return Submission(
            call,
            lambda _: "look at the sheet in PromptLayer",
            also_input=mapping("column_versions", self.column_versions) or None,
            is_busy=is_busy,
            send=send,
        )


class PromptLayerRunScorecardOperator(ScorecardTask, PromptLayerCanceller[ScorecardCalculation]):
    """Recalculate the scorecard of a sheet, wait for it, and gate on the verdict and the score.

    Pushed to XCom, also where the gate fails: ``promptlayer_score``, ``promptlayer_verdict``,
    ``promptlayer_criterion_summaries``, ``promptlayer_drift_summary`` and, as soon as it is known,
    ``promptlayer_calculation_id``. A gate that fails names the failing criteria and the worst
    rows, and uses up no retries; ``soft_fail=True`` skips the task instead. A calculation that was
    cancelled, or that PromptLayer calls failed, may be retried.

    Ending the task cancels the calculation, also while the task is deferred (Airflow 3.3 and
    later), unless a newer one is under way: PromptLayer cancels all that is being calculated for
    the sheet. Clearing a deferred task is as with :class:`PromptLayerRunTableOperator`. A lost
    answer, a crash and a retry start nothing twice, see :class:`.PromptLayerRunWorkflowOperator`.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet. Templated.
    :param table_id: UUID of the table, in place of ``table``. Templated.
    :param sheet_id: UUID of the sheet, in place of ``sheet``. Templated.
    :param row_indices: zero-based row numbers; None for all. Templated.
    :param step_ids: UUIDs of the criteria; None for all. Templated.
    :param fail_on_verdict: the verdicts that fail the task; ``()`` for none. Templated.
    :param min_score: the score that is needed, on the scorecard's own scale; left out for none, and
        None is refused. Templated.
    :param max_drop: how far the score may be below an earlier one, on the same scale; left out for
        any, and None is refused. Templated.
    :param baseline: whose score that is: ``"previous"`` for the last one, or the name of a saved
        version of the sheet, of which the newest counts. Templated.
    :param wait_for_completion: False returns the ``calculation_id`` as soon as there is one.
    :param cancel_on_kill: False lets the calculation go on when the task is ended.
    :param cancel_on_timeout: True cancels the calculation when it has not ended within ``timeout``,
        unless a newer one is under way.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`, and ``reattach``.
    :returns: score, verdict, summaries, and the ``version`` of the sheet that was judged.
    """

    template_fields: Sequence[str] = (
        *SHEET_FIELDS,
        "row_indices",
        "step_ids",
        "fail_on_verdict",
        "min_score",
        "max_drop",
        "baseline",
        "promptlayer_conn_id",
    )

    def __init__(
        self,
        *,
        row_indices: Sequence[int] | str | XComArg | None = None,
        step_ids: Sequence[str] | str | XComArg | None = None,
        **kwargs: Unpack[RunScorecardKwargs],
    ) -> None:
        super().__init__(**kwargs)
        _refuse_unless_waiting(self, "max_drop", is_given=self._needs_drop)
        self.row_indices: Any = row_indices
        self.step_ids: Any = step_ids
        self.refuse_constants(
            row_indices=partial(list_of, row_number), step_ids=partial(list_of, uuid)
        )

    def new_submission(self, context: Context) -> Submission:  # noqa: ARG002
        """Return the start of a calculation."""
        call = self.on_sheet(
            recalculate_scorecard, row_indices=self.row_indices, step_ids=self.step_ids
        )
        return Submission(
            call,
            lambda _: "look at the scorecard in PromptLayer",
            is_busy=scorecard(self.found_sheet).then(
                lambda card: bool(card and card.latest and not card.latest.is_complete)
            ),
        )

    def prepare_start(self) -> None:
        """Note the score to compare with, before the new calculation takes its place.

        A try after a clear keeps the score that an earlier one has noted: else a gate that has
        failed would pass when the task is cleared, as the score has not dropped once more.
        """
        gate = self.drop_gate()
        if gate is not None and self._noted_score(gate) is None:
            found = self.hook.find_baseline(gate, self.found_sheet, max_outage=self.max_outage)
            self.notes["baseline"] = {
                "of": self._compared_with(gate),
                **(found.payload() if found else {}),
            }

    def earlier_score(self, gate: DropGate, ending: ScorecardCalculation) -> Baseline | None:
        """Return the score that was noted before the start."""
        noted = self._noted_score(gate)
        return super().earlier_score(gate, ending) if noted is None else Baseline.read(noted)

    def _noted_score(self, gate: DropGate) -> Fields | None:
        noted = self.notes.get("baseline")
        is_asked_for = noted is not None and noted["of"] == self._compared_with(gate)
        return Fields(noted) if is_asked_for else None

    def _compared_with(self, gate: DropGate) -> list[str]:
        """Return what the earlier score depends on: a task that was cleared may have others."""
        return [self.found_sheet.table_id, self.found_sheet.sheet_id, gate.baseline]


class PromptLayerRunReportOperator(ReportTask, PromptLayerSubmitter[Report]):
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

    def __init__(
        self,
        *,
        name: str | XComArg,
        dataset_id: int | str | XComArg | None = None,
        refresh_dataset: bool | None = None,
        **kwargs: Unpack[RunReportKwargs],
    ) -> None:
        super().__init__(**kwargs)
        self.name: Any = name
        self.dataset_id: Any = dataset_id
        self.refresh_dataset = refresh_dataset
        self.refuse_constants(name=title_text, dataset_id=positive)

    def new_submission(self, context: Context) -> Submission:  # noqa: ARG002
        """Return the run of the pipeline. Its name may tell the time, and asks for nothing else."""
        call = run_report(
            self.report_id,
            self.name,
            dataset_id=self.dataset_id,
            refresh_dataset=self.refresh_dataset,
        )
        return Submission(
            call,
            lambda _: "look in PromptLayer for a report of that name",
            not_input=("name",),
        )


def _refuse_unless_waiting(task: PromptLayerSubmitter[Any], gate: str, *, is_given: bool) -> None:
    """Raise if a gate is given to a task that does not wait for what the gate judges."""
    if is_given and not task.wait_for_completion:
        raise PromptLayerInvalidInputError(
            f"{gate} is judged once the job has ended: leave out wait_for_completion=False, or "
            f"{gate}."
        )
