# SPDX-License-Identifier: Apache-2.0
"""Answers that PromptLayer or a gateway should not give, the same in every mode of waiting."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import product
from threading import Timer
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from support.connections import connect
from support.modes import MODES, FakeTaskInstance
from support.waits import state_for
from unit.faults.conftest import (
    PATIENCE,
    WORKFLOWS,
    assert_succeeds,
    in_every_mode,
    wait,
)

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import (
    Close,
    Drip,
    LocalPromptLayer,
    Raw,
    Reply,
    Reset,
    Silence,
    Slow,
)
from airflow_provider_promptlayer.testing.faults.model import Fault

SHORT = 0.4
"""Seconds that a request may take where it is to take too long. Only there: a busy machine may need
as long for a good one."""
HTML = {"Content-Type": "text/html"}


@pytest.fixture
def outage_lines(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[[], list[str]]:
    """Return the log lines that say that an outage begins or ends."""
    caplog.set_level(logging.INFO)

    def read() -> list[str]:
        # Airflow 3 logs to the standard output, Airflow 2 through logging.
        lines = [record.getMessage() for record in caplog.records]
        lines += capsys.readouterr().out.splitlines() if not lines else []
        return [line for line in lines if "Still waiting for" in line or "answers again" in line]

    return read


def node(status: str) -> dict[str, Any]:
    errors = dict.fromkeys(("value", "error_message", "raw_error_message"))
    return {"Answer": {"status": status, "is_output_node": True, **errors}}


TROUBLE: dict[str, Fault] = {
    "429": Reply(429, '{"success": false, "message": "slow down"}'),
    "429, Retry-After absurd": Reply(429, "{}", {"Retry-After": "soon"}),
    "429, Retry-After no number": Reply(429, "{}", {"Retry-After": "nan"}),
    "429, Retry-After in the past": Reply(
        429, "{}", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    ),
    "408": Reply(408),
    "500": Reply(500, '{"success": false, "message": "oops"}'),
    "500, JSON but no object": Reply(500, "[1]"),
    "502, HTML": Reply(502, "<html><h1>Bad gateway</h1>", HTML),
    "503, empty": Reply(503),
    "504, truncated JSON": Reply(504, '{"success": fal'),
    "599": Reply(599, b"\xff\xfe\x00"),
    "200, empty": Reply(200),
    "200, HTML": Reply(200, "<html>Sign in to the hotel's wireless network", HTML),
    "200, truncated JSON": Reply(200, '{"Answer": {"status": "SUCC'),
    "200, junk": Reply(200, b"\x00\x01\xff\xfe"),
    "200, no nodes": Reply(200, "{}"),
    "200, too deep": Reply(200, "[" * 20_000),
    "200, thousands of digits": Reply(200, "9" * 5000),
    "202, junk": Reply(202, "<html>", HTML),
    "206": Reply(206, "{}"),
    "closed": Close(),
    "closed in mid answer": Close(5),
    "reset": Reset(),
    "reset in mid answer": Reset(5),
    "no HTTP": Raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "headers without end": Raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "another length than announced": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n?"),
    "chunks of nonsense": Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "gzip that is none": Reply(200, "{}", {"Content-Encoding": "gzip"}),
}

UNANSWERED: dict[str, Fault] = {
    "no answer": Silence(),
    "late": Slow(2 * PATIENCE),
    "dripping body": Drip(SHORT / 4, seconds=2 * PATIENCE),
    "dripping headers": Drip(SHORT / 4, headers_too=True, seconds=2 * PATIENCE),
}

NOT_YET: dict[str, Fault] = {
    "200 with a running node": Reply.of_json(node("RUNNING")),
    "200 with a queued node": Reply.of_json(node("QUEUED")),
    "202, empty": Reply(202),
    "202, blank": Reply(202, " \n"),
    "204": Reply(204),
}


@pytest.mark.parametrize(
    ("mode", "fault"),
    in_every_mode(TROUBLE, "429", "502, HTML", "200, truncated JSON", "reset", "no HTTP"),
)
def test_trouble_is_ridden_out(
    mode: str, fault: str, server: LocalPromptLayer, run_id: int
) -> None:
    # aiohttp sends a GET that got no answer a second time by itself: trouble must outlast that.
    script = server.script(TROUBLE[fault], times=3)
    assert_succeeds(mode, run_id)
    assert script.used == 3
    assert server.count("GET") <= 5
    assert server.count("POST") == 0


@pytest.mark.parametrize(("mode", "fault"), in_every_mode(UNANSWERED, "no answer"))
def test_no_request_takes_longer_than_the_timeout(
    mode: str,
    fault: str,
    server: LocalPromptLayer,
    run_id: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect(server, monkeypatch, timeout=SHORT)
    server.script(UNANSWERED[fault])
    started = time.monotonic()
    assert_succeeds(mode, run_id)
    assert SHORT <= time.monotonic() - started < PATIENCE
    assert [record.fault for record in server.requests[:2]] == [UNANSWERED[fault], None]


@pytest.mark.parametrize(
    ("mode", "fault"), in_every_mode(NOT_YET, "200 with a running node", "204")
)
def test_not_yet_is_waited_on(
    mode: str,
    fault: str,
    server: LocalPromptLayer,
    run_id: int,
    outage_lines: Callable[[], list[str]],
) -> None:
    script = server.script(NOT_YET[fault], times=3)
    assert_succeeds(mode, run_id)
    assert script.used == 3
    assert outage_lines() == []


@pytest.mark.parametrize("last", [[Reply(204)], []], ids=["the run goes on", "the run has ended"])
def test_one_line_when_trouble_starts_and_one_when_it_ends(
    mode: str,
    last: list[Fault],
    server: LocalPromptLayer,
    run_id: int,
    outage_lines: Callable[[], list[str]],
) -> None:
    server.script(Reply(502), Reply(503), Close(5), Reply(502, "<html>"), *last)
    wait(mode, run_id)
    begins, ends = outage_lines()
    assert "HTTP 502" in begins
    assert "answers again" in ends
    assert (f"Workflow run {run_id}: " in ends) or last


def test_a_worker_that_fetches_an_ending_logs_trouble_and_its_end(
    server: LocalPromptLayer, run_id: int, outage_lines: Callable[[], list[str]]
) -> None:
    server.script(Reply(204))  # to the worker, which defers
    server.script(Reply(502), after=1)  # after the triggerer has seen the end
    wait("deferred", run_id)
    begins, ends = outage_lines()
    assert "HTTP 502" in begins
    assert "answers again" in ends


def as_date(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds + 1), usegmt=True)


@pytest.mark.parametrize(
    ("mode", "form", "seconds"),
    [*((mode, str, 0.3) for mode in MODES), ("hook", as_date, 1)],
)
def test_retry_after_is_kept(
    mode: str,
    form: Callable[[Any], str],
    seconds: float,
    server: LocalPromptLayer,
    run_id: int,
) -> None:
    # Written when it is sent: a date does not wait for a slow machine.
    server.script(lambda _: Reply(429, "{}", {"Retry-After": form(seconds)}))
    assert_succeeds(mode, run_id)
    refused, answered = server.requests[:2]
    assert answered.arrived_at - refused.arrived_at >= 0.95 * seconds


@pytest.mark.parametrize(
    ("mode", "header"),
    in_every_mode(["3600", "1e300", "Wed, 21 Oct 2037 07:28:00 GMT", "9" * 400], "3600"),
)
def test_retry_after_is_capped_by_the_time_that_is_left(
    mode: str, header: str, server: LocalPromptLayer, endless_run_id: int
) -> None:
    server.script(Reply(429, "{}", {"Retry-After": header}))
    started = time.monotonic()
    ending = wait(mode, endless_run_id, timeout=0.2)
    assert ending.kind == "timeout", ending
    assert time.monotonic() - started < PATIENCE


@pytest.mark.parametrize(
    ("mode", "fault"),
    in_every_mode(["refused", "self-signed", "expired", "wrong host"], "refused", "expired"),
)
def test_an_unreachable_server_is_ridden_out(
    mode: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused connection, and bad certificates."""
    with LocalPromptLayer(WORKFLOWS, tls=None if fault == "refused" else fault) as server:
        connect(server, monkeypatch)
        run_id = server.start_execution("Done")
        if fault == "refused":
            server.go_away()
            mended = Timer(0.1, server.come_back)
        else:
            mended = Timer(0.1, server.use_certificate, ["trusted"])
        mended.start()
        try:
            assert_succeeds(mode, run_id)
        finally:
            mended.join()


