# SPDX-License-Identifier: Apache-2.0
"""A sheet as flat records: one for each row, with the same fields in every file and for every row.

A column of text makes one field. Each other column makes eight: the value, and how it was
calculated. The scorecard, where it is asked for, adds four.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain
from typing import Any, Final, Self, TypeAlias

from airflow_provider_promptlayer.api.arguments import MAX_ID, list_of, title_or_uuid
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAuthError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerRefusedError,
    PromptLayerSheetChangedError,
    PromptLayerUnexpectedAnswerError,
)
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.names import columns_among
from airflow_provider_promptlayer.api.pages import Page, visit_pages
from airflow_provider_promptlayer.api.reasons import entries, reason, words_or_all
from airflow_provider_promptlayer.api.rows import (
    Column,
    RawCell,
    Row,
    RowsPage,
    error_of,
    rows_page,
    status_of,
    value_of,
)
from airflow_provider_promptlayer.api.scorecards import (
    Scorecard,
    ScorecardRow,
    Verdict,
    scorecard,
    scorecard_row,
    scorecard_rows,
)
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import one_line

Record: TypeAlias = tuple[Any, ...]
"""The values of a row, in the order of the fields.

A tuple, and so are the lists of integers in it, because Python's garbage collector then need not go
through them, time and again, while the next pages are read.
"""

_NEEDS_NO_REASON: Final = (None, Verdict.PASS, Verdict.SKIPPED)


class FieldType(Enum):
    """What a field of a record holds, besides None."""

    ANY = "any JSON value"
    TEXT = "text"
    INTEGER = "an integer of 64 bits"
    NUMBER = "a finite number"
    INTEGERS = "a list of integers of 64 bits"
    OBJECT = "a JSON object"


@dataclass(frozen=True, slots=True)
class RecordField:
    """A field of the records; no two of them have the same name, whatever its case."""

    name: str
    type: FieldType


_DETAILS: Final = {
    "status": FieldType.TEXT,
    "error": FieldType.TEXT,
    "price": FieldType.NUMBER,
    "latency_ms": FieldType.INTEGER,
    "input_tokens": FieldType.INTEGER,
    "output_tokens": FieldType.INTEGER,
    "request_ids": FieldType.INTEGERS,
}
"""What a calculated cell has besides its value; the field is ``TITLE_status``, and so on."""

_SCORES: Final = {
    "scorecard_verdict": FieldType.TEXT,
    "scorecard_score": FieldType.NUMBER,
    "scorecard_reasons": FieldType.OBJECT,
    "scorecard_error": FieldType.TEXT,
}


@dataclass(frozen=True, slots=True)
class RecordsPage(Page[Record]):
    """The records of a page of rows.

    :param statuses: for each record the statuses of its calculated cells.
    :param version: see :class:`.RowsPage`, as for ``row_count``.
    """

    statuses: Sequence[Sequence[str]]
    version: int | None
    row_count: int | None


class RecordReader:
    """Reads a sheet as records: says which requests to send, and what the answers mean.

    :param columns: titles or UUIDs of the columns to read, in this order; None for all.
    :param details: whether calculated columns have fields besides the value.
    :param scorecard: whether the records have the fields of the scorecard.
    """

    def __init__(
        self,
        sheet: Sheet,
        *,
        columns: Any = None,
        details: bool = True,
        scorecard: bool = False,
    ) -> None:
        self.sheet = sheet
        self.fields: tuple[RecordField, ...] = ()
        """What the values of a record are; known once the first page is read."""
        self.cell_counts = Counter[str]()
        """Status → how many calculated cells of the records so far have it."""
        self.row_count = 0
        """How many rows were read so far."""
        self.rows_in_all: int | None = None
        """How many rows the sheet has, where PromptLayer says so."""
        self.version: int | None = None
        """The version of the sheet that was read; it rises with every change."""
        self._last_first = False
        self._wanted = list_of(title_or_uuid, "columns", columns)
        self._has_details = details
        self._has_scores = scorecard
        self._columns: Sequence[Column] = ()
        self._cells_read: Sequence[tuple[str, bool]] = ()  # id of a column, whether it is of text
        self._scorecard: Scorecard | None = None

    def page_calls(self) -> Generator[Call[RecordsPage], RecordsPage, None]:
        """Yield the call for each page, and take its result, from the first page to the last.

        The scores are not in the result, see :meth:`read`.

        :raises PromptLayerSheetChangedError: if the sheet was changed between two pages.
        :raises PromptLayerUnexpectedAnswerError: if rows are missing, or a cursor leads back.
        """

        def page_call(cursor: str | None) -> Call[RecordsPage]:
            needs_columns = not (self.fields or cursor)
            return rows_page(
                self.sheet, cursor=cursor, last_first=self._last_first, with_columns=needs_columns
            ).then(self._records)

        return visit_pages(page_call, self._check)

    def from_the_end(self) -> Self:
        """Return a reader of the same records from the last row to the first.

        Its counts of cells are those of this reader. Needs the first page.
        """
        other = copy(self)
        other.row_count, other._last_first = 0, True
        return other

    def read(self, call: Call[RecordsPage]) -> CallFlow[RecordsPage]:
        """Return a page with its scores.

        :raises PromptLayerInvalidInputError: if the sheet has no scorecard that was calculated.
        :raises PromptLayerSheetChangedError: if the scorecard is being calculated, or PromptLayer
            refuses the cursor of an earlier page.
        """
        try:
            page: RecordsPage = yield call
        except (PromptLayerAuthError, PromptLayerNotFoundError):
            raise
        except PromptLayerRefusedError as error:
            if not self.row_count:
                raise
            raise PromptLayerSheetChangedError(
                f"{str(error).rstrip('.')}; it took the pages before."
            ) from error
        if not (self._has_scores and page.items):
            return page
        scores = yield from self._scores(page)
        # PromptLayer tells the reasons row by row.
        unexplained = [
            record[0]
            for record in page.items
            if (score := scores.get(record[0])) is not None
            and score.verdict not in _NEEDS_NO_REASON
            and not score.step_results
        ]
        calculation_id = self._calculation_id
        explained = yield [
            scorecard_row(self.sheet, index, calculation_id=calculation_id) for index in unexplained
        ]
        scores |= zip(unexplained, explained, strict=True)
        records = tuple(record + self._score_values(scores.get(record[0])) for record in page.items)
        return replace(page, items=records)

    def take(self, page: RecordsPage, is_wanted: Callable[[int], bool]) -> list[Record]:
        """Return the records of a page whose row numbers are wanted, and count their cells."""
        wanted = [
            (record, statuses)
            for record, statuses in zip(page.items, page.statuses, strict=True)
            if is_wanted(record[0])
        ]
        self.cell_counts.update(chain.from_iterable(statuses for _, statuses in wanted))
        return [record for record, _ in wanted]

    def named(self, record: Record) -> dict[str, Any]:
        """Return a record as a mapping by the names of the fields, with lists as such."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field, value in zip(self.fields, record, strict=True)
        }

    def _scores(self, page: RecordsPage) -> CallFlow[dict[int, ScorecardRow]]:
        """Return row number → score, without the reasons."""
        if self._scorecard is None:
            self._scorecard = _calculated((yield scorecard(self.sheet)), self.sheet)
        ends = page.items[0][0], page.items[-1][0]
        first, last = min(ends), max(ends)
        cursor: int | None = first - 1 if first else None
        scores: dict[int, ScorecardRow] = {}
        while True:  # one page, unless rows were deleted since, or PromptLayer lists fewer on each
            found = yield scorecard_rows(
                self.sheet, calculation_id=self._calculation_id, cursor=cursor
            )
            scores |= {row.row_index: row for row in found.rows if row.row_index <= last}
            cursor = found.next_cursor
            if cursor is None or cursor >= last:
                return scores

    @property
    def _calculation_id(self) -> str | None:
        latest = self._scorecard.latest if self._scorecard else None
        return latest.calculation_id if latest else None

    def _records(self, page: RowsPage) -> RecordsPage:
        if not self.fields:  # the first page
            self._columns = _chosen(page.columns, self._wanted, self.sheet)
            self._cells_read = [(column.id, column.is_text) for column in self._columns]
            self.fields = tuple(self._named_fields())
        records, statuses = [], []
        for row in page.items:
            record, its_statuses = self._record(row)
            records.append(record)
            statuses.append(its_statuses)
        return RecordsPage(tuple(records), page.next_cursor, statuses, page.version, page.row_count)

    def _check(self, page: RecordsPage) -> None:
        if self.version is None:
            self.version = page.version
        if page.version not in (None, self.version):
            raise PromptLayerSheetChangedError(
                f"Sheet {self.sheet.sheet_id} was changed while it was read (version "
                f"{page.version}, before {self.version})."
            )
        self.row_count += len(page.items)
        self.rows_in_all = page.row_count if page.row_count is not None else self.rows_in_all
        if page.next_cursor is None:
            self.check_complete(self.row_count)

    def check_complete(self, row_count: int) -> None:
        """Raise if PromptLayer says that there are more or fewer rows than these."""
        if self.rows_in_all not in (None, row_count):
            raise PromptLayerUnexpectedAnswerError(
                f"Could not list the rows of sheet {self.sheet.sheet_id}: PromptLayer says that "
                f"there are {self.rows_in_all}, and has listed {row_count}."
            )

    def _named_fields(self) -> Iterable[RecordField]:
        fields = [("row_index", FieldType.INTEGER)]
        titles = _told_apart([column.title.strip() or column.id for column in self._columns])
        for name, column in zip(titles, self._columns, strict=True):
            fields.append((name, FieldType.ANY))
            if self._has_details and not column.is_text:
                fields += [(f"{name}_{detail}", kind) for detail, kind in _DETAILS.items()]
        if self._has_scores:
            fields += _SCORES.items()
        names = _told_apart([name for name, _ in fields])
        return (RecordField(name, kind) for name, (_, kind) in zip(names, fields, strict=True))

    def _record(self, row: Row) -> tuple[Record, Sequence[str]]:
        """Return the record of a row, without scores, and the statuses of its calculated cells."""
        record: list[Any] = [row.index]
        statuses = []
        cells = row.cells
        for column_id, is_text in self._cells_read:
            cell = cells.get(column_id, {})
            record.append(value_of(cell))
            if not is_text:
                status = status_of(cell)
                statuses.append(status or "unknown")
                if self._has_details:
                    record.append(status)
                    record += _details_of(cell)
        return tuple(record), tuple(statuses)

    def _score_values(self, score: ScorecardRow | None) -> Record:
        if score is None:
            return (None,) * len(_SCORES)
        titles = self._scorecard.step_titles if self._scorecard else {}
        reasons = {}
        for step_id, result in entries(score.step_results):
            said = reason(result) if isinstance(result, Mapping) else None
            if said is not None:
                name = titles.get(step_id, step_id)
                reasons[step_id if name in reasons else name] = said
        return (
            score.verdict,
            _number(score.score),
            reasons or None,
            words_or_all(score.error_summary),
        )


