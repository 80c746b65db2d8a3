# SPDX-License-Identifier: Apache-2.0
"""Whether an evaluation that has ended is a success. No other module decides it.

An evaluation that was cancelled, that ended with an unknown status or that lacks the verdict or the
score that the gate needs has not passed.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from airflow_provider_promptlayer.api.arguments import NOTSET, items, one_of, score
from airflow_provider_promptlayer.api.cells import SheetOperations
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerOutcomeError,
)
from airflow_provider_promptlayer.api.reasons import entries, error_of, reason, words_or_all
from airflow_provider_promptlayer.api.reports import MAX_SCORE, Report, ReportScore, ReportStatus
from airflow_provider_promptlayer.api.scorecards import (
    CalculationStatus,
    Scorecard,
    ScorecardCalculation,
    ScorecardRow,
    Verdict,
    show_score,
)
from airflow_provider_promptlayer.api.tables import TableOperation, show_count
from airflow_provider_promptlayer.api.text import MESSAGE_LIMIT, listed, one_line


class PromptLayerEvaluationFailedError(PromptLayerOutcomeError):
    """An evaluation has ended, and its outcome counts as a failure. Polling it again never helps.

    :param outcome: the ending: of an operation on a table's cells, the calculation of a scorecard,
        or a report; or the counts of a sheet's cells.
    :param score: the score, or None where there is none.
    :param rows: the worst rows of a scorecard, as far as they were fetched.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: TableOperation | SheetOperations | ScorecardCalculation | Report,
        score: float | None = None,
        rows: Sequence[ScorecardRow] = (),
    ) -> None:
        super().__init__(message, outcome=outcome)
        self.score = score
        self.rows = tuple(rows)


FailOnCells = Literal["any_cell", "all_cells", "never"]
"""Which failed cells make a failure.

``any_cell``: one is enough; so is a cell that was not calculated. ``all_cells``: no cell
succeeded. ``never``: none; what was cancelled or broke off is a failure all the same.
"""

DEFAULT_FAIL_ON_VERDICT: Final = ("fail", "error")
"""The verdicts that fail a scorecard unless others are given."""

ROWS_NAMED: Final = 5
"""How many rows a message names."""

_CRITERIA_NAMED: Final = 10
_SUMMARIES_READ: Final = 1000
_REASON_LIMIT: Final = 200

_TITLES: Final = ("title", "name", "step_title")
_VERDICTS: Final = ("verdict", "aggregate_verdict")
_SCORES: Final = ("score", "aggregate_score", "average_score")
PASSING: Final = (Verdict.PASS, Verdict.SKIPPED)
"""The verdicts of rows that are no problem."""

