# SPDX-License-Identifier: Apache-2.0
"""The tables and reports of these tests, and calls held against PromptLayer's description."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.description import check_answer, check_request
from unit.testing.conftest import Client, Reply

from airflow_provider_promptlayer.api import tables
from airflow_provider_promptlayer.api.http import Call, Response
from airflow_provider_promptlayer.exceptions import PromptLayerNotFoundError
from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    Report,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
)

NOWHERE = "00000000-0000-4000-8000-000000000000"

TEXT = Column("Question", type="TEXT")
ANSWER = Column("Answer", cell_duration=1.0, failing_rows=[2])
CARD = Scorecard(
    "Quality",
    [
        Criterion("Polite", score=0.9),
        Criterion("Cites", verdict="fail", score=0.1, error_summary="links are dead"),
    ],
    [
        ScoredRow("pass", 1.0),
        ScoredRow("fail", 0.3, reasons={"Cites": "no link"}),
        ScoredRow("error", None, error_summary="the cell is empty", reasons={"Cites": "no cell"}),
        ScoredRow("fail", 0.2),
    ],
    verdict="fail",
    score=0.4,
    drift_summary={"delta": -0.5},
    queue_duration=1.0,
    duration=2.0,
)
SHEET = Sheet("Answers", [TEXT, ANSWER], row_count=4, scorecard=CARD)
LARGE = Sheet("Large", [TEXT, Column("Answer")], row_count=10, confirm_above=5, status_lag=3.0)
TABLE = Table("T", [SHEET, LARGE])
HERE, THERE = (TABLE.id, SHEET.id), (TABLE.id, LARGE.id)
PATH = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}"
REPORTS = [
    Report("Pipeline", id=7, cells=10, failed_cells=3, duration=10.0, score=62.5),
    Report("Old", id=8, is_blueprint=False, cells=4, score=90.0, column_scores={"A": 90.0}),
]


def checked(method: str, path: str, reply: Reply) -> Reply:
    """Return an answer that PromptLayer's description knows."""
    check_answer(method, path, reply.status, reply.json)
    return reply


def ask(client: Client, call: Call[Any]) -> Any:
    """Send a request of the package, and read the answer as the package does."""
    request = call.request
    sent = request.body
    if not isinstance(sent, bytes | None):
        sent = b"".join(sent.chunks())
    body = None if sent is None else json.loads(sent)
    check_request(request.method, request.path, body)
    reply = client.send(request.method, request.path, sent)
    checked(request.method, request.path, reply)
    return call.read(Response(reply.status, reply.headers, reply.body), 0.0)


def assert_not_found(client: Client, *calls: Call[Any]) -> None:
    for call in calls:
        with pytest.raises(PromptLayerNotFoundError):
            ask(client, call)


def started(client: Client, *sheet: str, **selection: Any) -> str:
    """Start an operation; return its id."""
    answer = ask(client, tables.recalculate_cells(*(sheet or HERE), **selection))
    assert isinstance(answer, tables.QueuedOperation)
    return answer.operation_id
