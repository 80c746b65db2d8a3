# SPDX-License-Identifier: Apache-2.0
"""Waiting for evaluations: the bases of the sensors and operators for them.

:mod:`.outcomes.evaluations` says what an ending means. A gate that fails is an answer and no
accident, so it never uses up the task's retries: trying until it passes is not what a gate is for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_promptlayer.api.arguments import NOTSET, NotSet, opaque_text, positive, uuid
from airflow_provider_promptlayer.api.job import L
from airflow_provider_promptlayer.api.reports import MAX_SCORE, FinalReport, Report, ReportScore
from airflow_provider_promptlayer.api.scorecards import ScorecardCalculation, SheetCalculation
from airflow_provider_promptlayer.api.tables import SheetOperation, TableOperation
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.outcomes.evaluations import (
    DEFAULT_FAIL_ON_VERDICT,
    FailOnCells,
    check_fail_on_cells,
    check_fail_on_verdict,
    check_min_score,
    raise_for_operation,
    raise_for_report,
)
from airflow_provider_promptlayer.xcom import outputs as xcom
from airflow_provider_promptlayer.xcom.storable import storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.triggers.base import BaseTrigger


class PromptLayerEvaluationWaiter(PromptLayerWaiter[L]):
    """Base of everything that waits for an evaluation."""

    def _storable(self, value: Any) -> Any:
        """Return what Airflow can store of a value, and say what had to change."""
        stored = storable(value)
        if stored.changes:
            self.log.warning(
                "What %s left was changed so that Airflow can store it: %s.",
                "it" if self._job is None else self._job.name,
                ", ".join(stored.changes),
            )
        return stored.value


class PromptLayerScoreWaiter(PromptLayerEvaluationWaiter[L]):
    """Base of everything that waits for an evaluation with a score.

    :param min_score: the score that is needed; left out for none. None, which a template or an XCom
        without a value gives, is refused when the task runs.
    :param kwargs: how to wait, see :class:`.PromptLayerWaiter`.
    """

    highest_score: ClassVar[float]

    def __init__(
        self, *, min_score: float | str | XComArg | NotSet = NOTSET, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        # None in the template field, which Airflow shows and stores as JSON, where left out.
        self.min_score: Any = None if min_score is NOTSET else min_score
        self._needs_score = min_score is not NOTSET

    def _needed_score(self) -> float | None:
        left_out = self.min_score is None and not self._needs_score
        return check_min_score(NOTSET if left_out else self.min_score, highest=self.highest_score)


class PromptLayerTableWaiter(PromptLayerEvaluationWaiter[TableOperation]):
    """Base of everything that waits for a recalculation of a sheet's cells.

    :param table_id: the table, a UUID.
    :param sheet_id: the sheet, a UUID.
    :param fail_on: which failed cells make a failure, see :data:`.FailOnCells`.
    :param kwargs: how to wait, see :class:`.PromptLayerWaiter`.
    """

    job_type = SheetOperation

    def __init__(
        self,
        *,
        table_id: str | XComArg,
        sheet_id: str | XComArg,
        fail_on: FailOnCells = "any_cell",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fail_on_cells(fail_on)
        self.table_id: Any = table_id
        self.sheet_id: Any = sheet_id
        self.fail_on: FailOnCells = fail_on

    def job_from_id(self, external_id: Any) -> SheetOperation:
        """Return the operation that has the id.

        :raises PromptLayerInvalidInputError: if one of the ids is none.
        """
        return SheetOperation(
            uuid("table_id", self.table_id),
            uuid("sheet_id", self.sheet_id),
            opaque_text("operation_id", external_id),
        )

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that waits for an operation."""
        from airflow_provider_promptlayer.triggers.promptlayer import (
            PromptLayerTableOperationTrigger,
        )

        return PromptLayerTableOperationTrigger(**how)

    def raise_for_outcome(self, ending: TableOperation) -> None:
        """Apply ``fail_on``.

        :raises PromptLayerEvaluationFailedError: with the numbers of cells.
        """
        raise_for_operation(ending, self.fail_on)

    def push_result(self, context: Context, ending: TableOperation) -> dict[str, Any]:  # noqa: ARG002
        """Return the counts of the cells."""
        counts = {
            "operation_id": ending.operation_id,
            "status": ending.status,
            "cell_count": ending.cell_count,
            "completed_count": ending.completed_count,
            "failed_count": ending.failed_count,
        }
        stored: dict[str, Any] = self._storable(counts)
        return stored


