# SPDX-License-Identifier: Apache-2.0
"""Which outcome of an evaluation is a success."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_promptlayer.api.arguments import NOTSET
from airflow_provider_promptlayer.api.cells import SheetOperations
from airflow_provider_promptlayer.api.reports import Report, ReportScore
from airflow_provider_promptlayer.api.scorecards import (
    Scorecard,
    ScorecardCalculation,
    ScorecardRow,
)
from airflow_provider_promptlayer.api.tables import TableOperation
from airflow_provider_promptlayer.exceptions import (
    PromptLayerEvaluationFailedError,
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.outcomes import evaluations


def passes(raise_for_outcome: Callable[..., None], *arguments: Any, **options: Any) -> bool:
    try:
        raise_for_outcome(*arguments, **options)
    except PromptLayerEvaluationFailedError:
        return False
    return True


def text_of(raise_for_outcome: Callable[..., None], *arguments: Any, **options: Any) -> str:
    with pytest.raises(PromptLayerEvaluationFailedError) as caught:
        raise_for_outcome(*arguments, **options)
    assert caught.value.outcome is arguments[0]
    assert not caught.value.retry_helps
    return str(caught.value)


FAIL_ON = ("any_cell", "all_cells", "never")


def passing(raise_for_outcome: Callable[..., None], outcome: Any) -> tuple[bool, ...]:
    """Return whether an outcome passes with each ``fail_on``."""
    return tuple(passes(raise_for_outcome, outcome, fail_on=fail_on) for fail_on in FAIL_ON)


# Operations


@pytest.mark.parametrize(
    ("status", "counts", "expected"),
    [
        ("completed", (3, 0, 0), (True, True, True)),
        ("running", (3, 0, 0), (True, True, True)),
        ("completed", (2, 1, 0), (False, True, True)),
        ("running", (2, 1, 0), (False, True, True)),
        ("failed", (2, 1, 0), (False, True, True)),  # the same, polled later
        ("failed", (1, 1, 0), (False, False, False)),  # one is nowhere
        ("completed", (0, 3, 0), (False, False, True)),
        ("completed", (2, 0, 1), (False, True, True)),
        ("completed", (0, 0, 3), (False, False, True)),
        ("completed", (2, 0, 0), (False, True, True)),  # one is nowhere
        ("completed", (0, 0, 0), (False, False, True)),
        ("failed", (3, 0, 0), (False, False, True)),
        ("failed", (0, 3, 0), (False, False, True)),
        ("failed", (0, 0, 3), (False, False, False)),
        ("cancelled", (3, 0, 0), (False, False, False)),
        ("Canceled", (0, 0, 3), (False, False, False)),
    ],
)
def test_cells(
    status: str, counts: tuple[int, int, int], expected: tuple[bool, bool, bool]
) -> None:
    """Of three cells, so many have a value, have failed and are pending."""
    operation = TableOperation("op", status, 3, *counts)
    assert passing(evaluations.raise_for_operation, operation) == expected


def test_an_operation_says_how_many() -> None:
    operation = TableOperation("op", "completed", 3, 2, 1, 0)
    assert text_of(evaluations.raise_for_operation, operation, "any_cell") == (
        "Table operation op has failed: cells failed (3 of 3 cells done, 1 failed)."
    )


def sheet(pending: int = 0, **counts: int) -> SheetOperations:
    return SheetOperations(sum(counts.values()), pending, counts, ())


@pytest.mark.parametrize(
    ("counts", "strictly", "never"),
    [
        ({}, True, True),
        ({"COMPLETED": 3}, True, True),
        ({"COMPLETED": 2, "FAILED": 1}, False, True),  # the two may hold text
        ({"FAILED": 3}, False, True),
        ({"COMPLETED": 2, "STALE": 1}, True, True),
        ({"COMPLETED": 2, "new word": 1}, False, True),
        ({"COMPLETED": 2, "CANCELLED": 1}, False, False),
        ({"COMPLETED": 2, "RUNNING": 1}, False, False),
        ({"COMPLETED": 3, "pending": 1}, False, False),
    ],
)
def test_a_sheet_of_which_nothing_was_left_to_start(
    counts: dict[str, int], strictly: bool, never: bool
) -> None:
    found = passing(evaluations.raise_for_sheet, sheet(**counts))
    assert found == (strictly, strictly, never)


@pytest.mark.parametrize("fail_on", FAIL_ON)
def test_stale_cells_are_a_failure_where_another_operation_has_left_them(fail_on: str) -> None:
    left = sheet(COMPLETED=2, STALE=1)
    said = text_of(evaluations.raise_for_sheet, left, fail_on, stale_count=True)
    assert "1 were left by what had begun to calculate them" in said


def test_a_sheet_says_how_many() -> None:
    assert text_of(evaluations.raise_for_sheet, sheet(COMPLETED=2, FAILED=1), "any_cell") == (
        "No cell of the selection was left to start, and on the sheet cells failed "
        "(3 of 3 cells done, 1 failed). "
        "statuses=['STALE', 'FAILED'] calculates those again that have failed."
    )
    said = text_of(evaluations.raise_for_sheet, sheet(COMPLETED=2, CANCELLED=1), "never")
    assert "1 were cancelled (2 of 3 cells done). statuses=[] calculates all" in said


@pytest.mark.parametrize("fail_on", ["", "any_node", None, ["never"], "NEVER"])
def test_an_unknown_fail_on(fail_on: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="'any_cell', 'all_cells', 'never'"):
        evaluations.check_fail_on_cells(fail_on)


# Scorecards


def calculation(
    verdict: str | None = "pass", score: float | None = 0.9, status: str = "completed", **more: Any
) -> ScorecardCalculation:
    return ScorecardCalculation("c", status, score, verdict, **more)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("pass", True),
        ("warn", True),
        ("skipped", True),
        ("fail", False),
        ("error", False),
        (None, False),
        ("PASS", False),
        ("inconclusive", False),
    ],
)
def test_verdicts(verdict: str | None, expected: bool) -> None:
    assert passes(evaluations.raise_for_scorecard, calculation(verdict)) is expected
    assert passes(evaluations.raise_for_scorecard, calculation(verdict), fail_on_verdict=()) is True


def test_other_verdicts_to_fail_on() -> None:
    for verdict in ("warn", "skipped", "fail"):
        found = passes(
            evaluations.raise_for_scorecard,
            calculation(verdict),
            fail_on_verdict=("warn", "skipped"),
        )
        assert found is (verdict == "fail")


@pytest.mark.parametrize(
    ("score", "problem"),
    [
        (0.8, ""),
        (1, ""),
        (0.79999999, "the score 0.79999999 is below min_score=0.8"),
        (None, "there is no score to reach min_score=0.8"),
        (-1e9, "the score -1000000000 is below min_score=0.8"),
    ],
)
def test_min_score(score: float | None, problem: str) -> None:
    found = evaluations.scorecard_problems(calculation(score=score), min_score=0.8)
    assert found == ((problem,) if problem else ())
    assert passes(evaluations.raise_for_scorecard, calculation(score=score))


@pytest.mark.parametrize("status", ["failed", "cancelled", "exploded", "queued", "running"])
def test_what_has_not_completed_never_passes(status: str) -> None:
    ended = calculation(status=status)
    assert not passes(evaluations.raise_for_scorecard, ended, fail_on_verdict=())
    assert status in text_of(evaluations.raise_for_scorecard, ended)


def test_failing_criteria_are_named_and_no_other() -> None:
    ended = calculation(
        "fail",
        0.4,
        error_summary="two of four",
        criterion_summaries={
            "s1": {"verdict": "fail", "score": 0.25, "evidence": "no\nsource"},
            "s2": {"aggregate_verdict": "error", "error_summary": "boom"},
            "s3": {"title": "By count", "verdict_counts": {"fail": 2, "pass": 1}},
            "s4": {"title": "Fine", "verdict": "pass", "evidence": "private"},
            "s5": {"title": "Also fine", "verdict_counts": {"fail": 0}},
            "s6": "fail",
            "s7": ["strange"],
            "s8": None,
        },
    )
    card = Scorecard("x", "Card", "completed", {"s1": "Cites", "s2": "Polite"}, None)
    assert text_of(evaluations.raise_for_scorecard, ended, min_score=0.5, scorecard=card) == (
        "Scorecard calculation c does not pass: the verdict is 'fail', the score 0.4 is below "
        "min_score=0.5. PromptLayer says: two of four. Failing criteria: 'Cites' (fail, 0.25): "
        "no source; 'Polite' (error): boom; 'By count'; 's6' (fail)."
    )


def test_worst_rows_are_errors_and_low_scores_first() -> None:
    rows = [
        ScorecardRow(0, -0.2, "fail"),
        ScorecardRow(1, None, "fail"),
        ScorecardRow(2, 0.9, "error"),
        ScorecardRow(3, 0.1, "warn"),
        ScorecardRow(4, 0.0, None),
        ScorecardRow(5, 0.0, "strange"),
        ScorecardRow(6, 0.2, "fail"),
    ]
    assert [row.row_index for row in evaluations.worst_rows(iter(rows), 9)] == [2, 1, 0, 6, 3, 4, 5]
    assert [row.row_index for row in evaluations.worst_rows(iter(rows), 2)] == [2, 1]


def test_rows_have_reasons() -> None:
    row = ScorecardRow(
        7,
        0.1,
        "fail",
        "broken",
        {
            "s1": {"verdict": "fail", "evidence": "no link"},
            "s2": {"verdict": "pass", "evidence": "private"},
            "s3": {"verdict": "error", "error_message": "timeout"},
        },
    )
    ended = calculation("fail")
    with pytest.raises(PromptLayerEvaluationFailedError) as caught:
        evaluations.raise_for_scorecard(ended, rows=[row, ScorecardRow(1_234_567, None, None)])
    assert str(caught.value).endswith(
        "Worst rows: row 7 (fail, 0.1): broken, 's1': no link, 's3': timeout; row 1234567."
    )
    assert caught.value.rows == (row, ScorecardRow(1_234_567, None, None))
    assert caught.value.score == 0.9


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"evidence": "no link"}, "no link"),
        ({"evidence": ["no link", {"text": "no name"}, 3]}, "no link; no name"),
        ({"evidence": {"reasoning": "no link"}}, "no link"),
        ({"evidence": " ", "error_message": "timeout"}, "timeout"),
        ({"raw_value": {"reasoning": "no link", "value": False}}, "no link"),
        ({"raw_value": "no", "error": "timeout"}, "timeout"),
        ({"error": {"message": "timeout", "code": 4}}, "timeout"),
        ({"error": {"error": {"detail": "timeout"}}}, "timeout"),
        ({"error": {"code": 4}}, "{'code': 4}"),
        # Words tell more than an object of unknown fields.
        ({"evidence": {"row": 4}, "raw_value": {"reasoning": "no link"}}, "no link"),
        ({"evidence": None, "error": {}, "error_message": "", "raw_value": []}, None),
    ],
)
@pytest.mark.parametrize("in_a_list", [False, True], ids=["by id", "in a list"])
def test_where_a_reason_may_be(result: dict[str, Any], reason: str | None, in_a_list: bool) -> None:
    step = {"verdict": "fail", "score": None, **result}
    results: Any = [{"step_id": "s1", **step}] if in_a_list else {"s1": step}
    card = Scorecard("x", "Card", "completed", {"s1": "Cites"}, None)
    row = ScorecardRow(7, None, "fail", None, results)
    ended = calculation("fail", criterion_summaries=results)
    text = text_of(evaluations.raise_for_scorecard, ended, scorecard=card, rows=[row])
    said = f": {reason}" if reason else ""
    assert f"Failing criteria: 'Cites' (fail){said}. Worst rows: row 7 (fail)" in text
    assert text.endswith(f"row 7 (fail): 'Cites'{said}." if reason else "row 7 (fail).")


def test_a_step_with_an_error_and_no_verdict_fails() -> None:
    results = [{"name": "Cites", "error": "timeout"}, {"name": "Polite", "error": None}, 5, None]
    row = ScorecardRow(7, None, "error", {"message": "1 step"}, results)
    text = text_of(evaluations.raise_for_scorecard, calculation("error"), rows=[row])
    assert text.endswith("row 7 (error): 1 step, 'Cites': timeout.")


def test_a_message_is_one_line_and_cut() -> None:
    nasty = "a\nb\x1b[2J\u202e" * 10_000
    summary = {"verdict": "fail", "score": 10**4000, "evidence": {nasty: nasty}, "title": nasty}
    text = text_of(
        evaluations.raise_for_scorecard,
        calculation(
            "fail",
            10**400,
            error_summary=nasty,
            criterion_summaries={f"{nasty}{i}": summary for i in range(40)},
        ),
        rows=[ScorecardRow(10**300, -(10**400), nasty, nasty, {nasty: summary})] * 40,
    )
    assert text.isprintable()
    assert len(text) < 12_000
    assert "and 30 more" in text


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ([], ()),
        ((), ()),
        ("fail", ("fail",)),
        (("warn", "fail"), ("warn", "fail")),
        ('["error"]', ("error",)),
    ],
)
def test_verdicts_to_fail_on(given: Any, taken: tuple[str, ...]) -> None:
    assert evaluations.check_fail_on_verdict(given) == taken


@pytest.mark.parametrize(
    "given", [None, "failed", ["bad"], 5, [None], ["FAIL"], [["fail"]], "fail,error", "['fail']"]
)
def test_invalid_verdicts_to_fail_on(given: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="fail_on_verdict must be"):
        evaluations.check_fail_on_verdict(given)


def test_a_score_to_reach() -> None:
    assert evaluations.check_min_score(NOTSET) is None
    assert evaluations.check_min_score("87.5") == 87.5
    assert evaluations.check_min_score(0) == 0
    assert evaluations.check_min_score(1000, highest=math.inf) == 1000
    with pytest.raises(PromptLayerInvalidInputError, match=r"not None.*leave min_score out"):
        evaluations.check_min_score(None)
    for bad in (-1, 100.1, math.nan, math.inf, "x", "nan", "None", "", True, [1]):
        with pytest.raises(PromptLayerInvalidInputError, match="min_score must be a number from 0"):
            evaluations.check_min_score(bad)


# Reports


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"COMPLETED": 3}, (True, True, True)),
        ({"COMPLETED": 2, "FAILED": 1}, (False, True, True)),
        ({"FAILED": 3}, (False, False, True)),
        ({"COMPLETED": 2, "SKIPPED": 1}, (False, True, True)),
        ({"COMPLETED": 0, "EXPLODED": 3}, (False, False, True)),
        ({}, (True, True, True)),
    ],
)
def test_cells_of_a_report(counts: dict[str, int], expected: tuple[bool, bool, bool]) -> None:
    report = Report(5, "COMPLETED", status_counts=counts)
    assert passing(evaluations.raise_for_report, report) == expected
    assert not passes(evaluations.raise_for_report, Report(5, "EXPLODED", status_counts=counts))


def test_a_report_below_its_score() -> None:
    report = Report(5, "COMPLETED", status_counts={"COMPLETED": 3})
    columns = {"columns": [{"column_name": "Polite", "score": 50}, {"column_name": "Cites"}, 1]}
    score = ReportScore(50.0, "multi_column", False, columns)
    assert passes(evaluations.raise_for_report, report, score, min_score=50)
    assert text_of(evaluations.raise_for_report, report, score, min_score=70) == (
        "Report 5 does not pass: the score 50 is below min_score=70 (3 of 3 cells done). "
        "Scores of columns: 'Polite' 50; 'Cites' none."
    )


def test_a_report_without_the_score_that_it_needs() -> None:
    report = Report(5, "COMPLETED", score_calculation_error="no column")
    for score in (None, ReportScore(None, "none", False)):
        text = text_of(evaluations.raise_for_report, report, score, min_score=0)
        assert "there is no score to reach min_score=0" in text
        assert "PromptLayer says: no column" in text
