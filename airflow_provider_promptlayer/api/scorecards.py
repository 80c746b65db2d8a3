# SPDX-License-Identifier: Apache-2.0
"""Scorecards: recalculating that of a sheet, and what the answers say.

Facts are those of PromptLayer's published API description ("Recalculate Table Sheet Scorecard",
"Get Table Sheet Scorecard Calculation", "Get Table Sheet Scorecard", "List Table Sheet Scorecard
Rows", "Get Table Sheet Scorecard Row", "Cancel Table Sheet Scorecard"); what it leaves open is
noted where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

from airflow_provider_promptlayer.api.arguments import (
    encode,
    list_of,
    one_of,
    positive,
    row_number,
    uuid,
)
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.job import IdParsers, RemoteJob
from airflow_provider_promptlayer.api.submit import submit_call
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import seconds_between

MAX_ROWS: Final = 100
"""The most rows that PromptLayer puts on a page."""

_NO_SCORECARD: Final = (
    "Check that the sheet has a scorecard: set one up in PromptLayer; and that row_indices and "
    "step_ids, where given, are those of the sheet and of its scorecard."
)


class CalculationStatus(StrEnum):
    """The statuses of a calculation that PromptLayer documents."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Verdict(StrEnum):
    """The verdicts that PromptLayer documents. A row or a calculation may have none yet."""

    PASS = "pass"  # noqa: S105  # no password
    WARN = "warn"
    FAIL = "fail"
    ERROR = "error"
    SKIPPED = "skipped"


