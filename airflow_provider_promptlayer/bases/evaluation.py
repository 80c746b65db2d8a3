# SPDX-License-Identifier: Apache-2.0
"""Evaluations as kinds of job: for each, what its sensor and its operator share.

Sensor and operator say what the arguments mean, :mod:`.outcomes.evaluations` what an outcome means.
A gate that fails is a result, not an error, so the task is not retried: trying until it passes is
not what a gate is for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer.api.arguments import NOTSET, NotSet, positive, score
from airflow_provider_promptlayer.api.cells import SheetCells, SheetOperations
from airflow_provider_promptlayer.api.reports import MAX_SCORE, FinalReport, Report, ReportScore
from airflow_provider_promptlayer.api.scorecards import (
    CalculationStatus,
    ScorecardCalculation,
    SheetCalculation,
    show_score,
)
from airflow_provider_promptlayer.api.tables import (
    CellStatus,
    SheetOperation,
    TableOperation,
    cell_statuses,
)
from airflow_provider_promptlayer.api.usage import Usage
from airflow_provider_promptlayer.bases.kind import JobKind, Outputs, ResultOnly
from airflow_provider_promptlayer.bases.lineage import Lineage, scorecard_assertions
from airflow_provider_promptlayer.bases.sheet import SheetArguments
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.outcomes.baseline import PREVIOUS, Baseline, DropGate
from airflow_provider_promptlayer.outcomes.evaluations import (
    DEFAULT_FAIL_ON_VERDICT,
    FailOnCells,
    check_fail_on_cells,
    check_fail_on_verdict,
    check_min_score,
    raise_for_operation,
    raise_for_report,
    raise_for_sheet,
)
from airflow_provider_promptlayer.xcom import outputs as xcom
from airflow_provider_promptlayer.xcom.storable import storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

_NO_CELLS: Final = {
    "operation_id": None,
    "status": "nothing to do",
    "cell_count": 0,
    "completed_count": 0,
    "failed_count": 0,
}
"""The result of a task that had no cell to calculate."""

_NOTHING_STALE: Final = (
    "No cell was calculated, as no cell of the selection is stale: the sheet has the outputs of an "
    "earlier calculation. A cell becomes stale when a source value, its column's configuration or "
    "a column that it uses changes. A new version of a prompt or a workflow, or a label that "
    "moves, makes no cell stale. To calculate every cell again, set statuses='all'."
)


_CALCULATE_FAILED: Final = (
    "If you clear this task, it calculates failed cells again only with statuses=['STALE', "
    "'FAILED'] or 'all'."
)


class TableTask(SheetArguments, PromptLayerWaiter[Any]):
    """Base of the tasks that wait for a recalculation of a sheet's cells."""

    statuses: Any = None
    """Which cells an operator calculates, see :func:`.recalculate_cells`."""

    def __init__(
        self,
        *,
        fail_on: FailOnCells = "any_cell",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fail_on_cells(fail_on)
        self.fail_on: FailOnCells = fail_on

    def new_kind(self) -> JobKind[Any]:
        """Return recalculations of the sheet's cells.

        If no cell of the selection is left to start, the task waits for any operation that
        calculates cells of the sheet, and the counts of the sheet decide.
        """
        selected = cell_statuses(self.statuses)

        def selects(status: CellStatus) -> bool:
            if selected is None:
                return status is CellStatus.STALE
            return not selected or status in selected

        def check(ending: TableOperation | SheetOperations) -> None:
            if isinstance(ending, TableOperation):
                raise_for_operation(ending, self.fail_on)
            else:
                # A sheet that was idle from the start has stale cells only outside the selection.
                counts_stale = self.has_waited and selects(CellStatus.STALE)
                raise_for_sheet(ending, self.fail_on, stale_count=counts_stale)
                if not self.has_waited:
                    self.warn_of_nothing_to_do()

        def counts(ending: TableOperation | SheetOperations) -> dict[str, Any]:
            if isinstance(ending, TableOperation):
                return {name: getattr(ending, name) for name in _NO_CELLS}
            if not self.has_waited:
                return dict(_NO_CELLS)
            return {
                **_NO_CELLS,
                "cell_count": ending.total_cells,
                "completed_count": ending.completed_count,
                "failed_count": ending.failed_count,
            }

        def may_resubmit(ending: Any) -> bool:
            """Return whether another operation would calculate the remaining cells alone.

            True if the operation was cancelled. If ``statuses`` is without completed cells, also
            true after an operation that broke off, for failed cells that ``statuses`` has, and for
            stale cells that another operation has left. False if the retry would ignore failed
            cells that ``fail_on`` counts.
            """
            takes_failed, takes_done = selects(CellStatus.FAILED), selects(CellStatus.COMPLETED)
            if isinstance(ending, SheetOperations):
                if takes_done:
                    return False
                if ending.failed_count:
                    return takes_failed
                return ending.stale_count > 0 and selects(CellStatus.STALE)
            if not isinstance(ending, TableOperation):
                return False
            if ending.failed_count and self.fail_on == "any_cell" and not takes_failed:
                return False
            return ending.is_cancelled or ((takes_failed or ending.broke_off) and not takes_done)

        def outputs(ending: TableOperation | SheetOperations) -> Outputs:
            usage = self.usage_of(ending) if isinstance(ending, TableOperation) else None
            pushed = {} if usage is None else {xcom.USAGE_KEY: storable(usage.payload()).value}
            return _outputs(counts(ending), pushed=pushed)

        def summary(ending: TableOperation | SheetOperations) -> str:
            usage = self.usage_of(ending) if isinstance(ending, TableOperation) else None
            return ending.progress if usage is None else f"{ending.progress}, cost {usage}"

        return JobKind(
            job_types=(SheetOperation, SheetCells),
            id_key=xcom.OPERATION_ID_KEY,
            trigger="PromptLayerTableOperationTrigger",
            job_from_id=partial(self.on_sheet, SheetOperation),
            raise_for_outcome=check,
            outputs=outputs,
            advice=_CALCULATE_FAILED,
            summary=summary,
            lineage=lambda _ending, _passed: Lineage(outputs=[self.dataset()]),
            may_resubmit=may_resubmit,
            unsubmitted_job=partial(self.on_sheet, SheetCells),
            unsubmitted_result=dict(_NO_CELLS),
        )

    def usage_of(self, ending: TableOperation) -> Usage | None:  # noqa: ARG002
        """Return what an operation has cost; None where that is not known."""
        return None

    def warn_of_nothing_to_do(self) -> None:
        """Say why no cell was to be calculated, if stale ones alone were selected."""
        selected = cell_statuses(self.statuses)
        statuses = {CellStatus.STALE} if selected is None else set(selected)
        if CellStatus.STALE in statuses and CellStatus.COMPLETED not in statuses:
            self.log.warning("%s", _NOTHING_STALE)


class ScorecardTask(SheetArguments, PromptLayerWaiter[ScorecardCalculation]):
    """Base of the tasks that wait for a scorecard, and gate on it."""

    describes_outlets = True

    def __init__(
        self,
        *,
        fail_on_verdict: Sequence[str] | str | XComArg = DEFAULT_FAIL_ON_VERDICT,
        min_score: float | str | XComArg | NotSet = NOTSET,
        max_drop: float | str | XComArg | NotSet = NOTSET,
        baseline: str | XComArg = PREVIOUS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fail_on_verdict: Any = fail_on_verdict
        self.min_score, self._needs_score = optional_field(min_score)
        self.max_drop, self._needs_drop = optional_field(max_drop)
        self.baseline: Any = baseline
        self.refuse_constants(
            fail_on_verdict=lambda _, value: check_fail_on_verdict(value),
            min_score=lambda _, value: check_min_score(value, highest=math.inf),
            max_drop=score,
        )
        if max_drop is NOTSET and self.are_constant("baseline"):
            DropGate.of(max_drop, baseline)

    def new_kind(self) -> JobKind[ScorecardCalculation]:
        """Return calculations of the sheet's scorecard, with the gate."""
        fail_on_verdict = check_fail_on_verdict(self.fail_on_verdict)
        min_score = _needed_score(self.min_score, self._needs_score, highest=math.inf)
        drop_gate = self.drop_gate()
        job = partial(self.on_sheet, SheetCalculation)
        drops = dict[str, str]()  # by calculation: that of an earlier try has another score

        def drop(ending: ScorecardCalculation) -> str:
            if drop_gate is None or not ending.is_completed:
                return ""
            if ending.calculation_id not in drops:
                earlier = self.earlier_score(drop_gate, ending)
                drops[ending.calculation_id] = self.hook.compare_scores(drop_gate, ending, earlier)
            return drops[ending.calculation_id]

        def check(ending: ScorecardCalculation) -> None:
            self.hook.raise_for_scorecard(
                job(ending.calculation_id),
                ending,
                fail_on_verdict=fail_on_verdict,
                min_score=min_score,
                drop=drop(ending),
            )

        def outputs(ending: ScorecardCalculation) -> Outputs:
            values = {
                "calculation_id": ending.calculation_id,
                "status": ending.status,
                "score": ending.score,
                "verdict": ending.verdict,
                "version": ending.sheet_revision,
                "criterion_summaries": ending.criterion_summaries,
                "drift_summary": ending.drift_summary,
            }
            return _outputs(
                values,
                {
                    xcom.SCORE_KEY: "score",
                    xcom.VERDICT_KEY: "verdict",
                    xcom.CRITERION_SUMMARIES_KEY: "criterion_summaries",
                    xcom.DRIFT_SUMMARY_KEY: "drift_summary",
                },
            )

        def lineage(ending: ScorecardCalculation, passed: bool) -> Lineage:
            asked = [f"no verdict {' or '.join(fail_on_verdict)}"] if fail_on_verdict else []
            asked += [] if min_score is None else [f"a score of {show_score(min_score)}"]
            asked += [] if drop_gate is None else [f"at most {show_score(drop_gate.max_drop)} less"]
            found = scorecard_assertions(
                ending, passed=passed, expected=", ".join(asked), fail_on_verdict=fail_on_verdict
            )
            return Lineage(inputs=[self.dataset(assertions=found)])

        return JobKind(
            job_types=(SheetCalculation,),
            id_key=xcom.CALCULATION_ID_KEY,
            trigger="PromptLayerScorecardTrigger",
            job_from_id=job,
            raise_for_outcome=check,
            outputs=outputs,
            lineage=lineage,
            # A verdict is a result, and a calculation with an unknown status may still go on.
            may_resubmit=lambda ending: (
                isinstance(ending, ScorecardCalculation)
                and ending.status in (CalculationStatus.FAILED, CalculationStatus.CANCELLED)
            ),
        )

    def drop_gate(self) -> DropGate | None:
        """Return how far the score may drop, or None where it may by any amount."""
        return DropGate.of(given_field(self.max_drop, is_given=self._needs_drop), self.baseline)

    def earlier_score(self, gate: DropGate, ending: ScorecardCalculation) -> Baseline | None:
        """Return the score to compare with, or None where there is none yet."""
        return self.hook.find_baseline(gate, self.found_sheet, ending, max_outage=self.max_outage)


class ReportTask(PromptLayerWaiter[Report]):
    """Base of the tasks that wait for a report of a legacy evaluation pipeline, and gate on it."""

    describes_outlets = True

    def __init__(
        self,
        *,
        report_id: int | str | XComArg,
        fail_on: FailOnCells = "all_cells",
        min_score: float | str | XComArg | NotSet = NOTSET,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fail_on_cells(fail_on)
        self.report_id: Any = report_id
        self.fail_on: FailOnCells = fail_on
        self.min_score, self._needs_score = optional_field(min_score)
        self.refuse_constants(report_id=positive, min_score=lambda _, value: check_min_score(value))

    def new_kind(self) -> JobKind[Report]:
        """Return reports, with the gate."""
        min_score = _needed_score(self.min_score, self._needs_score, highest=MAX_SCORE)
        scores = dict[int, ReportScore]()  # by report: that of an earlier try has another score

        def score(ending: Report) -> ReportScore:
            if ending.report_id not in scores:
                found = self.hook.score_of_report(ending, max_outage=self.max_outage)
                scores[ending.report_id] = found
            return scores[ending.report_id]

        def check(ending: Report) -> None:
            raise_for_report(ending, score(ending), fail_on=self.fail_on, min_score=min_score)

        def outputs(ending: Report) -> Outputs:
            values = {
                "report_id": ending.report_id,
                "status": ending.status,
                "score": score(ending).overall_score,
                "score_type": score(ending).score_type,
                "details": score(ending).details,
                "completed_count": ending.completed_count,
                "failed_count": ending.failed_count,
            }
            return _outputs(values, {xcom.SCORE_KEY: "score"})

        def summary(ending: Report) -> str:
            its = score(ending).overall_score
            return ending.progress + ("" if its is None else f", score {show_score(its)}")

        return JobKind(
            job_types=(FinalReport,),
            id_key=xcom.REPORT_ID_KEY,
            trigger="PromptLayerReportTrigger",
            job_from_id=FinalReport,
            raise_for_outcome=check,
            outputs=outputs,
            summary=summary,
        )


def _outputs(
    values: dict[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    pushed: Mapping[str, Any] | None = None,
) -> Outputs:
    """Return the outputs of an evaluation, in a form that Airflow can store.

    :param values: the task's result.
    :param metadata: XCom key → the name of the value in the result.
    :param pushed: XCom key → a value that the result does not have.
    """
    stored = storable(values)
    changes = ", ".join(stored.changes)
    line = f"The result was changed so that Airflow can store it: {changes}."
    return ResultOnly(
        stored.value,
        {key: stored.value[name] for key, name in (metadata or {}).items()} | dict(pushed or {}),
        [line] if changes else [],
    )


def optional_field(argument: Any) -> tuple[Any, bool]:
    """Return an argument that refuses None as a template field, and whether it was given.

    The field is None where the argument was left out, because Airflow shows and stores template
    fields as JSON. The flag tells this None from that of a template or of an XCom without a value.
    """
    return (None, False) if argument is NOTSET else (argument, True)


def given_field(field: Any, *, is_given: bool) -> Any:
    """Return what :func:`optional_field` was handed, rendered: ``NOTSET`` if it was left out."""
    return NOTSET if field is None and not is_given else field


def _needed_score(min_score: Any, needs_score: bool, *, highest: float) -> float | None:
    return check_min_score(given_field(min_score, is_given=needs_score), highest=highest)
