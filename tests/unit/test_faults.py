# SPDX-License-Identifier: Apache-2.0
"""Trouble in asking while a run is waited for, the same in every mode of waiting."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Timer
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException
from support.clocks import Leap
from support.modes import (
    MODES,
    TASK_MODES,
    Ending,
    FakeTaskInstance,
    first_event,
    rebuilt,
    run_task,
)
from support.waits import state_for, trigger_for

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
)
from airflow_provider_promptlayer.polling.schedule import Throttle
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import (
    Close,
    Drip,
    LocalPromptLayer,
    Node,
    Raw,
    Reply,
    Reset,
    Silence,
    Slow,
    Workflow,
)
from airflow_provider_promptlayer.testing.faults.model import Fault
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

WORKFLOWS = [
    Workflow("Done", [Node("Answer", "true", is_output_node=True)]),
    Workflow("Never done", [Node("Answer", duration=math.inf, is_output_node=True)]),
]
SHORT = 0.4
"""Seconds that a request may take where it is to take too long. Of no use elsewhere: a busy machine
may need as much for a good one."""
PATIENCE = 60.0
"""Seconds that nothing here takes, however busy the machine is; all that must not be waited for
takes longer."""
POKE_INTERVAL = 0.02
LONG = 10**6
"""What happens so often never ends."""
HTML = {"Content-Type": "text/html"}


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer(WORKFLOWS) as server:
        connect(server, monkeypatch)
        yield server


def connect(
    server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
    timeout: float = PATIENCE,
    **changes: Any,
) -> None:
    """Make the default connection lead to ``server``."""
    connection = json.loads(server.airflow_connection_json)
    connection["extra"] = {**connection.get("extra", {}), "timeout": timeout}
    monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps({**connection, **changes}))


def wait(mode: str, run_id: int, **arguments: Any) -> Ending:
    return MODES[mode](run_id, poke_interval=POKE_INTERVAL, **arguments)


@pytest.fixture
def news(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[[], list[str]]:
    """Return what the log says of trouble: where it begins and where it ends."""
    caplog.set_level(logging.INFO)

    def read() -> list[str]:
        # Airflow 3 logs to the standard output, Airflow 2 through logging.
        lines = [record.getMessage() for record in caplog.records]
        lines += capsys.readouterr().out.splitlines() if not lines else []
        return [line for line in lines if "Still waiting for" in line or "answers again" in line]

    return read


def node(status: str) -> dict[str, Any]:
    return {
        "Answer": {
            "status": status,
            "value": None,
            "error_message": None,
            "raw_error_message": None,
            "is_output_node": True,
        }
    }


TROUBLE: dict[str, Fault] = {
    "429": Reply(429, '{"success": false, "message": "slow down"}'),
    "429, Retry-After absurd": Reply(429, "{}", {"Retry-After": "soon"}),
    "429, Retry-After negative": Reply(429, "{}", {"Retry-After": "-5"}),
    "429, Retry-After infinite": Reply(429, "{}", {"Retry-After": "inf"}),
    "429, Retry-After no number": Reply(429, "{}", {"Retry-After": "nan"}),
    "429, Retry-After in the past": Reply(
        429, "{}", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    ),
    "429, Retry-After no date": Reply(429, "{}", {"Retry-After": "Wed, 99 Oct 99999 07:28:00"}),
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
    "200, too deep": Reply(200, "[" * 100_000),
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


@pytest.mark.parametrize("fault", TROUBLE.values(), ids=TROUBLE.keys())
def test_trouble_is_ridden_out(mode: str, fault: Fault, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Done")
    # aiohttp sends a GET that got no answer a second time by itself: trouble must outlast that.
    script = server.script(fault, times=3)
    ending = wait(mode, run_id)
    assert (ending.kind, ending.value) == ("success", run_id), ending
    assert script.used == 3
    assert server.count("GET") <= 5
    assert server.count("POST") == 0


@pytest.mark.parametrize("fault", UNANSWERED.values(), ids=UNANSWERED.keys())
def test_no_request_takes_longer_than_the_timeout(
    mode: str, fault: Fault, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(server, monkeypatch, timeout=SHORT)
    run_id = server.start_execution("Done")
    server.script(fault)
    started = time.monotonic()
    ending = wait(mode, run_id)
    took = time.monotonic() - started
    assert (ending.kind, ending.value) == ("success", run_id), ending
    assert SHORT <= took < PATIENCE
    assert [record.fault for record in server.requests[:2]] == [fault, None]


@pytest.mark.parametrize("fault", NOT_YET.values(), ids=NOT_YET.keys())
def test_not_yet_is_waited_on(
    mode: str, fault: Fault, server: LocalPromptLayer, news: Callable[[], list[str]]
) -> None:
    run_id = server.start_execution("Done")
    script = server.script(fault, times=3)
    ending = wait(mode, run_id)
    assert (ending.kind, ending.value) == ("success", run_id), ending
    assert script.used == 3
    assert news() == []


def test_one_line_when_trouble_starts_and_one_when_it_ends(
    mode: str, server: LocalPromptLayer, news: Callable[[], list[str]]
) -> None:
    run_id = server.start_execution("Done")
    server.script(Reply(502), Reply(503), Close(5), Reply(502, "<html>"), Reply(204))
    wait(mode, run_id)
    begins, ends = news()
    assert "HTTP 502" in begins
    assert "again" in ends


def test_an_end_that_is_seen_first_after_trouble_is_logged(
    mode: str, server: LocalPromptLayer, news: Callable[[], list[str]]
) -> None:
    run_id = server.start_execution("Done")
    server.script(Reply(502))
    wait(mode, run_id)
    _, ends = news()
    assert "answers again" in ends
    assert f"Workflow run {run_id}: " in ends


def test_a_worker_that_fetches_an_ending_logs_trouble_and_its_end(
    server: LocalPromptLayer, news: Callable[[], list[str]]
) -> None:
    run_id = server.start_execution("Done")
    server.script(Reply(204))  # to the worker, which defers
    server.script(Reply(502), after=1)  # after the triggerer has seen the end
    wait("deferred", run_id)
    begins, ends = news()
    assert "HTTP 502" in begins
    assert "answers again" in ends


def test_a_map_without_nodes_is_junk(mode: str, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Done")
    server.script(Reply(200, "{}"))
    assert wait(mode, run_id).kind == "success"


def in_seconds(seconds: int) -> str:
    return str(seconds)


def as_date(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds + 1), usegmt=True)


RETRY_AFTER = [(mode, in_seconds) for mode in MODES] + [("hook", as_date), ("async hook", as_date)]


@pytest.mark.parametrize(("mode", "form"), RETRY_AFTER)
def test_retry_after_is_kept(
    mode: str, form: Callable[[int], str], server: LocalPromptLayer
) -> None:
    run_id = server.start_execution("Done")
    # Written when it is sent: a date does not wait for a slow machine.
    server.script(lambda _: Reply(429, "{}", {"Retry-After": form(1)}))
    assert wait(mode, run_id).kind == "success"
    refused, answered = server.requests[:2]
    assert answered.arrived_at - refused.arrived_at >= 0.95


@pytest.mark.parametrize("header", ["3600", "1e300", "Wed, 21 Oct 2037 07:28:00 GMT", "9" * 400])
def test_retry_after_is_capped_by_the_time_that_is_left(
    mode: str, header: str, server: LocalPromptLayer
) -> None:
    run_id = server.start_execution("Never done")
    server.script(Reply(429, "{}", {"Retry-After": header}))
    started = time.monotonic()
    ending = wait(mode, run_id, timeout=0.2)
    assert ending.kind == "timeout", ending
    assert time.monotonic() - started < PATIENCE


def test_a_refused_connection_is_ridden_out(mode: str, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Done")
    server.go_away()
    ending = during(lambda: wait(mode, run_id), 0.3, server.come_back)
    assert (ending.kind, ending.value) == ("success", run_id), ending


def test_an_unknown_host_is_ridden_out(
    mode: str, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = server.start_execution("Done")
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
    ending = wait(mode, run_id)
    assert (ending.kind, ending.value) == ("success", run_id), ending
    assert len(asked) >= 3


@pytest.mark.parametrize("kind", ["self-signed", "expired", "wrong host"])
def test_a_bad_certificate_is_ridden_out(
    mode: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalPromptLayer(WORKFLOWS, tls=kind) as server:
        connect(server, monkeypatch)
        run_id = server.start_execution("Done")
        ending = during(lambda: wait(mode, run_id), 0.3, lambda: server.use_certificate("trusted"))
        assert (ending.kind, ending.value) == ("success", run_id), ending


def during(call: Callable[[], Ending], seconds: float, then: Callable[[], None]) -> Ending:
    """Do something so many seconds after a call has begun."""
    timer = Timer(seconds, then)
    timer.start()
    try:
        return call()
    finally:
        timer.join()


MODES_THAT_REMEMBER = [mode for mode in MODES if mode != "reschedule"]


class TestOutage:
    """PromptLayer is out of reach for longer than ``max_outage``."""

    FAULTS: tuple[Fault | None, ...] = (None, Reply(503), Reply(429), Reset(), Reply(200, "<html>"))

    @pytest.mark.parametrize("fault", FAULTS, ids=repr)
    @pytest.mark.parametrize("mode", [*MODES_THAT_REMEMBER, "reschedule"])
    def test_fails(self, mode: str, fault: Fault | None, server: LocalPromptLayer) -> None:
        run_id = server.start_execution("Done")
        if fault is None:
            server.go_away()
        else:
            server.script(fault, times=None)
        before = time.time()
        ending = wait(mode, run_id, max_outage=0.3, timeout=PATIENCE)
        assert ending.kind == "failed", ending
        assert str(run_id) in ending.message
        since = datetime.fromtimestamp(before, UTC), datetime.now(UTC)
        assert any(f"{moment:%Y-%m-%d %H:%M}" in ending.message for moment in since)
        assert "may well go on" in ending.message

    def test_a_shorter_one_is_ridden_out(self, mode: str, server: LocalPromptLayer) -> None:
        run_id = server.start_execution("Done")
        server.script(Reply(503), times=3)
        assert wait(mode, run_id, max_outage=60).kind == "success"

    def test_two_short_ones_do_not_add_up(
        self, mode: str, server: LocalPromptLayer, leap: Leap
    ) -> None:
        run_id = server.start_execution("Done")
        server.script(lambda _: leap(400.0), times=None)  # each look is as much later
        bad, good = Reply(503), Reply(204)
        server.script(*[bad, bad, good] * 6)
        assert wait(mode, run_id, max_outage=1000, timeout=100_000).kind == "success"

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    @pytest.mark.parametrize("mode", TASK_MODES)
    def test_skips_softly(self, mode: str, option: str, server: LocalPromptLayer) -> None:
        run_id = server.start_execution("Done")
        server.go_away()
        ending = wait(mode, run_id, max_outage=0.2, timeout=PATIENCE, **{option: True})
        assert ending.kind == "skipped"
        assert "may well go on" in ending.message


class TestTimeoutWhileAway:
    """The time is up while PromptLayer is out of reach."""

    @pytest.mark.parametrize("fault", [None, Silence(), Reply(503)], ids=repr)
    def test_on_time(
        self,
        mode: str,
        fault: Fault | None,
        server: LocalPromptLayer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run_id = server.start_execution("Never done")
        if fault is None:
            server.go_away()
        else:
            connect(server, monkeypatch, timeout=SHORT)
            server.script(fault, times=None)
        started = time.monotonic()
        ending = wait(mode, run_id, timeout=0.5)
        assert ending.kind == "timeout", ending
        assert str(run_id) in ending.message
        assert 0.45 <= time.monotonic() - started < PATIENCE

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    @pytest.mark.parametrize("mode", TASK_MODES)
    def test_skips_softly(self, mode: str, option: str, server: LocalPromptLayer) -> None:
        run_id = server.start_execution("Never done")
        server.go_away()
        assert wait(mode, run_id, timeout=0.3, **{option: True}).kind == "skipped"


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    "output", [None, node("FAILED"), node("SUCCESS"), "what came of it"], ids=repr
)
def test_ended_without_output_is_a_failure_at_once(
    mode: str, status: int, output: Any, server: LocalPromptLayer
) -> None:
    run_id = server.start_execution("Done")
    body = {"success": False, "message": "no output node succeeded", "output": output}
    server.script(Reply.of_json(body, status), times=None)
    ending = wait(mode, run_id)
    assert ending.kind == "failed for good", ending
    assert "no output node succeeded" in ending.message
    # Once to see that it has ended and, where a triggerer saw it, once more to read what it left:
    # in a worker, and before that in the triggerer if the task may end there.
    reads = {"deferred": 2, "starting in the trigger": 2, "in the trigger alone": 3}
    assert server.count("GET") <= reads.get(mode, 1)


@pytest.mark.parametrize("status", [404, 422, 400, 405, 410])
def test_a_refusal_is_final_at_once(mode: str, status: int, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Done")
    server.script(Reply(status, "<html>", HTML), times=None)
    ending = wait(mode, run_id)
    assert ending.kind == "failed for good", ending
    assert f"HTTP {status}" in ending.message
    assert server.count("GET") == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(mode: str, status: int, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Done")
    with LocalPromptLayer() as elsewhere:
        server.script(Reply(status, "", {"Location": f"{elsewhere.url}/x"}), times=None)
        ending = wait(mode, run_id)
        assert elsewhere.connections_made == 0
    assert ending.kind == "failed for good", ending


def test_a_corrected_host_is_noticed(
    mode: str, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_promptlayer.hooks.connection._READ_AGAIN_SECONDS", 0.0)
    with LocalPromptLayer(WORKFLOWS) as right:
        run_id = right.start_execution("Done")

        def correct(_: Any) -> Fault:
            connect(right, monkeypatch)
            return Close()

        server.script(correct, times=None)
        ending = wait(mode, run_id)
    assert (ending.kind, ending.value) == ("success", run_id), ending
    assert server.count("GET") <= 2  # aiohttp asks twice over a connection that was closed


class TestRotatedKey:
    """The key is changed in the connection while a run is waited for."""

    @pytest.mark.parametrize("status", [401, 403])
    def test_the_connection_is_read_again(
        self, mode: str, status: int, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = server.start_execution("Done")
        old = server.api_key

        def rotate(request: Any) -> Fault | None:
            # Some looks go well, then the key is changed here and there between two of them.
            if len(server.requests) < 2:
                return Reply(204)
            if server.api_key == old:
                server.rotate_key("pl_new_key")
                connect(server, monkeypatch)
            return Reply(status) if request.headers["x-api-key"] == old else None

        server.script(rotate, times=None)
        ending = wait(mode, run_id)
        assert (ending.kind, ending.value) == ("success", run_id), ending
        assert [record.status for record in server.requests].count(status) <= 1

    def test_fails_if_the_new_one_is_refused_too(
        self, mode: str, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = server.start_execution("Done")

        def rotate(request: Any) -> Fault | None:
            if len(server.requests) == 2:
                connect(server, monkeypatch, password="pl_mistyped")
                server.rotate_key("pl_new_key")
            return Reply(204) if len(server.requests) < 2 else None

        server.script(rotate, times=None)
        ending = wait(mode, run_id)
        assert ending.kind in ("failed", "failed for good"), ending
        assert "API key" in ending.message
        assert "pl_" not in ending.message
        assert [record.status for record in server.requests].count(401) <= 2


class TestUnusableConnection:
    """The connection cannot be used, in the middle of a wait in the triggerer."""

    TRIES = 5

    @pytest.fixture
    def event(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., dict[str, Any]]:
        def event(*, failing_looks: int, times: int = 1) -> dict[str, Any]:
            """Return what the trigger fires where the connection has no key for so many look-ups.

            :param times: how often that happens; in between, a poll goes well.
            """
            run_id = server.start_execution("Done")
            left = 0
            steps = iter(["goes well", "is refused"] * times)

            def play(request: Any) -> Fault | None:
                nonlocal left
                if request.headers["x-api-key"] != server.api_key:
                    left -= 1
                    if left == 0:
                        connect(server, monkeypatch)
                    return None
                step = next(steps, None)
                if step == "is refused":
                    left = failing_looks
                    server.rotate_key(f"{server.api_key}_new")
                    connect(server, monkeypatch, password="")
                return Reply(204) if step == "goes well" else None

            server.script(play, times=None)
            payload: dict[str, Any] = asyncio.run(first_event(trigger_of(run_id))).payload
            return payload

        return event

    @pytest.mark.parametrize("times", [1, 2], ids=["once", "counts anew after a good poll"])
    def test_is_ridden_out(self, event: Callable[..., dict[str, Any]], times: int) -> None:
        assert event(failing_looks=self.TRIES - 1, times=times)["outcome"] == "ended"

    def test_has_an_end(
        self, event: Callable[..., dict[str, Any]], server: LocalPromptLayer
    ) -> None:
        assert "has no API key" in event(failing_looks=100)["message"]
        assert [record.status for record in server.requests].count(401) == self.TRIES


class TestUnreadableConnection:
    """Airflow cannot tell, for a moment, what a connection is that was there before."""

    @pytest.fixture(
        params=[
            AirflowNotFoundException("The conn_id `promptlayer_default` isn't defined"),
            RuntimeError("API_SERVER_ERROR"),
        ],
        ids=["as of 3.1", "as of 3.0"],
    )
    def fail_to_read(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., None]:
        def fail_to_read(times: int, *, from_read: int = 1, in_worker: bool = False) -> None:
            """Let Airflow fail so often, beginning with its so-manieth answer from now on."""
            reads = 0

            def check() -> None:
                nonlocal reads
                if in_worker and threading.current_thread() is not threading.main_thread():
                    return  # where Airflow has no coroutine, a trigger asks in another thread
                reads += 1
                if from_read <= reads < from_read + times:
                    raise request.param

            read = PromptLayerHook.get_connection

            def get_connection(conn_id: str) -> Any:
                check()
                return read(conn_id)

            async def aget_connection(conn_id: str) -> Any:
                if not in_worker:
                    check()
                return read(conn_id)

            for function in (get_connection, aget_connection):
                monkeypatch.setattr(
                    PromptLayerHook, function.__name__, staticmethod(function), raising=False
                )

        return fail_to_read

    @pytest.mark.parametrize("times", [6, LONG])
    def test_after_the_key_was_changed(
        self,
        mode: str,
        times: int,
        server: LocalPromptLayer,
        fail_to_read: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        run_id = server.start_execution("Done")

        def rotate(_: Any) -> Fault | None:
            if len(server.requests) == 1:
                server.rotate_key("pl_new_key")
                connect(server, monkeypatch)
                fail_to_read(times)
            return Reply(204) if not server.requests else None

        server.script(rotate, times=None)
        ending = wait(mode, run_id, max_outage=PATIENCE if times < LONG else 0.3)
        if times < LONG:
            assert (ending.kind, ending.value) == ("success", run_id), ending
        else:
            assert ending.kind.startswith("failed"), ending
            assert "longer than max_outage" in ending.message

    @pytest.mark.parametrize(
        ("operator", "arguments"),
        [
            (PromptLayerRunWorkflowOperator, {"workflow_id_or_name": "Done"}),
            (
                PromptLayerRunWorkflowBatchOperator,
                {"workflow_id_or_name": "Done", "inputs": [{}, {}]},
            ),
            (PromptLayerWorkflowSensor, {"workflow_version_execution_id": 1}),
        ],
        ids=["run", "batch", "sensor"],
    )
    @pytest.mark.parametrize("in_worker", [True, False], ids=["worker", "triggerer"])
    def test_when_another_process_goes_on(
        self,
        operator: Any,
        arguments: dict[str, Any],
        in_worker: bool,
        server: LocalPromptLayer,
        fail_to_read: Callable[..., None],
    ) -> None:
        server.script(Reply(204), method="GET", times=1)  # so that the first worker defers
        assert server.start_execution("Done") == 1
        fail_to_read(6, from_read=2, in_worker=in_worker)
        ending = run_task(
            lambda: operator(task_id="task", poke_interval=POKE_INTERVAL, **arguments)
        )
        assert ending.kind == "success", ending
        assert ending.worker_visits > 1


def test_trouble_does_not_forget_the_deadline(mode: str, server: LocalPromptLayer) -> None:
    """Ends at the deadline that was set at the start, not at one that each outage moves."""
    run_id = server.start_execution("Never done")
    server.script(Reply(503), Reply(204), times=None)
    started = time.monotonic()
    assert wait(mode, run_id, timeout=0.6).kind == "timeout"
    assert 0.55 <= time.monotonic() - started < PATIENCE


def test_waits_on_one_connection_slow_down_together(server: LocalPromptLayer) -> None:
    run_ids = [server.start_execution("Never done") for _ in range(5)]
    refusal = server.script(Reply(429, "{}", {"Retry-After": "3600"}), after=5)

    async def some_wait() -> None:
        waits = [
            asyncio.create_task(first_event(trigger_of(run_id, deadline=time.time() + 7200)))
            for run_id in run_ids
        ]
        await asyncio.to_thread(server.wait_for, lambda: refusal.is_used_up, PATIENCE)
        await asyncio.sleep(20 * POKE_INTERVAL)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(some_wait())
    (refused,) = [record for record in server.requests if record.status == 429]
    later = [record for record in server.requests if record.arrived_at > refused.arrived_at]
    assert len(later) < len(run_ids)  # what was under way at that moment


def test_a_brake_is_let_go_where_the_clock_is_set_back() -> None:
    """Else every wait of the process would hold still for as long as it was set back."""
    brake = Throttle(jitter=lambda: 0.0)
    brake.hold_for(60.0, now=100_000.0)
    assert brake.delay(now=100_010.0) == 50.0
    assert brake.delay(now=10_000.0) == 0.0
    brake.hold_for(30.0, now=10_000.0)
    assert brake.delay(now=10_010.0) == 20.0


def trigger_of(run_id: int, **arguments: Any) -> Any:
    return trigger_for(
        PromptLayerWorkflowTrigger, WorkflowRun(run_id), poke_interval=POKE_INTERVAL, **arguments
    )


def test_a_wait_that_is_taken_over_keeps_its_deadline(server: LocalPromptLayer, leap: Leap) -> None:
    run_id = server.start_execution("Never done")
    trigger = trigger_of(run_id, deadline=time.time() + 1000.0)

    async def killed() -> None:
        wait = asyncio.create_task(first_event(trigger))
        await asyncio.to_thread(server.wait_for, lambda: server.count() >= 3, PATIENCE)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        assert wait.cancelled()

    asyncio.run(killed())
    leap(1000.0)
    event = asyncio.run(asyncio.wait_for(first_event(rebuilt(trigger)), PATIENCE))
    assert event.payload["outcome"] == "timed_out"
    assert "did not end within 16 minutes 40 seconds" in event.payload["message"]


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
def test_an_event_that_is_not_understood_is_a_failure(event: Any, server: LocalPromptLayer) -> None:
    run_id = server.start_execution("Done")
    task = PromptLayerWorkflowSensor(task_id="task", workflow_version_execution_id=run_id)
    waiting = state_for(WorkflowRun(run_id))
    context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
    with pytest.raises(AirflowException, match="triggerer"):
        task.resume_execution("execute_complete", {"waiting": waiting, "event": event}, context)
