# SPDX-License-Identifier: Apache-2.0
"""What is there to say about an evaluation? Its score among earlier ones, its criteria, its rows.

Facts are those of PromptLayer's published API description, which leaves most shapes open: it has no
list of calculations, does not say what a point of the score history holds, nor what a summary of a
criterion does. What cannot be read is left out, and said to be missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from airflow_provider_promptlayer.api.arguments import NOTSET, NotSet
from airflow_provider_promptlayer.api.errors import PromptLayerError
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.pages import visit_pages
from airflow_provider_promptlayer.api.persisted import read_persisted, versioned
from airflow_provider_promptlayer.api.reasons import entries, reason, words_or_all
from airflow_provider_promptlayer.api.rows import RowsPage, rows_page, value_of
from airflow_provider_promptlayer.api.scorecards import (
    Scorecard,
    ScorecardCalculation,
    ScorecardRow,
    SheetCalculation,
    Verdict,
    scorecard,
    scorecard_rows,
)
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import is_after, timestamp
from airflow_provider_promptlayer.api.versions import list_versions, score_history
from airflow_provider_promptlayer.outcomes.evaluations import PASSING, Criterion, criteria
from airflow_provider_promptlayer.outcomes.explained import find_worst_rows

MAX_SCORES: Final = 30
"""How many scores a history keeps, the last one included."""

ROWS_SHOWN: Final = 10
"""How many of the worst rows are found."""

CRITERIA_KEPT: Final = 50
"""Of how many criteria the pass rate is kept for the next evaluation."""

_ROWS_READ: Final = 2_000
"""How many rows of the sheet are read, from each end, to find what is in the worst ones."""

_CELLS_SHOWN: Final = 4
_TITLE_LIMIT: Final = 120
_TEXT_LIMIT: Final = 300
_LARGEST: Final = 1e15
"""From where on a number is no score that could be drawn or compared."""

_PROBLEMS: Final = (Verdict.ERROR, Verdict.FAIL, Verdict.WARN)


@dataclass(frozen=True, slots=True)
class PastScore:
    """A score that a sheet has had.

    :param at: when, in ISO 8601 as PromptLayer wrote it, or None.
    :param config_hash: see :class:`.ScorecardCalculation`.
    :param pass_rates: title of a criterion → share of its rows that passed, from 0 to 1.
    """

    score: float
    at: str | None = None
    verdict: str | None = None
    config_hash: str | None = None
    calculation_id: str | None = None
    pass_rates: Mapping[str, float] = field(default_factory=dict)

    def is_comparable(self, other: PastScore) -> bool:
        """Whether both are of the same configuration, as far as PromptLayer says."""
        ours, theirs = self.config_hash, other.config_hash
        return not (ours and theirs and ours != theirs)


@dataclass(frozen=True, slots=True)
class CriterionSummary:
    """A criterion, and how it has changed.

    :param pass_rate: share of the rows that passed, of those that were judged; None if unknown.
    :param change: of the pass rate since the evaluation before; None if unknown.
    """

    criterion: Criterion
    pass_rate: float | None = None
    change: float | None = None


@dataclass(frozen=True, slots=True)
class WorstRow:
    """A row that did not pass, with what explains its verdict.

    :param reasons: title of a criterion (empty for the row as a whole), and a reason.
    :param cells: title of a column, and the beginning of what the cell holds.
    """

    row: ScorecardRow
    reasons: Sequence[tuple[str, str]]
    cells: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """What there is to say about an evaluation of a sheet.

    :param card: None for a sheet without a scorecard.
    :param calculation: None where there is none.
    :param history: scores, the oldest first, that of ``calculation`` last if it has one.
    :param source: who knows the earlier scores: ``"PromptLayer"``, ``"Airflow"``, or empty.
    :param verdict_counts: verdict → number of rows; empty where PromptLayer does not say.
    :param missing: what could not be read, a sentence each.
    """

    card: Scorecard | None = None
    calculation: ScorecardCalculation | None = None
    history: Sequence[PastScore] = ()
    source: str = ""
    criteria: Sequence[CriterionSummary] = ()
    worst: Sequence[WorstRow] = ()
    verdict_counts: Mapping[str, int] = field(default_factory=dict)
    missing: Sequence[str] = ()

    @property
    def current(self) -> PastScore | None:
        """The score of the calculation, if it has one."""
        return _score_of(self.calculation, self.card)

    @property
    def previous(self) -> PastScore | None:
        """The score before, if it can be compared."""
        earlier = self.history[:-1] if self.current else self.history
        last = earlier[-1] if earlier else None
        return last if last and (not self.current or last.is_comparable(self.current)) else None

    @property
    def change(self) -> float | None:
        """How far the score is above that of the evaluation before; None if that is unknown."""
        if self.current is None or self.previous is None:
            return None
        return _difference(self.current.score, self.previous.score)


def kept_scores(history: Sequence[PastScore], sheet: Sheet) -> dict[str, Any]:
    """Return the last scores of a sheet as plain JSON, for the next DAG run."""
    scores = [
        {
            "score": each.score,
            "at": each.at,
            "verdict": each.verdict,
            "config_hash": each.config_hash,
            "calculation_id": each.calculation_id,
            # Only the last ones are compared with.
            "pass_rates": dict(each.pass_rates) if each is history[-1] else {},
        }
        for each in history[-MAX_SCORES:]
    ]
    return versioned({"sheet_id": sheet.sheet_id, "scores": scores})


def read_scores(kept: Any, sheet: Sheet) -> tuple[PastScore, ...]:
    """Return what :func:`kept_scores` has made; None gives none, and so does another sheet.

    :raises UnreadableError: if this release cannot read it.
    """

    def build(fields: Fields) -> tuple[PastScore, ...]:
        if fields.text("sheet_id") != sheet.sheet_id:  # each DAG run may name one
            return ()
        return tuple(
            PastScore(
                score,
                each.text_if_any("at"),
                each.text_if_any("verdict"),
                each.text_if_any("config_hash"),
                each.text_if_any("calculation_id"),
                _numbers(each.get("pass_rates")),
            )
            for each in fields.objects("scores")
            if (score := each.number_or_none("score")) is not None
        )

    return read_persisted(kept, build) or ()


def merged_scores(histories: Iterable[Sequence[PastScore]]) -> tuple[PastScore, ...]:
    """Return the scores of histories that may overlap, the oldest first, each evaluation once.

    A score without a date stays behind the dated one that it follows in a history.
    """
    found: dict[Any, PastScore] = {}
    order: dict[Any, tuple[float, bool]] = {}
    for history in histories:
        last, alike = 0.0, Counter[Any]()
        for each in history:
            at = timestamp(each.at)
            last = last if at is None else at
            key: Any = each.calculation_id
            if not key:
                facts = each.at, each.score, each.verdict
                alike[facts] += 1
                key = facts, alike[facts]
            order[key] = max(order.get(key, (0.0, False)), (last, at is None))
            if key not in found or each.pass_rates:  # which the last one of a history has alone
                found[key] = each
    return tuple(found[key] for key in sorted(found, key=lambda key: order[key]))


def summarize(
    sheet: Sheet,
    *,
    calculation_id: str | NotSet | None = NOTSET,
    known: Sequence[PastScore] = (),
) -> CallFlow[EvaluationSummary]:
    """Read what there is to say about an evaluation.

    :param calculation_id: :data:`.NOTSET` for the latest; None where none was made.
    :param known: earlier scores that Airflow knows, the oldest first. PromptLayer's are used where
        it has more of them.
    """
    missing: list[str] = []
    card = yield scorecard(sheet)
    if calculation_id is NOTSET:
        latest = card.latest if card else None
        calculation_id = latest.calculation_id if latest else None
    found: ScorecardCalculation | None = None
    if calculation_id is not None:
        job = SheetCalculation(sheet.table_id, sheet.sheet_id, str(calculation_id))
        found = yield job.fetch_call()
    summary = EvaluationSummary(card, found)
    history, source = yield from _history(sheet, found, known, missing)
    if current := summary.current:
        history = [*history[-MAX_SCORES + 1 :], current]
    summary = replace(summary, history=tuple(history), source=source)
    if found and found.is_completed:
        titles = card.step_titles if card else {}
        rows, counts = yield from _worst(job, titles, missing)
        summary = replace(
            summary,
            criteria=_criteria(found, titles, summary.previous),
            worst=rows,
            verdict_counts=counts,
        )
    return replace(summary, missing=tuple(missing))


def _history(
    sheet: Sheet,
    found: ScorecardCalculation | None,
    known: Sequence[PastScore],
    missing: list[str],
) -> CallFlow[tuple[list[PastScore], str]]:
    """Return the scores before a calculation, and who knows them."""
    try:
        page = yield list_versions(sheet)
        versions = [each for each in reversed(page.items) if each.score is not None]
        if page.items and not versions:  # the list may leave the scores out
            versions = list((yield score_history(sheet)))
    except PromptLayerError as error:
        missing.append(f"The saved scores could not be read: {error}")
        versions = []
    saved = [
        PastScore(each.score, each.created_at, each.verdict, each.config_hash, each.calculation_id)
        for each in versions
        if each.score is not None
    ]
    theirs, ours = (
        [
            each
            for each in scores
            if found is None
            or (
                each.calculation_id != found.calculation_id
                and not is_after(each.at, found.started_at)
            )
        ][-MAX_SCORES:]
        for scores in (saved, known)
    )
    if len(theirs) > len(ours):
        return theirs, "PromptLayer"
    return ours, "Airflow" if ours else ""


def _worst(
    job: SheetCalculation, titles: Mapping[str, str], missing: list[str]
) -> CallFlow[tuple[tuple[WorstRow, ...], Mapping[str, int]]]:
    """Return the worst rows that did not pass, and how many rows have each verdict."""
    counts: Mapping[str, int] = {}
    worst: list[ScorecardRow] = []
    cells: dict[int, list[tuple[str, str]]] = {}
    try:
        page = yield scorecard_rows(job, calculation_id=job.calculation_id, limit=1)
        counts = page.verdict_counts
        verdicts = [verdict for verdict in _PROBLEMS if counts.get(verdict)]
        if verdicts or not counts:
            yield from find_worst_rows(worst, job, verdicts, ROWS_SHOWN)
    except PromptLayerError as error:
        missing.append(f"The verdicts of rows could not be read: {error}")
    rows = [row for row in worst if row.verdict not in PASSING]
    try:
        yield from _read_cells(job, {row.row_index for row in rows}, cells)
    except PromptLayerError as error:
        missing.append(f"The cells of the worst rows could not be read: {error}")
    return tuple(
        WorstRow(row, _reasons(row, titles), cells.get(row.row_index, ())) for row in rows
    ), counts


def _reasons(row: ScorecardRow, titles: Mapping[str, str]) -> list[tuple[str, str]]:
    said = words_or_all(row.error_summary)
    reasons = [("", one_line(said, _TEXT_LIMIT))] if said else []
    for key, result in entries(row.step_results):
        why = reason(result) if isinstance(result, Mapping) else None
        if why and result.get("verdict") != Verdict.PASS:
            title = one_line(titles.get(key, key), _TITLE_LIMIT)
            reasons.append((title, one_line(why, _TEXT_LIMIT)))
        if len(reasons) == _CELLS_SHOWN:
            break
    return reasons


def _read_cells(
    sheet: Sheet, wanted: set[int], cells: dict[int, list[tuple[str, str]]]
) -> CallFlow[None]:
    """Fill ``cells`` with the beginning of what the first columns of some rows hold."""
    for last_first in (False, True):
        read = 0

        def visit(page: RowsPage) -> bool:
            nonlocal read
            for row in page.items:
                if row.index in wanted and row.index not in cells:
                    cells[row.index] = _shown_cells(page, row.cells)
            read += len(page.items)
            return cells.keys() >= wanted or read >= _ROWS_READ

        if not cells.keys() >= wanted:
            yield from visit_pages(
                lambda cursor, last_first=last_first: rows_page(  # type: ignore[misc]
                    sheet, cursor=cursor, last_first=last_first, with_columns=True
                ),
                visit,
            )


def _shown_cells(page: RowsPage, cells: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (
            one_line(column.title, _TITLE_LIMIT),
            one_line(words_or_all(value_of(cells.get(column.id, {}))) or "", _TEXT_LIMIT),
        )
        for column in page.columns[:_CELLS_SHOWN]
    ]


def _criteria(
    found: ScorecardCalculation, titles: Mapping[str, str], previous: PastScore | None
) -> tuple[CriterionSummary, ...]:
    before = previous.pass_rates if previous else {}
    summaries = []
    for criterion in criteria(found, titles):
        rate = _pass_rate(criterion)
        then = before.get(criterion.title)
        change = None if rate is None or then is None else rate - then
        summaries.append(CriterionSummary(criterion, rate, change))
    return tuple(summaries)


def _pass_rate(criterion: Criterion) -> float | None:
    counts = {name: max(0, n) for name, n in (criterion.verdict_counts or {}).items()}
    judged = sum(counts.values()) - counts.get(Verdict.SKIPPED, 0)
    return counts.get(Verdict.PASS, 0) / judged if judged else None


def _score_of(found: ScorecardCalculation | None, card: Scorecard | None) -> PastScore | None:
    if found is None or not found.is_completed or found.score is None:
        return None
    rates = {
        each.title: rate
        for each in criteria(found, card.step_titles if card else {})[:CRITERIA_KEPT]
        if (rate := _pass_rate(each)) is not None
    }
    return PastScore(
        found.score,
        found.completed_at or found.started_at,
        found.verdict,
        found.config_hash,
        found.calculation_id,
        rates,
    )


def _difference(score: float, other: float) -> float | None:
    return score - other if max(abs(score), abs(other)) < _LARGEST else None


def _numbers(found: Any) -> dict[str, float]:
    return {
        name: number
        for name, number in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(number, (int, float))
    }
