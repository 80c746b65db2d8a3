# SPDX-License-Identifier: Apache-2.0
"""Definitions of evaluations: tables with their data and scorecards, and legacy reports.

A definition that exists is valid: an invalid argument raises ``ValueError`` with one line that
names the definition. Ids that are not given are derived from the names, so that the same
definitions always have the same ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any
from uuid import UUID

from ..json_text import JsonValue
from ..workflows.model import derived_id

VERDICTS = ("pass", "warn", "fail", "error", "skipped")
CALCULATION_STATUSES = ("queued", "running", "completed", "failed", "cancelled")


@dataclass(frozen=True)
class RequestMetrics:
    """What the request of one calculated cell cost; ``None`` for what PromptLayer does not know.

    :param price: US dollars.
    :param input_tokens: tokens of the prompt.
    :param output_tokens: tokens of the answer.
    :param latency_ms: milliseconds.
    """

    price: float | None = 0.001
    input_tokens: int | None = 100
    output_tokens: int | None = 20
    latency_ms: int | None = 800


@dataclass(frozen=True)
class Column:
    """A column of a sheet.

    :param title: any text.
    :param id: a UUID; derived from the title if it is empty.
    :param type: ``TEXT`` for a column that cannot be recalculated, or another of PromptLayer's
        types.
    :param cell_duration: seconds that a cell takes; ``math.inf`` for cells that never end.
    :param failing_rows: zero-based numbers of the rows whose cells fail.
    :param is_stale: whether the cells are stale before the first operation, rather than completed.
    :param config: shown by the API, and replaced by a PATCH of the column.
    :param metrics: of each completed cell. Only cells of the type ``PROMPT_TEMPLATE`` have metrics.
    """

    title: str
    _: KW_ONLY
    id: str = ""
    type: str = "PROMPT_TEMPLATE"
    cell_duration: float = 0.0
    failing_rows: Sequence[int] = ()
    is_stale: bool = True
    config: Mapping[str, Any] | None = None
    metrics: RequestMetrics = RequestMetrics()

    def __post_init__(self) -> None:
        _identify(self, "column", self.title)
        _check_seconds(f"column {self.title!r}", "cell_duration", self.cell_duration)
        object.__setattr__(self, "failing_rows", tuple(self.failing_rows))


@dataclass(frozen=True)
class Criterion:
    """A criterion of a scorecard (called step in the description) and its summary.

    :param verdict_counts: verdict → number of rows; None for a summary that does not say.
    """

    title: str
    _: KW_ONLY
    id: str = ""
    primitive_type: str = "LLM_ASSERTION"
    verdict: str | None = "pass"
    score: float | None = 1.0
    error_summary: str | None = None
    verdict_counts: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        _identify(self, "criterion", self.title)
        _check_verdict(f"criterion {self.title!r}", self.verdict)


@dataclass(frozen=True)
class ScoredRow:
    """The verdict on a row. ``reasons`` maps titles of criteria that it does not meet to why.

    The API shows a reason as ``evidence``, or as ``error_message`` if the verdict is ``error``.
    """

    verdict: str | None = "pass"
    score: float | None = 1.0
    _: KW_ONLY
    error_summary: str | None = None
    reasons: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        _check_verdict("a row of a scorecard", self.verdict)


@dataclass(frozen=True)
class Scorecard:
    """The scorecard of a sheet, and the result of every calculation of it.

    :param name: any text.
    :param criteria: in the order in which the API lists them.
    :param rows: one for each row of the sheet, from the first. A row that was added to the sheet
        has the aggregate verdict and score.
    :param id: a UUID; derived from the name if it is empty.
    :param verdict: the aggregate verdict.
    :param score: the aggregate score.
    :param drift_summary: any JSON object, or ``None``.
    :param queue_duration: seconds in ``queued``.
    :param duration: seconds in ``running`` after that; ``math.inf`` if it never ends.
    :param status: the final status: ``completed``, ``failed``, or any text.
    :param error_summary: what went wrong.
    :param config_hash: the same for scores that can be compared; made from the criteria if it is
        empty. ``None`` for a server that tells none.
    """

    name: str
    criteria: Sequence[Criterion] = ()
    rows: Sequence[ScoredRow] = ()
    _: KW_ONLY
    id: str = ""
    verdict: str | None = "pass"
    score: float | None = 1.0
    drift_summary: Mapping[str, JsonValue] | None = None
    queue_duration: float = 0.0
    duration: float = 0.0
    status: str = "completed"
    error_summary: str | None = None
    config_hash: str | None = ""

    def __post_init__(self) -> None:
        where = f"scorecard {self.name!r}"
        _identify(self, "scorecard", self.name)
        _check_verdict(where, self.verdict)
        _check_seconds(where, "queue_duration", self.queue_duration)
        _check_seconds(where, "duration", self.duration)
        object.__setattr__(self, "criteria", tuple(self.criteria))
        object.__setattr__(self, "rows", tuple(self.rows))
        _check_unique(where, "criteria", (criterion.id for criterion in self.criteria))
        titles = {criterion.title for criterion in self.criteria}
        for row in self.rows:
            for title in row.reasons or ():
                if title not in titles:
                    raise ValueError(f"{where}: a row names the criterion {title!r}: unknown")


@dataclass(frozen=True)
class Sheet:
    """A sheet of a table.

    The cells of an operation are calculated one after the other, row by row.

    :param title: any text.
    :param columns: in their order.
    :param row_count: how many rows there are, unless ``rows`` says so.
    :param rows: of each row, title of a column -> the value of its cell. A ``TEXT`` cell without a
        value is empty; any other shows its value, or one made from its place, once it is completed.
        ``None``: all values are made from the places of the cells.
    :param id: a UUID; derived from the title if it is empty.
    :param scorecard: ``None`` for a sheet without one.
    :param confirm_above: an operation on more cells than this needs a confirmation; ``None``: none
        does.
    :param status_lag: seconds for which an operation is still ``running`` after its last cell.
    """

    title: str
    columns: Sequence[Column] = ()
    row_count: int = 1
    _: KW_ONLY
    rows: Sequence[Mapping[str, JsonValue]] | None = None
    id: str = ""
    scorecard: Scorecard | None = None
    confirm_above: int | None = None
    status_lag: float = 0.0

    def __post_init__(self) -> None:
        where = f"sheet {self.title!r}"
        _identify(self, "sheet", self.title)
        _check_seconds(where, "status_lag", self.status_lag)
        if self.row_count < 0:
            raise ValueError(f"{where}: row_count is {self.row_count}, must be >= 0")
        object.__setattr__(self, "columns", tuple(self.columns))
        _check_unique(where, "columns", (column.id for column in self.columns))
        if self.rows is not None:
            object.__setattr__(self, "rows", tuple(self.rows))
            object.__setattr__(self, "row_count", len(self.rows))
            _check_titles(where, self.rows, Counter(column.title for column in self.columns))


@dataclass(frozen=True)
class Table:
    """A table."""

    title: str
    sheets: Sequence[Sheet] = ()
    _: KW_ONLY
    id: str = ""

    def __post_init__(self) -> None:
        _identify(self, "table", self.title)
        object.__setattr__(self, "sheets", tuple(self.sheets))
        _check_unique(f"table {self.title!r}", "sheets", (sheet.id for sheet in self.sheets))


@dataclass(frozen=True)
class Report:
    """An evaluation pipeline and how each run of it ends; or a final report that has ended.

    Cells end evenly over ``duration``, the failing ones last.

    :param name: any text.
    :param id: a number; chosen by the server if ``None``.
    :param is_blueprint: whether it is a pipeline: it can be run, and has no score itself.
    :param cells: how many cells a run has.
    :param failed_cells: how many of them fail.
    :param duration: seconds that a run takes; ``math.inf`` if it never ends.
    :param score: ``overall_score``, 0 to 100, or ``None``.
    :param column_scores: column name -> score.
    :param score_calculation_error: why there is no score.
    :param has_dynamic_dataset: whether ``refresh_dataset`` may be asked for.
    """

    name: str
    _: KW_ONLY
    id: int | None = None
    is_blueprint: bool = True
    cells: int = 1
    failed_cells: int = 0
    duration: float = 0.0
    score: float | None = None
    column_scores: Mapping[str, float | None] | None = None
    score_calculation_error: str | None = None
    has_dynamic_dataset: bool = False

    def __post_init__(self) -> None:
        where = f"report {self.name!r}"
        _check_seconds(where, "duration", self.duration)
        if self.id is not None and self.id < 1:
            raise ValueError(f"{where}: id is {self.id}, must be >= 1")
        if not 0 <= self.failed_cells <= self.cells:
            raise ValueError(f"{where}: failed_cells is {self.failed_cells} of {self.cells} cells")

    @property
    def score_type(self) -> str:
        """How the score is calculated, in PromptLayer's words."""
        columns = len(self.column_scores or ())
        return ("none", "single_column")[columns] if columns < 2 else "multi_column"


