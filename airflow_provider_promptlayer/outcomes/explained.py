# SPDX-License-Identifier: Apache-2.0
"""Outcomes that need further requests: a report's score, and why a scorecard does not pass.

A scorecard that does not pass is explained by its criteria and its worst rows. Only the error
message needs them: where they cannot be fetched, the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from airflow_provider_promptlayer.api.errors import PromptLayerError
from airflow_provider_promptlayer.api.job import CallFlow, EachOf
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
    PASSING,
    ROWS_NAMED,
    raise_for_scorecard,
    scorecard_problems,
    severity,
    worst_rows,
)

MAX_PAGES: Final = 20
"""How many pages of up to a hundred rows are searched for the worst rows of one verdict."""


def score_of(ending: Report) -> CallFlow[ReportScore]:
    """Return the score of a report; a report that has not completed has none."""
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
    drop: str = "",
) -> CallFlow[None]:
    """Raise if a calculation that has ended does not pass the gate, and explain why.

    :param drop: see :func:`.scorecard_problems`.
    :raises PromptLayerEvaluationFailedError: naming the failing criteria and the worst rows.
    """
    if not scorecard_problems(
        ending, fail_on_verdict=fail_on_verdict, min_score=min_score, drop=drop
    ):
        return
    card, worst, trouble = None, list[ScorecardRow](), ""
    try:
        card = yield scorecard(calculation)
        if ending.status != CalculationStatus.CANCELLED:
            # Where the verdict fails, the rows with such verdicts explain it; a low score may come
            # from any row, also where all rows pass.
            failed_by_verdict = ending.verdict in fail_on_verdict
            yield from find_worst_rows(
                worst, calculation, fail_on_verdict if failed_by_verdict else ()
            )
    except PromptLayerError as error:
        trouble = str(error)
    raise_for_scorecard(
        ending,
        fail_on_verdict=fail_on_verdict,
        min_score=min_score,
        drop=drop,
        scorecard=card,
        rows=worst,
        trouble=trouble,
    )


def find_worst_rows(
    worst: list[ScorecardRow],
    calculation: SheetCalculation,
    verdicts: Sequence[str],
    count: int = ROWS_NAMED,
) -> CallFlow[None]:
    """Fill ``worst`` with the worst rows of these verdicts, or of all, and with their reasons.

    After an error ``worst`` holds the rows that were found before it, and the reasons that were.

    :param count: how many rows.
    """
    for verdict in sorted(verdicts, key=severity):
        yield from _search_rows(worst, calculation, verdict, count)
        if len(worst) == count:
            break  # the rows of the other verdicts are not as bad
    if not worst:
        yield from _search_rows(worst, calculation, None, count)
        # Rows that pass explain a low score only where there are no others.
        worst[:] = [row for row in worst if row.verdict not in PASSING] or worst
    explained = yield EachOf(
        [
            scorecard_row(calculation, row.row_index, calculation_id=calculation.calculation_id)
            for row in worst
        ]
    )
    errors = [row for row in explained if isinstance(row, PromptLayerError)]
    worst[:] = [
        row if isinstance(found, PromptLayerError) else found
        for row, found in zip(worst, explained, strict=True)
    ]
    if errors:
        raise errors[0]


def _search_rows(
    worst: list[ScorecardRow], calculation: SheetCalculation, verdict: str | None, count: int
) -> CallFlow[None]:
    cursor = None
    for _ in range(MAX_PAGES):
        page = yield scorecard_rows(
            calculation,
            calculation_id=calculation.calculation_id,
            verdict=verdict,
            cursor=cursor,
        )
        worst[:] = worst_rows([*worst, *page.rows], count)
        cursor = page.next_cursor
        if cursor is None:
            return
