# SPDX-License-Identifier: Apache-2.0
"""A start is sent again only when it certainly did not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.connections import connect

from airflow_provider_promptlayer.exceptions import (
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.testing import LocalPromptLayer, Raw, Reply, Reset

AT_ONCE = {"Retry-After": "0"}
LOST_UPSTREAM = (
    "upstream connect error or disconnect/reset before headers. reset reason: connection "
    "termination"
)


def submit(is_async: bool) -> int:
    hook = PromptLayerHook()
    if is_async:
        return asyncio.run(hook.arun_workflow("good"))
    try:
        return hook.run_workflow("good")
    finally:
        hook.close()


both = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])


class TestResending:
    @pytest.mark.parametrize(
        ("answer", "is_async"),
        [
            (Reply(429, '{"message": "slow"}', AT_ONCE), True),
            (Reply(429, '{"message": "slow"}', AT_ONCE), False),
            (Reply(429, "<html>"), False),
            (Reply(503, "<html>", AT_ONCE), False),
            (Reply(503, '{"success": false, "message": "Down for maintenance"}'), False),
            (Reply(503, '{"success": false, "error": "overloaded"}'), False),
            (Reply(503, '{"error": "overloaded"}'), False),
            (Reply(503, '{"detail": "overloaded"}'), False),
            (Reply(503, '{"detail": [{"loc": ["body"], "msg": "overloaded"}]}'), False),
        ],
        ids=str,
    )
    def test_where_nothing_was_started(
        self, answer: Any, is_async: bool, server: LocalPromptLayer
    ) -> None:
        server.script(answer)
        assert submit(is_async) == 1
        assert server.count("POST") == 2

    @pytest.mark.parametrize(
        ("answer", "is_async"),
        [
            (Reset(), True),
            (Reset(), False),
            (Reply(500, "{}"), True),
            (Reply(500, "{}"), False),
            (Reply(502, "<html>"), False),
            (Reply(504, ""), False),
            (Reply(503, '{"workflow_version_execution_id": 7}'), False),
            (Reply(503, '{"error": "late", "workflow_version_execution_id": 7}', AT_ONCE), False),
            # A gateway's own, sent when it has lost a request that it had handed on.
            (Reply(503, LOST_UPSTREAM), False),
            (Reply(503, "<html><h1>503 Service Temporarily Unavailable</h1></html>"), False),
            (Reply(503, ""), False),
            (Reply(503, '{"message": "Service Unavailable"}'), False),
            (Reply(503, '{"error": null}'), False),
            (Reply(503, '[{"error": "overloaded"}]'), False),
            (Reply(503, "<html>", {"Retry-After": "soon"}), False),
            (Reply(201, '{"success": true}'), False),
            (Reply(201, "<html>"), False),
            (Reply(202, ""), False),
            (Raw(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"), True),
            (Raw(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"), False),
            (Raw(b"not HTTP at all\r\n\r\n"), True),
            (Raw(b"not HTTP at all\r\n\r\n"), False),
        ],
        ids=str,
    )
    def test_not_where_a_run_may_have_been_started(
        self, answer: Any, is_async: bool, server: LocalPromptLayer
    ) -> None:
        server.script(answer)
        with pytest.raises(PromptLayerStartUncertainError, match="airflow_run_id"):
            submit(is_async)
        assert server.count("POST") == 1

    @both
    def test_not_where_the_answer_is_too_large(
        self, is_async: bool, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_promptlayer.transport.redaction.MAX_BODY_BYTES", 1000)
        server.script(Reply(201, "x" * 1001))
        with pytest.raises(PromptLayerStartUncertainError, match="larger than"):
            submit(is_async)
        assert server.count("POST") == 1

    @both
    @pytest.mark.parametrize("status", [429, 503])
    def test_not_before_the_time_that_was_asked_for(
        self, status: int, is_async: bool, server: LocalPromptLayer
    ) -> None:
        """A retry of the task comes later than this call may wait."""
        server.script(Reply(status, "{}", {"Retry-After": "3600"}))
        with pytest.raises(PromptLayerTransientError, match="1 hour") as raised:
            submit(is_async)
        assert server.count("POST") == 1
        assert raised.value.retry_after == 3600

    @both
    @pytest.mark.parametrize("status", [401, 429])
    def test_not_for_a_task_that_is_being_stopped(
        self,
        status: int,
        is_async: bool,
        server: LocalPromptLayer,
        monkeypatch: pytest.MonkeyPatch,
        log: Callable[[], str],
    ) -> None:
        """Neither after a pause nor with another key, and it does not hold the task up."""
        hook = PromptLayerHook()

        def stop(_: Any) -> Reply:
            hook.stop_starting()
            connect(server, monkeypatch, password="pl_another")
            return Reply(status, "{}", AT_ONCE)

        server.script(stop, method="POST")
        with pytest.raises(PromptLayerTransientError, match=r"nothing more is started|HTTP 429"):
            asyncio.run(hook.arun_workflow("good")) if is_async else hook.run_workflow("good")
        hook.close()
        assert server.count("POST") == 1
        assert "trying again" not in log()

    @both
    def test_not_for_ever(self, is_async: bool, server: LocalPromptLayer) -> None:
        server.script(Reply(429, "", AT_ONCE), times=None)
        with pytest.raises(PromptLayerTransientError):
            submit(is_async)
        assert server.count("POST") == retries.SUBMITTING.attempts

    @both
    def test_where_the_connection_was_refused(
        self, is_async: bool, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[type[Exception]] = []

        def is_retried(error: Exception) -> bool:
            seen.append(type(error))
            return retries.started_nothing(error)

        policy = replace(retries.SUBMITTING, attempts=4, retries=is_retried)
        monkeypatch.setattr(retries, "SUBMITTING", policy)
        server.go_away()
        with pytest.raises(PromptLayerUnreachableError):
            submit(is_async)
        assert seen == [PromptLayerUnreachableError] * 3