def _identify(thing: Any, kind: str, name: str) -> None:
    if not name or not isinstance(name, str):
        raise ValueError(f"a {kind} needs a name, not {name!r}")
    try:
        identity = str(UUID(thing.id)) if thing.id else derived_id(kind, name)
    except ValueError:
        raise ValueError(f"{kind} {name!r}: id is {thing.id!r}, must be a UUID") from None
    object.__setattr__(thing, "id", identity)


def _check_titles(
    where: str, rows: Iterable[Mapping[str, JsonValue]], titles: Counter[str]
) -> None:
    for row in rows:
        for title in row:
            if titles[title] != 1:
                problem = "two columns have that title" if titles[title] else "unknown"
                raise ValueError(f"{where}: a row names the column {title!r}: {problem}")


def _check_seconds(where: str, name: str, seconds: float) -> None:
    # `not >=` rather than `<` refuses NaN too.
    if not seconds >= 0:
        raise ValueError(f"{where}: {name} is {seconds}, must be >= 0")


def _check_verdict(where: str, verdict: str | None) -> None:
    if verdict not in (None, *VERDICTS):
        raise ValueError(f"{where}: the verdict is {verdict!r}, must be {', '.join(VERDICTS)}")


def _check_unique(where: str, what: str, ids: Iterable[str]) -> None:
    listed = list(ids)
    if len(listed) != len(set(listed)):
        raise ValueError(f"{where}: two {what} have the same id")