def test_an_unknown_host_is_ridden_out(
    mode: str, server: LocalPromptLayer, run_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(server, monkeypatch, host=server.url.replace("127.0.0.1", "promptlayer.invalid"))
    resolve = socket.getaddrinfo
    asked = []

    def resolved_at_last(host: Any, *arguments: Any, **options: Any) -> Any:
        if "promptlayer" not in str(host):
            return resolve(host, *arguments, **options)
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved_at_last)
    assert_succeeds(mode, run_id)
    assert len(asked) >= 3


WITHOUT_OUTPUT = [None, node("FAILED"), node("SUCCESS"), "some output"]


@pytest.mark.parametrize(
    ("mode", "case"),
    in_every_mode(product((400, 500), range(len(WITHOUT_OUTPUT))), (400, 0), (500, 1)),
)
def test_ended_without_output_is_a_failure_at_once(
    mode: str, case: tuple[int, int], server: LocalPromptLayer, run_id: int
) -> None:
    status, output = case[0], WITHOUT_OUTPUT[case[1]]
    body = {"success": False, "message": "no output node succeeded", "output": output}
    server.script(Reply.of_json(body, status), times=None)
    ending = wait(mode, run_id)
    assert ending.kind == "failed for good", ending
    assert "no output node succeeded" in ending.message
    # One poll shows that the run has ended. Where a triggerer saw that, a worker fetches the
    # results; before it the triggerer does, if the task may end there.
    reads = {"deferred": 2, "starting in the trigger": 2, "in the trigger alone": 3}
    assert server.count("GET") <= reads.get(mode, 1)