def _details_of(cell: RawCell) -> Record:
    """Return the values of :data:`_DETAILS`, besides the status."""
    metrics = cell.get("request_metrics")
    if not isinstance(metrics, dict):
        return error_of(cell), None, None, None, None, None
    ids = metrics.get("request_ids")
    return (
        error_of(cell),
        _number(metrics.get("price")),
        _integer(metrics.get("latency_ms")),
        _integer(metrics.get("input_tokens")),
        _integer(metrics.get("output_tokens")),
        tuple([item for item in ids if _integer(item) is not None])
        if isinstance(ids, list)
        else None,
    )


def _number(value: Any) -> float | None:
    """Return a finite number as Parquet takes it; None for an integer of hundreds of digits."""
    if type(value) not in (float, int):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _integer(value: Any) -> int | None:
    """Return an integer that fits the field, or None; ``type`` as True is no integer here."""
    return value if type(value) is int and abs(value) <= MAX_ID else None


def _calculated(card: Scorecard | None, sheet: Sheet) -> Scorecard:
    """Return a scorecard that has been calculated."""
    if card is None or card.latest is None:
        raise PromptLayerInvalidInputError(
            f"Sheet {sheet.sheet_id} has no scorecard that was calculated: calculate it first, or "
            "leave out scorecard=True."
        )
    if not card.latest.is_complete:
        raise PromptLayerSheetChangedError(
            f"The scorecard of sheet {sheet.sheet_id} is being calculated "
            f"({one_line(card.latest.status, 40)})."
        )
    if not card.latest.is_completed:
        raise PromptLayerInvalidInputError(
            f"The latest calculation of the scorecard of sheet {sheet.sheet_id} has no scores to "
            f"export ({one_line(card.latest.status, 40)}): calculate it again, or leave out "
            "scorecard=True."
        )
    return card


def _chosen(
    columns: Sequence[Column], wanted: Sequence[str] | None, sheet: Sheet
) -> Sequence[Column]:
    """Return the columns with these titles or ids, in the order in which they are wanted."""
    if wanted is None:
        return columns
    by_id = {column.id: column for column in columns}
    ids = columns_among({column.id: column.title for column in columns}, wanted, sheet)
    for unknown in (column_id for column_id in ids if column_id not in by_id):
        raise PromptLayerNotFoundError(f"Sheet {sheet.sheet_id} has no column {unknown}.")
    return [by_id[column_id] for column_id in ids]


def _told_apart(names: Sequence[str]) -> list[str]:
    """Return ``names`` with a number after each that occurred before: ``Answer (2)``.

    Case does not tell two names apart, as it does not in most databases.
    """
    taken = {name.casefold() for name in names}
    seen: set[str] = set()
    unique = []
    for name in names:
        new, number = name, 1
        while new.casefold() in (seen if number == 1 else taken):
            number += 1
            new = f"{name} ({number})"
        seen.add(new.casefold())
        taken.add(new.casefold())
        unique.append(new)
    return unique
