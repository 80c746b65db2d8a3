# SPDX-License-Identifier: Apache-2.0
"""Whatever comes back, reading it raises nothing but this provider's own errors."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_promptlayer.api.endings import FailOn, judge
from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.api.workflows import (
    WorkflowResults,
    run_workflow,
    workflow_count,
    workflow_results,
)
from airflow_provider_promptlayer.exceptions import PromptLayerError, PromptLayerRunFailedError

CALLS: list[Call[Any]] = [
    run_workflow("Digest"),
    workflow_results(42),
    workflow_results(42, return_all_outputs=False),
    workflow_count(),
]
NASTY = [
    b"",
    b"\xff\xfe",
    b"\x00\x00\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
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
    st.sampled_from(NASTY)
    | st.binary(max_size=30)
    | (NODES | NODES.map(lambda n: {"success": False, "output": n}) | JSON).map(
        lambda value: json.dumps(value).encode()
    )
)
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


@settings(max_examples=500, deadline=None, database=None)
@given(st.sampled_from(CALLS), STATUSES, HEADERS, BODIES)
def test_any_answer(call: Call[Any], status: int, headers: dict[str, str], body: bytes) -> None:
    check(call, Response(status, headers, body))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 400, 404, 422, 500, 503])
@pytest.mark.parametrize("body", NASTY, ids=lambda body: repr(body[:24]))
def test_nasty_answers(status: int, body: bytes) -> None:
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
    opening = "[" if brackets == "[]" else '{"k":'
    for depth in [*range(700, 1010, 3), 5_000]:
        deep = opening * depth + ("1" if brackets == "{}" else "") + brackets[1] * depth
        body = (template % deep).encode()
        for status in (200, 201, 422, 500):
            for call in CALLS:
                check(call, Response(status, {}, body))


def check(call: Call[Any], response: Response) -> None:
    try:
        result = call.read(response, 1_800_000_000.0)
    except PromptLayerError as error:
        text = str(error)
        assert len(text.splitlines()) == 1
        assert len(text) < 2000
        text.encode()
        return
    if isinstance(result, WorkflowResults):
        assert len(result.progress.splitlines()) == 1
        result.progress.encode()
        fail_on: FailOn
        for fail_on in ("no_output", "any_node", "never"):
            with contextlib.suppress(PromptLayerRunFailedError):
                judge(result, fail_on)