@pytest.mark.parametrize(("mode", "status"), in_every_mode([404, 422, 400, 405, 410], 404))
def test_a_refusal_is_final_at_once(
    mode: str, status: int, server: LocalPromptLayer, run_id: int
) -> None:
    server.script(Reply(status, "<html>", HTML), times=None)
    ending = wait(mode, run_id)
    assert ending.kind == "failed for good", ending
    assert f"HTTP {status}" in ending.message
    assert server.count("GET") == 1


@pytest.mark.parametrize(("mode", "status"), in_every_mode([404, 422, 400, 405, 410], 404))
def test_a_refusal_of_a_gateway_passes_once_promptlayer_has_answered(
    mode: str, status: int, server: LocalPromptLayer, run_id: int
) -> None:
    """So it is no wrong host, but a gateway that restarts, say."""
    refusal = Reply(status, "<html>", HTML)
    script = server.script(Reply(204), refusal, refusal)
    assert_succeeds(mode, run_id)
    assert script.used == 3


@pytest.mark.parametrize(("mode", "status"), in_every_mode([301, 302, 307, 308], 302))
def test_a_redirect_is_not_followed(
    mode: str, status: int, server: LocalPromptLayer, run_id: int
) -> None:
    with LocalPromptLayer() as elsewhere:
        server.script(Reply(status, "", {"Location": f"{elsewhere.url}/x"}), times=None)
        ending = wait(mode, run_id)
        assert elsewhere.connections_made == 0
    assert ending.kind == "failed for good", ending


EVENT = {"version": 1, "id": 1, "outcome": "ended", "message": ""}
BAD_EVENTS: dict[str, Any] = {
    "missing": None,
    "empty": {},
    "no mapping": [EVENT],
    "text": "ended",
    "of another version": {**EVENT, "version": 2},
    "without a version": {"id": 1, "outcome": "ended"},
    "about another run": {**EVENT, "id": 2},
    "of an unknown kind": {**EVENT, "outcome": "celebrated"},
    "of no kind": {**EVENT, "outcome": None},
    "of a kind that is no text": {**EVENT, "outcome": ["ended"]},
}


@pytest.mark.parametrize("event", BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_an_event_that_is_not_understood_is_a_failure(event: Any, run_id: int) -> None:
    task = PromptLayerWorkflowSensor(task_id="task", workflow_version_execution_id=run_id)
    waiting = state_for(WorkflowRun(run_id))
    context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
    with pytest.raises(AirflowException, match="triggerer"):
        task.resume_execution("execute_complete", {"waiting": waiting, "event": event}, context)