_SEVERITY: Final[Mapping[str | None, int]] = {Verdict.ERROR: 0, Verdict.FAIL: 1, Verdict.WARN: 2}


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a scorecard, as far as PromptLayer's summary can be read.

    The description leaves the shape of a summary open: fields of known names are read, the others
    are None. A summary that has an error and no verdict has the verdict ``error``.
    """

    title: str
    verdict: str | None = None
    score: float | None = None
    reason: str | None = None
    verdict_counts: Mapping[str, int] | None = None

    def fails(self, fail_on_verdict: Collection[str]) -> bool:
        """Whether the criterion has one of these verdicts, or, if it has none, any row has."""
        if self.verdict is not None:
            return self.verdict in fail_on_verdict
        return any((self.verdict_counts or {}).get(verdict, 0) for verdict in fail_on_verdict)


def check_fail_on_cells(fail_on: str) -> None:
    """Refuse an unknown ``fail_on``.

    :raises PromptLayerInvalidInputError: listing the known ones.
    """
    one_of("fail_on", fail_on, get_args(FailOnCells))


def check_fail_on_verdict(fail_on_verdict: Any) -> tuple[str, ...]:
    """Return the verdicts that fail the gate; a single one may come without a list.

    :raises PromptLayerInvalidInputError: for an unknown verdict, and for None: a missing XCom must
        not open the gate.
    """
    if fail_on_verdict is None:
        raise PromptLayerInvalidInputError(
            "fail_on_verdict must be a list of verdicts, not None: () is for none."
        )
    known = list(Verdict)
    if isinstance(fail_on_verdict, str) and fail_on_verdict in known:
        return (str(fail_on_verdict),)
    found = items("fail_on_verdict", fail_on_verdict) or []
    return tuple(one_of("fail_on_verdict", verdict, known) for verdict in found)


def check_min_score(min_score: Any, *, highest: float = MAX_SCORE) -> float | None:
    """Return the score that the gate needs, or None where it needs none.

    :param min_score: :data:`.NOTSET` where the user gave none.
    :param highest: ``math.inf`` for a scorecard, whose scale the description leaves open.
    :raises PromptLayerInvalidInputError: if it is not from 0 to ``highest``, and for None: a
        missing XCom must not open the gate.
    """
    if min_score is NOTSET:
        return None
    if min_score is None:
        raise PromptLayerInvalidInputError(
            "min_score must be a number, not None, which a template or an XCom without a value "
            "gives: leave min_score out where no score is needed."
        )
    return score("min_score", min_score, highest=highest)


def raise_for_operation(operation: TableOperation, fail_on: FailOnCells) -> None:
    """Raise if a recalculation that has ended counts as a failure.

    :raises PromptLayerEvaluationFailedError: with the numbers of cells.
    """
    check_fail_on_cells(fail_on)
    if operation.is_cancelled:
        problem: str | None = "it was cancelled"
    else:
        # Cells that are neither done nor pending were not calculated either.
        left = max(operation.pending_count, operation.cell_count - operation.done_count)
        problem = _problem_of_cells(
            operation.completed_count, operation.failed_count, left, fail_on
        )
        # Failed cells explain the status, which may come later than the counts: these decide.
        explained = operation.is_counted_out and (operation.failed_count or fail_on == "never")
        if problem is None and operation.has_failed and not explained:
            problem = "PromptLayer calls it failed"
    if problem is not None:
        raise PromptLayerEvaluationFailedError(
            f"Table operation {one_line(operation.operation_id, 80)} has failed: {problem} "
            f"({operation.progress}).",
            outcome=operation,
        )


def raise_for_sheet(
    sheet: SheetOperations, fail_on: FailOnCells, *, stale_count: bool = False
) -> None:
    """Raise if the counts of a sheet show a failure, where no selected cell was left to start.

    A second recalculation leaves failed cells as they are, because they are not stale: to have
    nothing to start is then not a success. The counts do not tell calculated cells from cells that
    hold text, so they never prove that a calculated cell succeeded: ``all_cells`` means the same
    as ``any_cell`` here.

    :param stale_count: whether stale cells are a failure: the operation that was calculating them
        may have been cancelled.
    :raises PromptLayerEvaluationFailedError: with the numbers of cells.
    """
    check_fail_on_cells(fail_on)
    problem, advice = None, ""
    if not sheet.is_complete:
        problem = "cells are being calculated"
    elif sheet.cancelled_count:  # only a recalculation of all cells includes such cells
        problem = f"{show_count(sheet.cancelled_count)} were cancelled"
        advice = " statuses=[] calculates all cells."
    elif sheet.failed_count and fail_on != "never":
        problem = "cells failed"
        advice = " statuses=['STALE', 'FAILED'] calculates those again that have failed."
    elif sheet.stale_count and stale_count:
        problem = f"{show_count(sheet.stale_count)} were left by what had begun to calculate them"
    elif sheet.unknown_count and fail_on != "never":
        problem = "cells were not calculated"
    if problem is not None:
        raise PromptLayerEvaluationFailedError(
            f"No cell of the selection was left to start, and on the sheet {problem} "
            f"({sheet.progress}).{advice}",
            outcome=sheet,
        )


def scorecard_problems(
    calculation: ScorecardCalculation,
    *,
    fail_on_verdict: Sequence[str] = DEFAULT_FAIL_ON_VERDICT,
    min_score: float | None = None,
    drop: str = "",
) -> tuple[str, ...]:
    """Return why a calculation does not pass the gate, a phrase each; empty if it passes.

    Without a verdict to fail on and a score to reach, any calculation that has completed passes.

    :param drop: the problem that :meth:`.DropGate.compare` has found.
    """
    if calculation.status != CalculationStatus.COMPLETED:
        status = one_line(calculation.status, 40)
        known = calculation.status in list(CalculationStatus)
        return (f"the calculation {'has the status' if known else 'ended as'} {status!r}",)
    problems = []
    verdict = calculation.verdict
    if fail_on_verdict and verdict not in list(Verdict):
        given = (
            "no verdict" if verdict is None else f"the unknown verdict {one_line(verdict, 40)!r}"
        )
        problems.append(f"PromptLayer gave {given}")
    elif verdict in fail_on_verdict:
        problems.append(f"the verdict is {verdict!r}")
    problems += _problem_of_score(calculation.score, min_score)
    return tuple(problems) + ((drop,) if drop else ())


def raise_for_scorecard(
    calculation: ScorecardCalculation,
    *,
    fail_on_verdict: Sequence[str] = DEFAULT_FAIL_ON_VERDICT,
    min_score: float | None = None,
    drop: str = "",
    scorecard: Scorecard | None = None,
    rows: Sequence[ScorecardRow] = (),
    trouble: str = "",
) -> None:
    """Raise if the calculation of a scorecard does not pass the gate.

    :param drop: see :func:`scorecard_problems`.
    :param scorecard: has the titles of the criteria.
    :param rows: the worst ones, see :func:`worst_rows`; those from :func:`.scorecard_row` also have
        reasons.
    :param trouble: why the titles or the rows could not be fetched.
    :raises PromptLayerEvaluationFailedError: naming the failing criteria and these rows.
    """
    problems = scorecard_problems(
        calculation, fail_on_verdict=fail_on_verdict, min_score=min_score, drop=drop
    )
    if not problems:
        return
    titles = scorecard.step_titles if scorecard else {}
    text = (
        f"Scorecard calculation {calculation.calculation_id} does not pass: {', '.join(problems)}."
    )
    if said := _phrase(words_or_all(calculation.error_summary)):
        text += f" PromptLayer says: {said}."
    # Failures also explain a score that is too low, whether or not the gate asks for verdicts.
    blamed = {*DEFAULT_FAIL_ON_VERDICT, *fail_on_verdict}
    failing = [one for one in criteria(calculation, titles) if one.fails(blamed)]
    if failing:
        named = listed(map(_name_criterion, failing), len(failing), _CRITERIA_NAMED)
        text += f" Failing criteria: {named}."
    if rows:
        worst = (_name_row(row, titles, blamed) for row in rows[:ROWS_NAMED])
        text += f" Worst rows: {'; '.join(worst)}."
    if trouble:
        text += f" There is more to know, but: {_phrase(trouble)}."
    raise PromptLayerEvaluationFailedError(
        text, outcome=calculation, score=calculation.score, rows=rows
    )


def raise_for_report(
    report: Report,
    score: ReportScore | None = None,
    *,
    fail_on: FailOnCells = "all_cells",
    min_score: float | None = None,
) -> None:
    """Raise if a report that has ended counts as a failure.

    :param score: needed where ``min_score`` is given; None counts as a report without score.
    :raises PromptLayerEvaluationFailedError: with the numbers of cells, and the columns' scores.
    """
    check_fail_on_cells(fail_on)
    overall = score.overall_score if score else None
    problems = []
    if report.status != ReportStatus.COMPLETED:
        problems.append(f"it ended as {one_line(report.status, 40)!r}")
    if fail_on != "never":
        left = report.pending_count + report.other_count
        cells = _problem_of_cells(report.completed_count, report.failed_count, left, fail_on)
        problems += [cells] if cells else []
    problems += _problem_of_score(overall, min_score)
    if not problems:
        return
    text = f"Report {report.report_id} does not pass: {', '.join(problems)} ({report.progress})."
    if overall is None and (said := _phrase(words_or_all(report.score_calculation_error))):
        text += f" PromptLayer says: {said}."
    columns = column_scores(score) if score else {}
    if columns:
        named = (
            f"{one_line(name, 80)!r} {'none' if one is None else show_score(one)}"
            for name, one in columns.items()
        )
        text += f" Scores of columns: {listed(named, len(columns), _CRITERIA_NAMED)}."
    raise PromptLayerEvaluationFailedError(text, outcome=report, score=overall)


def criteria(
    calculation: ScorecardCalculation, step_titles: Mapping[str, str] | None = None
) -> tuple[Criterion, ...]:
    """Return the criteria in the summaries of a calculation, at most a thousand.

    :param step_titles: id of a step → its title.
    """
    found: list[Criterion] = []
    for key, summary in entries(calculation.criterion_summaries):
        if len(found) == _SUMMARIES_READ:
            break
        found.append(_criterion(key, summary, step_titles or {}))
    return tuple(found)


def worst_rows(rows: Iterable[ScorecardRow], count: int = ROWS_NAMED) -> tuple[ScorecardRow, ...]:
    """Return the worst ``count`` of some rows: errors before failures, low scores first."""
    return tuple(heapq.nsmallest(count, rows, key=_badness))


def severity(verdict: str | None) -> int:
    """Return how bad a row of a verdict is: the lower, the worse."""
    return _SEVERITY.get(verdict, len(_SEVERITY))


def column_scores(score: ReportScore) -> dict[str, float | None]:
    """Return column name → score, as far as the details of a report's score have them."""
    details = score.details
    columns = details.get("columns") if isinstance(details, Mapping) else details
    found: dict[str, float | None] = {}
    for column in columns if isinstance(columns, list) else [details]:
        if isinstance(column, Mapping) and isinstance(name := column.get("column_name"), str):
            found[name] = _first_number(column, ("score",))
    return found


