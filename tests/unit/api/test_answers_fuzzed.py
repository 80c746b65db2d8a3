# SPDX-License-Identifier: Apache-2.0
"""Whatever is answered, reading it raises only this provider's own errors."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, cast, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.api.answers import OTHER, SHEET, TABLE

from airflow_provider_promptlayer.api import cells, imports, reports, scorecards, tables, versions
from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.api.json_reader import MAX_DEPTH
from airflow_provider_promptlayer.api.usage import Usage
from airflow_provider_promptlayer.api.workflows import (
    WorkflowResults,
    WorkflowRun,
    run_workflow,
    workflow_count,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerError,
    PromptLayerEvaluationFailedError,
    PromptLayerRunFailedError,
)
from airflow_provider_promptlayer.outcomes import evaluations
from airflow_provider_promptlayer.outcomes.baseline import Baseline, DropGate
from airflow_provider_promptlayer.outcomes.workflows import FailOn, raise_for_outcome

WHERE = tables.Sheet(TABLE, SHEET)
NEW_SHEET = imports.ImportOrder(
    TABLE, imports.ImportSource("request_logs", {}, "digest"), "op", title="new"
)
CALLS: list[Call[Any]] = [
    run_workflow("Digest"),
    WorkflowRun(42).results_call(),
    WorkflowRun(42).results_call(return_all_outputs=False),
    workflow_count(),
    imports.SheetImport(TABLE, SHEET, "op").fetch_call(),
    NEW_SHEET.find_call(),
    NEW_SHEET.start_call(),
    cast("Call[Any]", next(NEW_SHEET.find_sheet(None))),
    tables.recalculate_cells(TABLE, SHEET),
    tables.SheetOperation(TABLE, SHEET, "op").fetch_call(),
    tables.SheetOperation(TABLE, SHEET, "op").cancel_call(),
    cells.SheetCells(TABLE, SHEET).fetch_call(),
    scorecards.recalculate_scorecard(TABLE, SHEET),
    scorecards.SheetCalculation(TABLE, SHEET, OTHER).fetch_call(),
    scorecards.cancel_scorecard(WHERE),
    scorecards.scorecard(WHERE),
    scorecards.scorecard_rows(WHERE),
    scorecards.scorecard_row(WHERE, 0),
    versions.list_versions(WHERE),
    versions.version_of(WHERE, OTHER),
    versions.create_version(WHERE, "n"),
    versions.score_history(WHERE),
    reports.run_report(5, "n"),
    reports.FinalReport(5).fetch_call(),
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
        *("success", "message", "output", "error", "detail", "warning", "status", "items", "total"),
        *("loc", "msg", "value", "error_message", "is_output_node"),
        "workflow_version_execution_id",
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
VERSION = st.fixed_dictionaries(
    {"id": st.just(OTHER), "version_number": NUMBERS},
    optional={
        "name": TEXTS | JSON,
        "created_at": TEXTS | JSON,
        "score": NUMBERS | st.dictionaries(st.sampled_from(["aggregate_score", "score"]), NUMBERS),
        "config_hash": TEXTS | JSON,
    },
)
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
        "data": st.lists(VERSION, max_size=2),
        "version": VERSION,
        "score_history": st.fixed_dictionaries({"points": st.lists(VERSION, max_size=2)}),
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


@settings(max_examples=400)
@given(st.sampled_from(CALLS), STATUSES, HEADERS, BODIES)
def test_any_answer(call: Call[Any], status: int, headers: dict[str, str], body: bytes) -> None:
    check(call, Response(status, headers, body))


@settings(max_examples=100)
@given(st.sampled_from(CALLS[4:]), EVALUATIONS)
def test_any_evaluation(call: Call[Any], body: bytes) -> None:
    check(call, Response(200, {}, body))


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["price", "input_tokens", "output_tokens", "request_ids"]),
            NUMBERS | st.lists(NUMBERS),
        )
    )
)
def test_any_usage(cells_metrics: list[dict[str, Any]]) -> None:
    usage = Usage()
    for metrics in cells_metrics:
        usage.add(Fields(metrics))
    is_line(str(usage), 200)
    assert usage.price is None or 0 <= usage.price < math.inf


@pytest.mark.parametrize("body", NASTY, ids=lambda body: repr(body[:24]))
def test_nasty_answers(body: bytes) -> None:
    for status in (200, 201, 202, 204, 400, 404, 422, 500, 503):
        for call in CALLS:
            check(call, Response(status, {}, body))


@pytest.mark.parametrize("body", TOO_DEEP, ids=["lists", "objects"])
def test_deeper_than_anything_is_read(body: bytes) -> None:
    for call in CALLS[:5]:  # read in five ways; the others are read as the last two
        for status in (200, 422):
            check(call, Response(status, {}, body))


RUN, POLL = run_workflow("Digest"), WorkflowRun(42).results_call()
CALCULATION = scorecards.SheetCalculation(TABLE, SHEET, OTHER).fetch_call()


@pytest.mark.parametrize(
    ("call", "statuses", "template"),
    [
        (POLL, [200], '{"a": {"status": "FAILED", "error_message": %s}}'),
        (POLL, [200], '{"a": {"status": "FAILED", "value": %s}}'),
        (POLL, [500], '{"success": false, "output": {}, "message": %s}'),
        (RUN, [201], '{"workflow_version_execution_id": 1, "warning": %s}'),
        (RUN, [201, 422], '{"workflow_version_execution_id": %s}'),
        (POLL, [422], '{"detail": [{"loc": [%s], "msg": "m"}]}'),
        (POLL, [422], '{"detail": [{"loc": ["l"], "msg": %s}]}'),
        (POLL, [422], '{"detail": [%s]}'),
        *(
            (CALCULATION, [200], f'{{"calculation": {{"id": "{OTHER}", "status": "failed", {x}}}}}')
            for x in ('"criterion_summaries": {"a": %s}', '"drift_summary": {"a": %s}')
        ),
        (reports.FinalReport(5).fetch_call(), [200], '{"status": "COMPLETED", "stats": %s}'),
        (
            scorecards.scorecard_row(WHERE, 0),
            [200],
            '{"row_index": 0, "step_results": {"a": {"evidence": %s}}}',
        ),
        (reports.report_score(5), [200], '{"score": {"details": {"columns": [%s]}}}'),
    ],
)
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_nesting_as_deep_as_the_parser_takes(
    call: Call[Any], statuses: list[int], template: str, brackets: str
) -> None:
    """What the parser just takes must not overflow where it is turned into text.

    What is read without recursion is read alike, however far beyond the limit it is.
    """
    for depth in (*depths_around_the_parsers_limit(brackets), 5_000):
        for status in statuses:
            check(call, Response(status, {}, nested(template, brackets, depth)))


def depths_around_the_parsers_limit(brackets: str) -> range:
    """Return depths of which Python's parser takes most, called from here, and not the last."""
    limit = 1000
    while limit > 500:
        try:
            json.loads(nested("%s", brackets, limit))
        except RecursionError:
            limit -= 1
        else:
            break
    return range(limit - 60, limit + 4, 2)