_UNFINISHED: Final = frozenset({CalculationStatus.QUEUED, CalculationStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class ScorecardCalculation:
    """What a poll of a calculation has found.

    :param status: as PromptLayer wrote it; :class:`CalculationStatus` has the documented ones.
        An unknown one counts as final, and not as a success.
    :param score: finite, or None. The description gives no scale: it is that of the scorecard's
        own thresholds.
    :param verdict: as PromptLayer wrote it, or None; :class:`Verdict` has the documented ones.
    :param criterion_summaries: of any shape: the description has an object and no more,
        PromptLayer's own library has a list. :func:`.criteria` reads both.
    :param drift_summary: of any shape, or None.
    :param error_summary: text or an object, or None.
    :param config_hash: the same for calculations whose scores can be compared; None where
        PromptLayer does not say.
    :param started_at: as PromptLayer wrote it, or None.
    :param sheet_revision: the version of the sheet that was judged, or None. A text in the
        description, which may be a number.
    :param completed_at: the same.
    """

    calculation_id: str
    status: str
    score: float | None = None
    verdict: str | None = None
    criterion_summaries: Any = field(default_factory=dict, repr=False)
    drift_summary: Any = field(default=None, repr=False)
    error_summary: Any = field(default=None, repr=False)
    config_hash: str | None = None
    started_at: str | None = None
    sheet_revision: str | None = None
    completed_at: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long the calculation has taken, as far as PromptLayer says."""
        return seconds_between(self.started_at, self.completed_at)

    @property
    def is_complete(self) -> bool:
        """Whether the calculation has ended, well or badly."""
        return self.status not in _UNFINISHED

    @property
    def is_completed(self) -> bool:
        """Whether the calculation has ended well, so that its score and verdict count."""
        return self.status == CalculationStatus.COMPLETED

    @property
    def progress(self) -> str:
        """One line for people: ``"running"``, ``"completed, verdict pass, score 0.93"``."""
        parts = [one_line(self.status, 40)]
        if self.is_complete and self.verdict is not None:
            parts.append(f"verdict {one_line(self.verdict, 40)}")
        if self.is_complete and self.score is not None:
            parts.append(f"score {show_score(self.score)}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Scorecard:
    """A sheet's scorecard.

    :param step_titles: id of a step → its title; a criterion is a step.
    :param latest: the calculation that was started last, or None.
    :param displayed: the one that PromptLayer's dashboard shows, where that is another one.
    :param scored_rows: how many of ``total_rows`` have a score, where PromptLayer says.
    """

    scorecard_id: str
    name: str
    status: str
    step_titles: Mapping[str, str]
    latest: ScorecardCalculation | None
    scored_rows: int | None = None
    total_rows: int | None = None
    displayed: ScorecardCalculation | None = None

    @property
    def last_scored(self) -> ScorecardCalculation | None:
        """The last calculation that has completed with a score, as far as PromptLayer shows it."""
        for calculation in (self.latest, self.displayed):
            if calculation and calculation.is_completed and calculation.score is not None:
                return calculation
        return None


@dataclass(frozen=True, slots=True)
class ScorecardRow:
    """The score and the verdict of one row.

    :param row_index: zero-based.
    :param error_summary: text or an object, or None.
    :param step_results: from :func:`scorecard_row` alone, and of any shape: the description has
        an object and no more.
    """

    row_index: int
    score: float | None
    verdict: str | None
    error_summary: Any = field(default=None, repr=False)
    step_results: Any = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ScorecardRows:
    """A page of rows, by row number and not by score.

    :param next_cursor: for the next page, or None after the last.
    :param verdict_counts: verdict → number of rows.
    """

    calculation_id: str | None
    rows: tuple[ScorecardRow, ...]
    next_cursor: int | None
    verdict_counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CancelledScorecard:
    """What a cancellation has done.

    :param calculation_id: what was cancelled, or None.
    """

    cancelled_count: int
    calculation_id: str | None
    message: str


def recalculate_scorecard(
    table_id: str, sheet_id: str, *, row_indices: Any = None, step_ids: Any = None
) -> Call[str]:
    """``POST …/scorecard/recalculate``: score a sheet anew; returns the ``calculation_id``.

    Arguments: :meth:`.PromptLayerHook.run_scorecard`; each list may also be JSON.

    A repeat does harm: the description does not say that it joins a calculation which is under
    way, so it is a second one, with its own id, and the language models that judge are billed
    again.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    return submit_call(
        _selection_request("recalculate", Sheet(table_id, sheet_id), row_indices, step_ids),
        lambda answer: _uuid(answer, "calculation_id"),
        id_field="calculation_id",
        advice=(
            "A calculation may have been queued all the same, so it was not asked for again: "
            "look at the scorecard in PromptLayer before you clear this task."
        ),
        hints={400: _NO_SCORECARD},
    )


def cancel_scorecard(
    sheet: Sheet, *, row_indices: Any = None, step_ids: Any = None
) -> Call[CancelledScorecard]:
    """``POST …/scorecard/cancel``: cancel the calculation of a sheet; a repeat does no harm.

    The request names no calculation: PromptLayer cancels the active one, whoever has started it.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    return object_call(
        _selection_request("cancel", sheet, row_indices, step_ids),
        lambda answer: CancelledScorecard(
            answer.count("cancelled_count"),
            answer.text_if_any("calculation_id"),
            one_line(answer.text_if_any("message") or ""),
        ),
        hints={400: _NO_SCORECARD},
    )


@dataclass(frozen=True)
class SheetCalculation(Sheet, RemoteJob[ScorecardCalculation]):
    """The calculation of a sheet's scorecard, as a job to wait for."""

    calculation_id: str

    id_parsers: ClassVar[IdParsers] = {**Sheet.id_parsers, "calculation_id": uuid}
    noun = "scorecard calculation"
    counted_as = "scorecard"

    def fetch_call(self) -> Call[ScorecardCalculation]:
        """``GET …/scorecard/calculations/{calculation_id}``: ask for the score and the verdict."""
        return object_call(
            self.request(
                "GET",
                f"scorecard/calculations/{self.calculation_id}",
                f"poll scorecard calculation {self.calculation_id}",
            ),
            # Both summaries are there twice; where the outer one is null, the inner one counts.
            lambda answer: _calculation(answer.object("calculation"), answer),
        )

    def cancel_precondition(self) -> Call[bool]:
        """Ask whether the calculation is still the newest one, and has not ended.

        A cancellation ends whatever is being calculated for the sheet, and another task may have
        started a newer calculation. PromptLayer does not tell whether an older one is under way.
        """

        def is_newest(card: Scorecard | None) -> bool:
            latest = card.latest if card else None
            return (
                latest is not None
                and latest.calculation_id == self.calculation_id
                and not latest.is_complete
            )

        return scorecard(self).then(is_newest)

    def cancel(self) -> Call[bool]:
        """Cancel the active calculation of the sheet, see :func:`cancel_scorecard`."""
        return cancel_scorecard(self).then(lambda cancelled: cancelled.cancelled_count > 0)


def scorecard(sheet: Sheet) -> Call[Scorecard | None]:
    """``GET …/scorecard``: the scorecard of a sheet, or None where it has none."""

    def build(answer: Fields) -> Scorecard | None:
        card = answer.object_or_none("scorecard")
        if card is None:
            return None
        latest = answer.object_or_none("latest_calculation")
        progress = answer.object_if_any("progress")
        return Scorecard(
            scorecard_id=card.text("id"),
            name=card.text_if_any("name") or "",
            status=card.text("status"),
            step_titles={
                step_id: step.text_if_any("title") or step_id
                for step in card.objects_if_any("steps")
                if (step_id := step.text_if_any("id"))
            },
            latest=None if latest is None else _calculation(latest),
            scored_rows=progress.count_if_any("scored_rows"),
            total_rows=progress.count_if_any("total_rows"),
            displayed=_displayed(answer),
        )

    purpose = f"read the scorecard of sheet {sheet.sheet_id}"
    return object_call(sheet.request("GET", "scorecard", purpose), build)


def scorecard_rows(
    sheet: Sheet,
    *,
    calculation_id: str | None = None,
    verdict: str | None = None,
    cursor: int | None = None,
    limit: int = MAX_ROWS,
) -> Call[ScorecardRows]:
    """``GET …/scorecard/rows``: a page of rows.

    Arguments: :meth:`.PromptLayerHook.get_scorecard_rows`.

    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    size = positive("limit", limit)
    if size > MAX_ROWS:
        raise PromptLayerInvalidInputError(f"limit must be 1 to {MAX_ROWS}, not {limit}.")
    first = None if cursor is None else row_number("cursor", cursor)
    query = {
        "limit": size,
        "calculation_id": None
        if calculation_id is None
        else uuid("calculation_id", calculation_id),
        "verdict": None if verdict is None else one_of("verdict", verdict, list(Verdict)),
        "cursor": first,
    }
    given = urlencode({name: value for name, value in query.items() if value is not None})

    def build(answer: Fields) -> ScorecardRows:
        following = _cursor(answer)
        if following is not None and first is not None and following <= first:
            raise FieldError("has a next_cursor that leads back")
        return ScorecardRows(
            answer.text_if_any("calculation_id"),
            tuple(map(_row, answer.objects("rows"))),
            following,
            answer.counts_if_any("verdict_counts"),
        )

    purpose = f"list the scorecard rows of sheet {sheet.sheet_id}"
    return object_call(sheet.request("GET", f"scorecard/rows?{given}", purpose), build)


def scorecard_row(
    sheet: Sheet, row_index: int, *, calculation_id: str | None = None
) -> Call[ScorecardRow]:
    """``GET …/scorecard/rows/{row_index}``: one row with the results of its steps.

    :param calculation_id: None for the latest.
    :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
    """
    row = row_number("row_index", row_index)
    path = f"scorecard/rows/{row}"
    if calculation_id is not None:
        path += f"?calculation_id={uuid('calculation_id', calculation_id)}"
    return object_call(sheet.request("GET", path, f"read scorecard row {row}"), _row)


def show_score(score: float) -> str:
    """Return a score for people, however many digits it has."""
    return f"{score:.12g}" if abs(score) < 10**300 else "countless"


def _selection_request(action: str, sheet: Sheet, row_indices: Any, step_ids: Any) -> Request:
    selection = {
        "row_indices": list_of(row_number, "row_indices", row_indices),
        "step_ids": list_of(uuid, "step_ids", step_ids),
    }
    return sheet.request(
        "POST",
        f"scorecard/{action}",
        f"{action} the scorecard of sheet {sheet.sheet_id}",
        encode("step_ids", {name: ids for name, ids in selection.items() if ids is not None}),
    )


def _calculation(fields: Fields, outer: Fields | None = None) -> ScorecardCalculation:
    outer = outer or Fields({})

    def summary(name: str) -> Any:
        found = outer.get(name)
        return fields.get(name) if found is None else found

    return ScorecardCalculation(
        calculation_id=_uuid(fields, "id"),
        status=fields.text("status"),
        score=fields.number_or_none("aggregate_score"),
        verdict=fields.text_or_none("aggregate_verdict"),
        criterion_summaries=summary("criterion_summaries") or {},
        drift_summary=summary("drift_summary"),
        error_summary=fields.get("error_summary"),
        config_hash=fields.text_if_any("config_hash"),
        sheet_revision=_revision(fields.get("sheet_revision")),
        started_at=fields.text_if_any("started_at"),
        completed_at=fields.text_if_any("completed_at"),
    )


def _revision(found: Any) -> str | None:
    return str(found) if isinstance(found, (str, int)) else None


def _displayed(answer: Fields) -> ScorecardCalculation | None:
    try:  # no wait depends on it, so an unknown form is none
        return _calculation(answer.object("display_calculation"))
    except FieldError:
        return None


def _row(fields: Fields) -> ScorecardRow:
    return ScorecardRow(
        row_index=fields.count("row_index"),
        score=fields.number_if_any("aggregate_score"),
        verdict=fields.text_if_any("aggregate_verdict"),
        error_summary=fields.get("error_summary"),
        step_results=fields.get("step_results") or {},
    )


def _uuid(fields: Fields, name: str) -> str:
    try:
        return uuid(name, fields.text(name))
    except PromptLayerInvalidInputError:
        raise FieldError(f"has a {name} that is no UUID") from None


def _cursor(fields: Fields) -> int | None:
    try:  # the description has a number, PromptLayer's own library a text
        found = fields.get("next_cursor")
        return None if found is None else row_number("next_cursor", found)
    except PromptLayerInvalidInputError:
        raise FieldError("has a next_cursor that is no row number") from None