def _problem_of_cells(completed: int, failed: int, pending: int, fail_on: str) -> str | None:
    if fail_on == "any_cell" and (failed or pending):
        return "cells failed" if failed else "cells were not calculated"
    if fail_on == "all_cells" and not completed and (failed or pending):
        return "no cell succeeded"
    return None


def _problem_of_score(found: float | None, min_score: float | None) -> list[str]:
    if min_score is None:
        return []
    if found is None:
        return [f"there is no score to reach min_score={show_score(min_score)}"]
    if found < min_score:
        return [f"the score {show_score(found)} is below min_score={show_score(min_score)}"]
    return []


def _criterion(key: str, summary: Any, titles: Mapping[str, str]) -> Criterion:
    if not isinstance(summary, Mapping):
        verdict = summary if isinstance(summary, str) else None
        return Criterion(titles.get(key, key), verdict=verdict)
    counts = summary.get("verdict_counts")
    return Criterion(
        title=titles.get(key) or _first_text(summary, _TITLES) or key,
        verdict=_first_text(summary, _VERDICTS) or (Verdict.ERROR if error_of(summary) else None),
        score=_first_number(summary, _SCORES),
        reason=reason(summary),
        verdict_counts={
            verdict: number
            for verdict, number in counts.items()
            if isinstance(number, int) and not isinstance(number, bool)
        }
        if isinstance(counts, Mapping)
        else None,
    )


