# SPDX-License-Identifier: Apache-2.0
"""Whatever comes back, reading it raises nothing but this provider's own errors."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.api.answers import OTHER, SHEET, TABLE

from airflow_provider_promptlayer.api import cells, reports, scorecards, tables
from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.api.json_reader import MAX_DEPTH
from airflow_provider_promptlayer.api.workflows import (
    WorkflowResults,
    run_workflow,
    workflow_count,
    workflow_results,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerError,
    PromptLayerEvaluationFailedError,
    PromptLayerRunFailedError,
)
from airflow_provider_promptlayer.outcomes import evaluations
from airflow_provider_promptlayer.outcomes.workflows import FailOn, raise_for_outcome

CALLS: list[Call[Any]] = [
    run_workflow("Digest"),
    workflow_results(42),
    workflow_results(42, return_all_outputs=False),
    workflow_count(),
    tables.recalculate_cells(TABLE, SHEET),
    tables.table_operation(TABLE, SHEET, "op"),
    tables.cancel_table_operation(TABLE, SHEET, "op"),
    cells.sheet_operations(TABLE, SHEET),
    scorecards.recalculate_scorecard(TABLE, SHEET),
    scorecards.scorecard_calculation(TABLE, SHEET, OTHER),
    scorecards.cancel_scorecard(TABLE, SHEET),
    scorecards.scorecard(TABLE, SHEET),
    scorecards.scorecard_rows(TABLE, SHEET),
    scorecards.scorecard_row(TABLE, SHEET, 0),
    reports.run_report(5, "n"),
    reports.report(5),
    reports.report_score(5),
]
NASTY = [
    b"",
    b"\xff\xfe",
    b"\x00\x00\x00",
    b"\xef\xbb\xbf{}",
    b'{"output":1,"success":false,"message":' + b"[" * 300 + b"]" * 300 + b"}",
    b"1" * 5000,
    b'{"a": {"status": "FAILED", "error_message": ' + b"1" * 4300 + b"}}",
    b'"\\ud800"',
    b'{"\\ud800": {"status": "\\udfff", "value": NaN}}',
    b'{"message": "\\ud800\\u0000"}',
    b"NaN",
    b"-Infinity",
    b"1e999999",
    b'{"a": {"status": "SUCCESS", "is_output_node": 1}}',
    b"<html>\r\n<body>502 Bad Gateway</body></html>",
]
TOO_DEEP = [b"[" * (2 * MAX_DEPTH), b'{"a":' * (2 * MAX_DEPTH)]
KEYS = st.sampled_from(
    [
        "success",
        "message",
        "output",
        "error",
        "detail",
        "warning",
        "status",
        "items",
        "total",
        "workflow_version_execution_id",
        "loc",
        "msg",
        "value",
        "error_message",
        "is_output_node",
    ]
)
TEXTS = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["SUCCESS", "FAILED", "RUNNING", "QUEUED", "SKIPPED", "\ud800", "\x00", "\x1b[2J", "7"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**4000) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXTS, inner, max_size=4),
    max_leaves=12,
)
NODES = st.dictionaries(
    TEXTS,
    st.fixed_dictionaries(
        {"status": TEXTS},
        optional={
            "value": JSON,
            "error_message": JSON,
            "raw_error_message": JSON,
            "is_output_node": st.sampled_from([True, False, None, 1, "true"]),
        },
    ),
    max_size=4,
)
BODIES = (
    st.sampled_from([*NASTY, *TOO_DEEP])
    | st.binary(max_size=30)
    | (NODES | NODES.map(lambda n: {"success": False, "output": n}) | JSON).map(
        lambda value: json.dumps(value).encode()
    )
)
# Answers of about the right shape: each field may be as it should, or anything.
NUMBERS = st.integers(-1, 3) | st.just(10**4000) | st.floats() | JSON
SUMMARY = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXTS | JSON,
        "verdict": st.sampled_from(["fail", "error", "pass"]) | JSON,
        "score": NUMBERS,
        "evidence": TEXTS | JSON,
        "raw_value": st.fixed_dictionaries({"reasoning": TEXTS | JSON}) | JSON,
        "error": st.fixed_dictionaries({"message": TEXTS | JSON}) | JSON,
        "verdict_counts": st.dictionaries(st.sampled_from(["fail", "error"]), NUMBERS) | JSON,
    },
)
SUMMARIES = (
    st.dictionaries(TEXTS, SUMMARY | JSON, max_size=3) | st.lists(SUMMARY | JSON, max_size=3) | JSON
)
JUDGED: dict[str, Any] = {
    "status": st.sampled_from(["completed", "COMPLETED", "failed", "cancelled", "running"]) | TEXTS,
    "aggregate_score": NUMBERS,
    "aggregate_verdict": st.sampled_from(["fail", "error", "pass"]) | JSON,
    "error_summary": TEXTS | JSON,
    "row_index": st.integers(0, 3) | st.just(10**4000),
    "step_results": SUMMARIES,
}
EVALUATIONS = st.fixed_dictionaries(
    {
        "operation": st.fixed_dictionaries(
            {"operation_id": TEXTS, "status": JUDGED["status"]}
            | dict.fromkeys(
                ("cell_count", "completed_count", "failed_count", "pending_count"), NUMBERS
            )
        ),
        "total_cells": NUMBERS,
        "pending_count": NUMBERS,
        "status_counts": st.dictionaries(st.sampled_from(["COMPLETED", "FAILED", "x"]), NUMBERS),
        "active_operations": st.just([]) | JSON,
        "calculation": st.fixed_dictionaries(
            {"id": st.just(OTHER), "criterion_summaries": SUMMARIES, **JUDGED}
        ),
        "rows": st.lists(st.fixed_dictionaries(JUDGED), max_size=3),
        "stats": st.fixed_dictionaries(
            {"status_counts": st.dictionaries(st.sampled_from(["COMPLETED", "FAILED"]), NUMBERS)}
        ),
        "score": st.fixed_dictionaries({"overall_score": NUMBERS, "details": SUMMARY}),
        "status": JUDGED["status"],
    }
).map(lambda value: json.dumps(value).encode())
STATUSES = st.sampled_from([200, 200, 201, 202, 204, 302, 400, 401, 404, 422, 429, 500, 503]) | (
    st.integers(100, 999)
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "content-type", "location"]),
    st.text(st.characters(), max_size=12)
    | st.floats().map(str)
    | st.integers().map(str)
    | st.datetimes().map(lambda d: d.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    | st.sampled_from(["Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 0001 00:00:00 +2359"]),
    max_size=2,
)


@settings(max_examples=500)
@given(st.sampled_from(CALLS), STATUSES, HEADERS, BODIES)
def test_any_answer(call: Call[Any], status: int, headers: dict[str, str], body: bytes) -> None:
    check(call, Response(status, headers, body))


@settings(max_examples=150)
@given(st.sampled_from(CALLS[4:]), EVALUATIONS)
def test_any_evaluation(call: Call[Any], body: bytes) -> None:
    check(call, Response(200, {}, body))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 400, 404, 422, 500, 503])
@pytest.mark.parametrize("body", NASTY, ids=lambda body: repr(body[:24]))
def test_nasty_answers(status: int, body: bytes) -> None:
    for call in CALLS:
        check(call, Response(status, {}, body))


@pytest.mark.parametrize("status", [200, 400, 422])
@pytest.mark.parametrize("body", TOO_DEEP, ids=["lists", "objects"])
def test_deeper_than_anything_is_read(status: int, body: bytes) -> None:
    for call in CALLS:
        check(call, Response(status, {}, body))


@pytest.mark.parametrize(
    "template",
    [
        '{"a": {"status": "FAILED", "error_message": %s}}',
        '{"a": {"status": "FAILED", "value": %s}}',
        '{"success": false, "output": {}, "message": %s}',
        '{"workflow_version_execution_id": 1, "warning": %s}',
        '{"workflow_version_execution_id": %s}',
        '{"detail": [{"loc": [%s], "msg": "m"}]}',
        '{"detail": [{"loc": ["l"], "msg": %s}]}',
        '{"detail": [%s]}',
    ],
)
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_nesting_as_deep_as_the_parser_takes(template: str, brackets: str) -> None:
    # What the parser just takes must not overflow where it is turned into text.
    answers = [
        (nested(template, brackets, depth), status)
        for depth in depths_around_the_parsers_limit(brackets, step=3)
        for status in (200, 201, 422, 500)
    ]
    # What is read without recursion comes out the same, however far beyond the limit it is.
    answers += [(nested(template, brackets, 5_000), status) for status in (200, 422)]
    for body, status in answers:
        for call in CALLS[:4]:
            check(call, Response(status, {}, body))


@pytest.mark.parametrize(
    "template",
    [
        '{"calculation": {"id": "%s", "status": "completed", "criterion_summaries": {"a": %%s}}}',
        '{"calculation": {"id": "%s", "status": "completed", "drift_summary": {"a": %%s}}}',
        '{"calculation": {"id": "%s", "status": "completed"}, "status": "COMPLETED", "stats": %%s}',
        '{"id": "%s", "row_index": 0, "step_results": {"a": {"evidence": %%s}}}',
        '{"id": "%s", "score": {"details": {"columns": [%%s]}}}',
    ],
)
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_evaluations_as_deep_as_the_parser_takes(template: str, brackets: str) -> None:
    for depth in [*depths_around_the_parsers_limit(brackets, step=9), 5_000]:
        body = nested(template % OTHER, brackets, depth)
        for call in CALLS[4:]:
            check(call, Response(200, {}, body))


def depths_around_the_parsers_limit(brackets: str, step: int) -> range:
    """Return depths of which Python's parser takes most, called from here, and not the last."""
    limit = 1000
    while limit > 500:
        try:
            json.loads(nested("%s", brackets, limit))
        except RecursionError:
            limit -= 1
        else:
            break
    return range(limit - 90, limit + 10, step)


