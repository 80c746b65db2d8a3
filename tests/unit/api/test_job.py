# SPDX-License-Identifier: Apache-2.0
"""What a wait in the triggerer reads and keeps of the answers to its polls."""

from __future__ import annotations

import json

import pytest

from airflow_provider_promptlayer.api.http import LARGE, Call, Response
from airflow_provider_promptlayer.api.job import StatusSummary, summarized
from airflow_provider_promptlayer.api.workflows import WorkflowResults, WorkflowRun
from airflow_provider_promptlayer.exceptions import (
    PromptLayerNotFoundError,
    PromptLayerServerError,
)


def answer(status: int, **statuses: str) -> Response:
    nodes = {name: {"status": status, "value": "v"} for name, status in statuses.items()}
    return Response(status, {}, json.dumps(nodes).encode())


@pytest.fixture
def read() -> list[Response]:
    """Return what was read, rather than recognised."""
    return []


@pytest.fixture
def summary(read: list[Response]) -> Call[StatusSummary]:
    question = WorkflowRun(7).status_call()

    def counting(response: Response, now: float) -> WorkflowResults:
        read.append(response)
        return question.read(response, now)

    return summarized(Call(question.request, counting, question.unanswered))


def test_an_answer_like_the_last_one_is_not_read_again(
    summary: Call[StatusSummary], read: list[Response]
) -> None:
    for _ in range(3):
        seen = summary.read(answer(202, A="RUNNING", B="QUEUED"), 0.0)
        assert (seen.is_complete, seen.progress) == (False, "0 of 2 nodes done, running: A")
    assert len(read) == 1


def test_news_is_read(summary: Call[StatusSummary]) -> None:
    summary.read(answer(202, A="RUNNING", B="QUEUED"), 0.0)
    assert summary.read(answer(202, A="SUCCESS", B="RUNNING"), 0.0).progress.startswith("1 of 2")
    assert summary.read(answer(200, A="SUCCESS", B="SUCCESS"), 0.0).is_complete


def test_the_same_body_with_another_status_is_news(summary: Call[StatusSummary]) -> None:
    assert not summary.read(answer(202, A="SUCCESS"), 0.0).is_complete
    assert summary.read(answer(200, A="SUCCESS"), 0.0).is_complete


def test_trouble_is_trouble_each_time(summary: Call[StatusSummary]) -> None:
    summary.read(answer(202, A="RUNNING"), 0.0)
    for _ in range(2):
        with pytest.raises(PromptLayerServerError):
            summary.read(Response(502, {}, b"<html>"), 0.0)
    assert not summary.read(answer(202, A="RUNNING"), 0.0).is_complete


def large(body: str) -> bytes:
    return (body + " " * LARGE).encode()


@pytest.mark.parametrize(
    ("status", "is_complete"), [(202, False), (200, True), (400, True), (500, True)]
)
@pytest.mark.parametrize(
    "body", ['{"A": {"status": "RUNNING"}}', '{"success": false, "message": "m"}', "<html>"]
)
def test_a_large_answer_is_read_by_its_status(
    summary: Call[StatusSummary], read: list[Response], status: int, is_complete: bool, body: str
) -> None:
    """A worker finds out what the body of one that may be the end says."""
    seen = summary.read(Response(status, {}, large(body)), 0.0)
    assert (seen.is_complete, read) == (is_complete, [])
    assert not summary.read(answer(202, A="RUNNING"), 0.0).is_complete


@pytest.mark.parametrize(
    ("status", "error"), [(404, PromptLayerNotFoundError), (503, PromptLayerServerError)]
)
def test_a_large_error_is_an_error(
    summary: Call[StatusSummary], status: int, error: type[Exception]
) -> None:
    with pytest.raises(error, match="gone"):
        summary.read(Response(status, {}, large('{"message": "gone"}')), 0.0)
