# SPDX-License-Identifier: Apache-2.0
"""An evaluation as one HTML page that needs nothing else: for a browser, and for an e-mail.

The template is ``evaluation_page.html``. Rows, reasons and titles come from language models and
users, so all text is escaped, is cut, and is of one line; the page has no script, and forbids any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2

from airflow_provider_promptlayer.api.links import is_web_url
from airflow_provider_promptlayer.api.reasons import words_or_all
from airflow_provider_promptlayer.api.scorecards import Verdict, show_score
from airflow_provider_promptlayer.api.tables import show_count
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words, timestamp
from airflow_provider_promptlayer.api.usage import Usage
from airflow_provider_promptlayer.outcomes.summary import EvaluationSummary, PastScore

_TEMPLATE: Final = Path(__file__).with_suffix(".html")

_CRITERIA_SHOWN: Final = 100
_SCORES_LISTED: Final = 7
_SAME: Final = 5e-7
"""Up to where a change is none."""

_LARGEST: Final = 1e15
"""From where on a score is listed, and not drawn."""

_UNKNOWN: Final = "unknown"

_LEFT, _RIGHT, _TOP, _BOTTOM = 12.0, 97.0, 18.0, 150.0
"""The edges of the plot: across in percent of the picture's width, down in pixels."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A score in the chart.

    :param x: percent of the width.
    :param y: pixels from above.
    """

    x: float
    y: float
    score: PastScore


@dataclass(frozen=True, slots=True)
class Chart:
    """The picture of a score over time.

    :param ticks: position and label of each line across.
    :param needed_y: where the score that is needed is; None where none was given.
    :param verdicts: those of the dots, for the legend.
    """

    dots: Sequence[Dot]
    ticks: Sequence[tuple[float, str]]
    needed_y: float | None
    verdicts: Sequence[str]

    @property
    def needed_label_y(self) -> float:
        """Where to write beside the line of the score that is needed: mostly clear of the dots."""
        line = self.needed_y or 0.0
        dots_above = sum(dot.y < line for dot in self.dots[:4])
        has_room_below = line < _BOTTOM - 16  # above the dates
        is_below = has_room_below and 2 * dots_above >= len(self.dots[:4])
        return line + 15 if is_below else line - 6


def render_page(
    summary: EvaluationSummary,
    *,
    table: str,
    sheet: str,
    url: str | None = None,
    min_score: float | None = None,
    usage: Usage | None = None,
    shows_usage: bool = False,
) -> str:
    """Return the page.

    :param table: how the user names the table.
    :param sheet: how the user names the sheet.
    :param url: of the sheet in PromptLayer; None where it is not known.
    :param min_score: the score that is needed, if any.
    :param usage: what the recalculation has cost; None where that is not known.
    :param shows_usage: whether to say what it has cost, or that it is not known.
    """
    calculation = summary.calculation
    return _template().render(
        summary=summary,
        calculation=calculation,
        chart=chart_of(summary.history, min_score),
        listed=list(summary.history)[: -_SCORES_LISTED - 1 : -1],
        criteria=summary.criteria[:_CRITERIA_SHOWN],
        more_criteria=max(0, len(summary.criteria) - _CRITERIA_SHOWN),
        row_counts=_counts(summary.verdict_counts),
        is_below=bool(
            min_score is not None and summary.current and summary.current.score < min_score
        ),
        min_score=min_score,
        table=table,
        sheet=sheet,
        url=url if is_web_url(url) else None,
        usage=usage,
        shows_usage=shows_usage,
        error=one_line(words_or_all(calculation.error_summary) or "") if calculation else "",
        took=None
        if calculation is None or calculation.seconds is None
        else in_words(calculation.seconds),
    )


def chart_of(history: Sequence[PastScore], min_score: float | None = None) -> Chart | None:
    """Return the chart of some scores, or None where fewer than two can be drawn."""
    drawn = [each for each in history if abs(each.score) < _LARGEST]
    if len(drawn) < 2:
        return None
    needed = min_score if min_score is not None and abs(min_score) < _LARGEST else None
    ticks = _ticks([each.score for each in drawn] + ([] if needed is None else [needed]))
    bottom, top = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return round(_BOTTOM - (value - bottom) / (top - bottom) * (_BOTTOM - _TOP), 1)

    step = (_RIGHT - _LEFT) / (len(drawn) - 1)
    dots = [Dot(round(_LEFT + step * at, 2), y(each.score), each) for at, each in enumerate(drawn)]
    found = {_verdict(each.verdict) for each in drawn}
    return Chart(
        dots,
        [(y(value), f"{value:,.6g}") for value in ticks],
        None if needed is None else y(needed),
        [kind for kind in (*Verdict, _UNKNOWN) if kind in found],
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """Return two to four round numbers, between the first and the last of which all values are."""
    low, high = min(values), max(values)
    span = max((high - low) or abs(high) / 5, 1e-12 * abs(high), 1e-12)
    power = 10.0 ** math.floor(math.log10(span / 2))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= span / 2)
    # Rounded, as 0.3 / 0.1 is less than 3.
    first, last = math.floor(round(low / step, 6)), math.ceil(round(high / step, 6))
    if first == last:
        first, last = (first - 1, last) if low > 0 else (first, last + 1)
    return [step * number for number in range(first, last + 1)]


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        {
            "line": one_line,
            "score": _score,
            "percent": _percent,
            "points": lambda change: _signed(change * 100, " points"),
            "change": _signed,
            "when": _when,
            "day": _day,
            "verdict": _verdict,
            "count": lambda count: f"{count:,}" if count < _LARGEST else show_count(count),
            "price": lambda price: f"${price:,.2f}" if price >= 0.1 else f"${price:.4g}",
        }
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _score(score: float | None, digits: int = 4) -> str:
    if score is None:
        return "–"
    if abs(score) >= _LARGEST:
        return show_score(score)
    return f"{score:,.{digits}g}" if abs(score) < 1000 else f"{score:,.0f}"


def _percent(share: float | None) -> str:
    """Return a share in percent, rounded, but never to all or to nothing."""
    if share is None:
        return "–"
    percent = round(share * 100)
    if percent == 100 and share < 1:
        return "> 99%"
    return "< 1%" if percent == 0 and share > 0 else f"{percent}%"


def _signed(change: float, unit: str = "") -> str:
    if abs(change) < _SAME:
        return "unchanged"
    return f"{'▲' if change > 0 else '▼'} {_score(abs(change), 3)}{unit}"


def _when(at: str | None) -> str:
    return _date(at, "%d %b %Y, %H:%M UTC")


def _day(at: str | None) -> str:
    return _date(at, "%d %b")


def _date(at: str | None, form: str) -> str:
    seconds = timestamp(at)
    if seconds is None:
        return one_line(at or "", 40)
    return datetime.fromtimestamp(seconds, UTC).strftime(form).lstrip("0")


def _verdict(verdict: str | None) -> str:
    """Return which of the known kinds a verdict is of, for its colour and its mark."""
    return str(verdict) if verdict in list(Verdict) else _UNKNOWN


def _counts(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    known: list[Any] = [verdict for verdict in Verdict if counts.get(verdict)]
    return [(str(verdict), counts[verdict]) for verdict in known]