class PromptLayerScorecardWaiter(PromptLayerScoreWaiter[ScorecardCalculation]):
    """Base of everything that waits for a scorecard, and of its gate.

    :param table_id: the table, a UUID.
    :param sheet_id: the sheet, a UUID.
    :param fail_on_verdict: the verdicts that fail the task; ``()`` for none.
    :param min_score: the score that is needed, on the scorecard's own scale; left out for none.
    :param kwargs: how to wait, see :class:`.PromptLayerWaiter`.
    """

    job_type = SheetCalculation
    highest_score = math.inf

    def __init__(
        self,
        *,
        table_id: str | XComArg,
        sheet_id: str | XComArg,
        fail_on_verdict: Sequence[str] | str | XComArg = DEFAULT_FAIL_ON_VERDICT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table_id: Any = table_id
        self.sheet_id: Any = sheet_id
        self.fail_on_verdict: Any = fail_on_verdict

    def job_from_id(self, external_id: Any) -> SheetCalculation:
        """Return the calculation that has the id.

        :raises PromptLayerInvalidInputError: if one of the ids is no UUID.
        """
        self._gate()  # refuses what is no gate before anything is started or waited for
        return SheetCalculation(
            uuid("table_id", self.table_id),
            uuid("sheet_id", self.sheet_id),
            uuid("calculation_id", external_id),
        )

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that waits for a calculation."""
        from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerScorecardTrigger

        return PromptLayerScorecardTrigger(**how)

    def push_metadata(self, context: Context, ending: ScorecardCalculation) -> None:
        """Push what there is before it is judged: an alert task wants that of a failure."""
        for key, value in (
            (xcom.SCORE_KEY, ending.score),
            (xcom.VERDICT_KEY, ending.verdict),
            (xcom.CRITERION_SUMMARIES_KEY, ending.criterion_summaries),
            (xcom.DRIFT_SUMMARY_KEY, ending.drift_summary),
        ):
            self._push(context, key, self._storable(value))

    def raise_for_outcome(self, ending: ScorecardCalculation) -> None:
        """Apply the gate.

        :raises PromptLayerEvaluationFailedError: naming the failing criteria and the worst rows.
        """
        self.hook.raise_for_scorecard(
            self.job_from_id(ending.calculation_id), ending, **self._gate()
        )

    def push_result(
        self,
        context: Context,  # noqa: ARG002
        ending: ScorecardCalculation,
    ) -> dict[str, Any]:
        """Return the score, the verdict and the summaries."""
        found = {
            "calculation_id": ending.calculation_id,
            "status": ending.status,
            "score": ending.score,
            "verdict": ending.verdict,
            "criterion_summaries": ending.criterion_summaries,
            "drift_summary": ending.drift_summary,
        }
        stored: dict[str, Any] = self._storable(found)
        return stored

    def _gate(self) -> dict[str, Any]:
        return {
            "fail_on_verdict": check_fail_on_verdict(self.fail_on_verdict),
            "min_score": self._needed_score(),
        }


class PromptLayerReportWaiter(PromptLayerScoreWaiter[Report]):
    """Base of everything that waits for a report.

    :param min_score: the score that is needed, from 0 to 100; left out for none.
    :param fail_on: which failed cells make a failure, see :data:`.FailOnCells`.
    :param kwargs: how to wait, see :class:`.PromptLayerWaiter`.
    """

    job_type = FinalReport
    highest_score = MAX_SCORE

    def __init__(self, *, fail_on: FailOnCells = "all_cells", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fail_on_cells(fail_on)
        self.fail_on: FailOnCells = fail_on
        self._scored: tuple[int, ReportScore] | None = None

    def job_from_id(self, external_id: Any) -> FinalReport:
        """Return the report that has the id.

        :raises PromptLayerInvalidInputError: if it is not a positive integer, or ``min_score`` is
            no score.
        """
        self._needed_score()  # refuses what is none before anything is started or waited for
        return FinalReport(positive("report_id", external_id))

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that waits for a report."""
        from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerReportTrigger

        return PromptLayerReportTrigger(**how)

    def push_metadata(self, context: Context, ending: Report) -> None:
        """Push the score before it is judged: an alert task wants that of a failure."""
        self._push(context, xcom.SCORE_KEY, self._storable(self._score(ending).overall_score))

    def raise_for_outcome(self, ending: Report) -> None:
        """Apply ``fail_on`` and ``min_score``.

        :raises PromptLayerEvaluationFailedError: with the numbers of cells and the scores.
        """
        raise_for_report(
            ending,
            self._score(ending),
            fail_on=self.fail_on,
            min_score=self._needed_score(),
        )

    def push_result(self, context: Context, ending: Report) -> dict[str, Any]:  # noqa: ARG002
        """Return the score, and the counts of the cells."""
        score = self._score(ending)
        found = {
            "report_id": ending.report_id,
            "status": ending.status,
            "score": score.overall_score,
            "score_type": score.score_type,
            "details": score.details,
            "completed_count": ending.completed_count,
            "failed_count": ending.failed_count,
        }
        stored: dict[str, Any] = self._storable(found)
        return stored

    def _score(self, ending: Report) -> ReportScore:
        """Return the score, asked for once; an earlier try's report has another."""
        if self._scored is None or self._scored[0] != ending.report_id:
            score = self.hook.score_of_report(ending, max_outage=self.max_outage)
            self._scored = (ending.report_id, score)
        return self._scored[1]
