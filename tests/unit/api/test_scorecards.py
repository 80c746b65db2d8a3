# SPDX-License-Identifier: Apache-2.0
"""Scorecards: the bytes of a request, and what each answer means."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pytest
from unit.api.answers import NOW, OTHER, SHEET, TABLE, answer, body_of, check_start_rules

from airflow_provider_promptlayer.api.scorecards import (
    CancelledScorecard,
    Scorecard,
    ScorecardCalculation,
    ScorecardRow,
    SheetCalculation,
    cancel_scorecard,
    recalculate_scorecard,
    scorecard,
    scorecard_row,
    scorecard_rows,
)
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerRefusedError,
    PromptLayerUnexpectedAnswerError,
)

WHERE = Sheet(TABLE, SHEET)
PATH = f"/api/public/v2/tables/{TABLE}/sheets/{SHEET}/scorecard"
CALCULATION: dict[str, Any] = {
    "id": OTHER,
    "status": "completed",
    "aggregate_score": 0.9,
    "aggregate_verdict": "pass",
    "criterion_summaries": {"a": {}},
}


def poll(outer: dict[str, Any] | None = None, /, **fields: Any) -> ScorecardCalculation:
    calculation = {**CALCULATION, **fields}
    calculation = {name: value for name, value in calculation.items() if value is not ...}
    body = {
        "success": True,
        "criterion_summaries": None,
        "drift_summary": None,
        **(outer or {}),
        "calculation": calculation,
    }
    return SheetCalculation(TABLE, SHEET, OTHER).fetch_call().read(answer(200, body), NOW)


def test_the_last_scored_calculation() -> None:
    def last(latest: Any, displayed: Any) -> Any:
        card = {"id": OTHER, "status": "completed", "name": "Quality"}
        calculations = {"latest_calculation": latest, "display_calculation": displayed}
        body = {"success": True, "scorecard": card, **calculations}
        found = scorecard(WHERE).read(answer(200, body), NOW)
        return found and found.last_scored and found.last_scored.config_hash

    ours, theirs = ({**CALCULATION, "config_hash": name} for name in ("ours", "theirs"))
    assert last(ours, theirs) == "ours"
    for without in (None, {**ours, "status": "running"}, {**ours, "aggregate_score": None}):
        assert last(without, theirs) == "theirs"
        assert last(without, None) is last(without, {}) is last(without, "?") is None


def test_a_start() -> None:
    call = recalculate_scorecard(TABLE, SHEET)
    assert (call.request.method, call.request.path) == ("POST", f"{PATH}/recalculate")
    assert body_of(call) == {}
    call = recalculate_scorecard(TABLE, SHEET, row_indices="[0, 2]", step_ids=[OTHER.upper()])
    assert body_of(call) == {"row_indices": [0, 2], "step_ids": [OTHER]}
    body = {"success": True, "calculation_id": OTHER.upper(), "status": "queued", "version": 3}
    assert call.read(answer(202, body), NOW) == OTHER


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"row_indices": [-1]}, r"row_indices\[0\] must be a row number"),
        ({"step_ids": "[]"}, "step_ids is empty"),
    ],
)
def test_an_invalid_selection(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=named):
        recalculate_scorecard(TABLE, SHEET, **arguments)
    with pytest.raises(PromptLayerInvalidInputError, match=named):
        cancel_scorecard(WHERE, **arguments)


def test_what_leaves_open_whether_it_was_queued() -> None:
    readable = {"calculation_id": OTHER, "status": "queued"}
    check_start_rules(recalculate_scorecard(TABLE, SHEET), "calculation_id", readable)


def test_a_sheet_without_a_scorecard() -> None:
    call = recalculate_scorecard(TABLE, SHEET)
    with pytest.raises(PromptLayerRefusedError, match=r"Scorecard is not configured.*set one up"):
        call.read(answer(400, {"message": "Scorecard is not configured"}), NOW)
    body = {"success": True, "scorecard": None, "latest_calculation": None}
    assert scorecard(WHERE).read(answer(200, body), NOW) is None


def test_a_poll() -> None:
    call = SheetCalculation(TABLE, SHEET, OTHER).fetch_call()
    assert (call.request.method, call.request.path) == ("GET", f"{PATH}/calculations/{OTHER}")
    calculation = poll()
    assert calculation.is_complete
    assert calculation.progress == "completed, verdict pass, score 0.9"
    with pytest.raises(PromptLayerInvalidInputError, match="calculation_id must be a UUID"):
        SheetCalculation(TABLE, SHEET, "latest").fetch_call()


def test_when_it_has_ended() -> None:
    for status in ("completed", "failed", "cancelled", "exploded"):
        assert poll(status=status).is_complete
    for status in ("queued", "running"):
        assert not poll(status=status).is_complete
        # The score and the verdict may be those of an earlier calculation.
        assert poll(status=status).progress == status


def test_what_may_be_null_or_missing() -> None:
    for nothing in (None, ...):
        calculation = poll(
            aggregate_score=nothing, aggregate_verdict=nothing, criterion_summaries=nothing
        )
        assert (calculation.score, calculation.verdict) == (None, None)
        assert calculation.criterion_summaries == {}
        assert calculation.drift_summary is None
        assert calculation.progress == "completed"
    for score in (float("nan"), float("inf"), float("-inf")):
        assert poll(aggregate_score=score).score is None


@pytest.mark.parametrize(
    ("found", "expected"), [("7", "7"), (7, "7"), (None, None), (..., None), ({}, None)], ids=str
)
def test_the_revision_of_the_sheet(found: Any, expected: str | None) -> None:
    assert poll(sheet_revision=found).sheet_revision == expected


def test_the_outer_summaries_count_where_they_are() -> None:
    calculation = poll(
        {"criterion_summaries": {"b": 1}, "drift_summary": {"d": 2}}, drift_summary={"e": 3}
    )
    assert calculation.criterion_summaries == {"b": 1}
    assert calculation.drift_summary == {"d": 2}
    assert poll(drift_summary={"e": 3}).drift_summary == {"e": 3}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", ["x", ...]),
        ("status", [None, ""]),
        ("aggregate_score", ["0.9", True]),
        ("aggregate_verdict", [1]),
    ],
)
def test_an_answer_of_another_shape(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(PromptLayerUnexpectedAnswerError, match=f"has (no|a) {name}"):
            poll(**{name: value})


@pytest.mark.parametrize("value", [[], ["a"], [{"a": 1}], {"a": [1]}, "a", 5, True])
def test_what_decides_nothing_is_taken_as_it_comes(value: Any) -> None:
    names = ("criterion_summaries", "drift_summary", "error_summary")
    calculation = poll(**dict.fromkeys(names, value))
    assert calculation.criterion_summaries == (value or {})
    assert calculation.drift_summary == calculation.error_summary == value
    assert calculation.progress == "completed, verdict pass, score 0.9"
    body = {"row_index": 3, "step_results": value, "error_summary": value, "aggregate_score": value}
    row = scorecard_row(WHERE, 3).read(answer(200, body), NOW)
    assert (row.step_results, row.error_summary) == (value or {}, value)
    cancelled = {"cancelled_count": 1, "calculation_id": value, "message": value}
    assert cancel_scorecard(WHERE).read(answer(200, cancelled), NOW).cancelled_count == 1
    card = {"id": TABLE, "status": "ready", "name": value, "steps": value}
    body = {"scorecard": card, "latest_calculation": CALCULATION, "progress": value}
    found = scorecard(WHERE).read(answer(200, body), NOW)
    assert found is not None
    assert found.latest is not None
    assert found.latest.calculation_id == OTHER


def test_progress_is_one_line_whatever_comes() -> None:
    calculation = poll(
        status="do\nne\x1b[2J" * 100, aggregate_verdict="x\n" * 1000, aggregate_score=10**400
    )
    assert calculation.progress.isprintable()
    assert len(calculation.progress) < 200


def test_cancelling_says_what_was_cancelled() -> None:
    call = cancel_scorecard(WHERE)
    assert (call.request.method, call.request.path) == ("POST", f"{PATH}/cancel")
    assert body_of(call) == {}
    body = {"message": "ok", "cancelled_count": 2, "calculation_id": None}
    assert call.read(answer(200, body), NOW) == CancelledScorecard(2, None, "ok")
    with pytest.raises(PromptLayerRefusedError, match="set one up"):
        call.read(answer(400, {"message": "no"}), NOW)


def test_the_scorecard() -> None:
    call = scorecard(WHERE)
    assert (call.request.method, call.request.path) == ("GET", PATH)
    body = {
        "scorecard": {
            "id": TABLE,
            "name": "Quality",
            "status": "running",
            "steps": [{"id": OTHER, "title": "Polite"}, {"id": None, "title": "New"}],
        },
        "latest_calculation": {**CALCULATION, "status": "running"},
        "progress": {"scored_rows": 3, "total_rows": 9},
    }
    assert call.read(answer(200, body), NOW) == Scorecard(
        TABLE,
        "Quality",
        "running",
        {OTHER: "Polite"},
        ScorecardCalculation(OTHER, "running", 0.9, "pass", {"a": {}}),
        3,
        9,
    )


def test_a_page_of_rows() -> None:
    call = scorecard_rows(WHERE, calculation_id=OTHER, verdict="fail", cursor=4, limit=2)
    path, _, query = call.request.path.partition("?")
    assert path == f"{PATH}/rows"
    assert parse_qs(query) == {
        "calculation_id": [OTHER],
        "verdict": ["fail"],
        "cursor": ["4"],
        "limit": ["2"],
    }
    row = {"row_index": 5, "aggregate_score": None, "aggregate_verdict": "fail"}
    body = {
        "calculation_id": OTHER,
        "rows": [{**row, "error_summary": "why"}],
        "next_cursor": 5,
        "verdict_counts": {"fail": 9, "pass": None},
    }
    page = call.read(answer(200, body), NOW)
    assert page.rows == (ScorecardRow(5, None, "fail", "why"),)
    assert (page.next_cursor, page.verdict_counts) == (5, {"fail": 9})
    for given, following in ((None, None), ("5", 5)):  # a text in PromptLayer's own library
        last = call.read(answer(200, {"rows": [], "next_cursor": given}), NOW)
        assert (last.rows, last.next_cursor, last.verdict_counts) == ((), following, {})


@pytest.mark.parametrize("following", [4, 3, -1, "3", "next", 5.5])
def test_a_cursor_that_leads_nowhere(following: Any) -> None:
    call = scorecard_rows(WHERE, cursor=4)
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="next_cursor"):
        call.read(answer(200, {"rows": [], "next_cursor": following}), NOW)


def test_one_row() -> None:
    call = scorecard_row(WHERE, 0, calculation_id=OTHER)
    assert call.request.path == f"{PATH}/rows/0?calculation_id={OTHER}"
    row = {"row_index": 0, "aggregate_score": 1, "step_results": {"s": {"verdict": "pass"}}}
    found = call.read(answer(200, row), NOW)
    assert found.step_results == {"s": {"verdict": "pass"}}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"limit": 0}, "limit must be a positive"),
        ({"limit": 101}, "limit must be 1 to 100"),
        ({"cursor": -1}, "cursor must be a row number"),
        ({"verdict": "bad"}, "verdict must be one of 'pass', 'warn', "),
        ({"verdict": ""}, "verdict must be one of"),
        ({"calculation_id": "x"}, "calculation_id must be a UUID"),
        ({"calculation_id": ""}, "calculation_id must be a UUID"),
    ],
)
def test_an_invalid_page(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=named):
        scorecard_rows(WHERE, **arguments)