def _first_text(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next(
        (text for name in names if isinstance(text := values.get(name), str) and text), None
    )


def _first_number(values: Mapping[str, Any], names: Sequence[str]) -> float | None:
    for name in names:
        number = values.get(name)
        if isinstance(number, (int, float)) and not isinstance(number, bool) and number == number:
            return number
    return None


def _name_criterion(criterion: Criterion) -> str:
    return f"{one_line(criterion.title, 80)!r}{_details(criterion.verdict, criterion.score)}" + (
        f": {_phrase(criterion.reason, _REASON_LIMIT)}" if criterion.reason else ""
    )


def _name_row(row: ScorecardRow, titles: Mapping[str, str], blamed: Collection[str]) -> str:
    said = _phrase(words_or_all(row.error_summary), _REASON_LIMIT)
    reasons = [said] if said else []
    for key, result in entries(row.step_results):
        if len(reasons) == 3:
            break
        step = _criterion(key, result, titles)
        if step.fails(blamed) and step.reason:
            reasons.append(f"{one_line(step.title, 80)!r}: {_phrase(step.reason, _REASON_LIMIT)}")
    return f"row {show_count(row.row_index)}{_details(row.verdict, row.score)}" + (
        f": {', '.join(reasons)}" if reasons else ""
    )


def _phrase(text: str | None, limit: int = MESSAGE_LIMIT) -> str:
    """Return foreign text without its full stop, for the middle of a sentence."""
    return one_line(text or "", limit).rstrip(".")


def _details(verdict: str | None, found: float | None) -> str:
    parts = [] if verdict is None else [one_line(verdict, 40)]
    parts += [] if found is None else [show_score(found)]
    return f" ({', '.join(parts)})" if parts else ""


def _badness(row: ScorecardRow) -> tuple[int, float, int]:
    # A row without a score could not be scored, which is worse than any score.
    return severity(row.verdict), float("-inf") if row.score is None else row.score, row.row_index
