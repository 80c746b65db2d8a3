# SPDX-License-Identifier: Apache-2.0
"""The judgements that need more than the ending: a report's score, and what a person wants to know.

A scorecard that does not pass is explained by its criteria and its worst rows. All of that is for
the message alone: trouble in fetching it does not change the judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from airflow_provider_promptlayer.api.errors import PromptLayerError
from airflow_provider_promptlayer.api.flow import CallFlow
from airflow_provider_promptlayer.api.reports import Report, ReportScore, ReportStatus, report_score
from airflow_provider_promptlayer.api.scorecards import (
    CalculationStatus,
    ScorecardCalculation,
    ScorecardRow,
    SheetCalculation,
    scorecard,
    scorecard_row,
    scorecard_rows,
)
from airflow_provider_promptlayer.outcomes.evaluations import (
    ROWS_NAMED,
    raise_for_scorecard,
    scorecard_problems,
    severity,
    worst_rows,
)

MAX_PAGES: Final = 20
"""How many pages of rows of one verdict are looked at for the worst, of up to a hundred each."""


def score_of(ending: Report) -> CallFlow[ReportScore]:
    """Return the score of a report; one that has not completed is not asked about."""
    if ending.status != ReportStatus.COMPLETED:
        return ReportScore(None, "none", has_custom_scoring=False)
    score: ReportScore = yield report_score(ending.report_id)
    return score


def explained_outcome(
    calculation: SheetCalculation,
    ending: ScorecardCalculation,
    *,
    fail_on_verdict: Sequence[str],
    min_score: float | None,
) -> CallFlow[None]:
    """Accept the ending of a calculation, or raise what says why not.

    :raises PromptLayerEvaluationFailedError: naming the failing criteria and the worst rows.
    """
    if not scorecard_problems(ending, fail_on_verdict=fail_on_verdict, min_score=min_score):
        return
    card, rows, trouble = None, _Rows(calculation), ""
    try:
        card = yield scorecard(calculation.table_id, calculation.sheet_id)
        if ending.status != CalculationStatus.CANCELLED:
            # The verdict is that of such rows; a low score may be that of any.
            failed_by_verdict = ending.verdict in fail_on_verdict
            yield from rows.find(fail_on_verdict if failed_by_verdict else ())
    except PromptLayerError as error:
        trouble = str(error)
    raise_for_scorecard(
        ending,
        fail_on_verdict=fail_on_verdict,
        min_score=min_score,
        scorecard=card,
        rows=rows.worst,
        trouble=trouble,
    )


class _Rows:
    """The worst rows, as far as they were found until trouble came."""

    def __init__(self, calculation: SheetCalculation) -> None:
        self._calculation = calculation
        self.worst: tuple[ScorecardRow, ...] = ()

    def find(self, verdicts: Sequence[str]) -> CallFlow[None]:
        """Find the worst rows of these verdicts, or of all where there are none; and why."""
        for verdict in sorted(verdicts, key=severity):
            yield from self._look_through(verdict)
            if len(self.worst) == ROWS_NAMED:
                break  # the rows of the other verdicts are not as bad
        if not self.worst:
            yield from self._look_through(None)
        for number, row in enumerate(self.worst):
            detailed = yield scorecard_row(
                self._calculation.table_id,
                self._calculation.sheet_id,
                row.row_index,
                calculation_id=self._calculation.calculation_id,
            )
            self.worst = (*self.worst[:number], detailed, *self.worst[number + 1 :])

    def _look_through(self, verdict: str | None) -> CallFlow[None]:
        cursor = None
        for _ in range(MAX_PAGES):
            page = yield scorecard_rows(
                self._calculation.table_id,
                self._calculation.sheet_id,
                calculation_id=self._calculation.calculation_id,
                verdict=verdict,
                cursor=cursor,
            )
            self.worst = worst_rows([*self.worst, *page.rows])
            cursor = page.next_cursor
            if cursor is None:
                return