def nested(template: str, brackets: str, depth: int) -> bytes:
    opening = "[" if brackets == "[]" else '{"k":'
    deep = opening * depth + ("1" if brackets == "{}" else "") + brackets[1] * depth
    return (template % deep).encode()


def check(call: Call[Any], response: Response) -> None:
    try:
        result = call.read(response, 1_800_000_000.0)
    except PromptLayerError as error:
        text = str(error)
        assert len(text.splitlines()) == 1
        assert len(text) < 2000
        text.encode()
        return
    if isinstance(result, tables.TableOperation | scorecards.ScorecardCalculation | reports.Report):
        check_evaluation(result)
    if isinstance(result, cells.SheetOperations):
        assert len(result.progress) < 200
        check_failure(evaluations.raise_for_sheet, result, fail_on="any_cell", stale_count=True)
    if isinstance(result, scorecards.ScorecardRow):
        result = scorecards.ScorecardRows(None, (result,), None, {})
    if isinstance(result, scorecards.ScorecardRows):
        check_failure(
            evaluations.raise_for_scorecard,
            scorecards.ScorecardCalculation("c", "completed"),
            rows=evaluations.worst_rows(result.rows),
        )
    if isinstance(result, reports.ReportScore):
        ended = reports.Report(5, "COMPLETED")
        check_failure(evaluations.raise_for_report, ended, result, min_score=50)
    if isinstance(result, WorkflowResults):
        assert len(result.progress.splitlines()) == 1
        result.progress.encode()
        fail_on: FailOn
        for fail_on in ("no_output", "any_node", "never"):
            with contextlib.suppress(PromptLayerRunFailedError):
                raise_for_outcome(result, fail_on)


def check_evaluation(
    ended: tables.TableOperation | scorecards.ScorecardCalculation | reports.Report,
) -> None:
    assert len(ended.progress) < 200
    assert len(ended.progress.splitlines()) == 1
    ended.progress.encode()
    if isinstance(ended, scorecards.ScorecardCalculation):
        check_failure(evaluations.raise_for_scorecard, ended, min_score=0.5)
        return
    raise_for_outcome: Any = (
        evaluations.raise_for_report
        if isinstance(ended, reports.Report)
        else evaluations.raise_for_operation
    )
    for fail_on in ("any_cell", "all_cells", "never"):
        check_failure(raise_for_outcome, ended, fail_on=fail_on)


def check_failure(raise_for_outcome: Any, *arguments: Any, **options: Any) -> None:
    try:
        raise_for_outcome(*arguments, **options)
    except PromptLayerEvaluationFailedError as error:
        text = str(error)
        assert len(text.splitlines()) == 1
        assert len(text) < 20_000
        text.encode()