def nested(template: str, brackets: str, depth: int) -> bytes:
    opening = "[" if brackets == "[]" else '{"k":'
    deep = opening * depth + ("1" if brackets == "{}" else "") + brackets[1] * depth
    return (template % deep).encode()


def check(call: Call[Any], response: Response) -> None:
    try:
        result = call.read(response, 1_800_000_000.0)
    except PromptLayerError as error:
        is_line(str(error), 2000)
        return
    if hasattr(result, "progress"):
        is_line(result.progress, 2000 if isinstance(result, WorkflowResults) else 200)
    ended_card = scorecards.ScorecardCalculation("c", "completed")
    match result:
        case WorkflowResults():
            for fail_on in get_args(FailOn):
                check_failure(raise_for_outcome, result, fail_on=fail_on)
        case tables.TableOperation():
            for fail_on in get_args(evaluations.FailOnCells):
                check_failure(evaluations.raise_for_operation, result, fail_on=fail_on)
        case reports.Report():
            for fail_on in get_args(evaluations.FailOnCells):
                check_failure(evaluations.raise_for_report, result, fail_on=fail_on)
        case reports.ReportScore():
            ended = reports.Report(5, "COMPLETED")
            check_failure(evaluations.raise_for_report, ended, result, min_score=50)
        case cells.SheetOperations():
            check_failure(evaluations.raise_for_sheet, result, fail_on="any_cell", stale_count=True)
        case scorecards.ScorecardCalculation():
            check_failure(evaluations.raise_for_scorecard, result, min_score=0.5)
        case versions.SheetVersion():
            is_line(str(result), 200)
            if result.score is not None:
                card = replace(ended_card, score=0.5, config_hash="a")
                earlier = Baseline(result.score, str(result), result.config_hash)
                found = DropGate(0.1).compare(card, earlier)
                is_line(f"{found.problem}. {found.note}", 600)
        case scorecards.ScorecardRows() | scorecards.ScorecardRow():
            rows = result.rows if isinstance(result, scorecards.ScorecardRows) else [result]
            worst = evaluations.worst_rows(rows)
            check_failure(evaluations.raise_for_scorecard, ended_card, rows=worst)


def check_failure(raise_for_outcome: Any, *arguments: Any, **options: Any) -> None:
    try:
        raise_for_outcome(*arguments, **options)
    except (PromptLayerEvaluationFailedError, PromptLayerRunFailedError) as error:
        is_line(str(error), 20_000)


def is_line(text: str, longest: int) -> None:
    assert len(text.splitlines()) == 1
    assert len(text) < longest
    text.encode()
