# SPDX-License-Identifier: Apache-2.0
"""A run is started once: whatever the network does, and whichever try it is."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowNotFoundException,
    BaseOperator,
    TaskDeferred,
)
from support.clocks import timed_by_looks
from support.modes import Ending, FakeTaskInstance, Store, epoch, run_task
from support.waits import state_for

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.exceptions import (
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunWorkflowOperator,
    PromptLayerWorkflowResultsOperator,
)
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.submission.reattach import (
    Plan,
    SubmissionPhase,
    SubmissionRecord,
    plan,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger


@pytest.fixture
def promptlayer_workflows() -> list[Workflow]:
    return [
        Workflow("Digest", [Node("Answer", "long", is_output_node=True)]),
        Workflow("Slow", [Node("Answer", "long", duration=6, is_output_node=True)]),
        Workflow("Endless", [Node("Answer", duration=math.inf, is_output_node=True)]),
        Workflow("Broken", [Node("Answer", status="FAILED", is_output_node=True)]),
    ]


@pytest.fixture
def promptlayer_server(promptlayer_workflows: list[Workflow]) -> Iterator[LocalPromptLayer]:
    with timed_by_looks(promptlayer_workflows) as server:
        yield server


@pytest.fixture
def server(promptlayer_connection: str, promptlayer_server: LocalPromptLayer) -> LocalPromptLayer:
    return promptlayer_server


def attempt(
    store: Store | None, *, max_tries: int = 2, number: int = 1, **arguments: Any
) -> Ending:
    extra = {} if store is None else {"task_state_store": store}
    return run_task(
        lambda: PromptLayerRunWorkflowOperator(
            **{
                "task_id": "task",
                "workflow_id_or_name": "Digest",
                "poke_interval": 0.1,
                "retries": 2,
                **arguments,
            }
        ),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
        **extra,
    )


def leave(store: Store, *, number: int = 1, max_tries: int = 2, **arguments: Any) -> None:
    """Start a slow run, or go back to it, and leave the worker; nobody comes back."""
    ti = FakeTaskInstance(try_number=number, max_tries=max_tries)
    context: Any = {"ti": ti, "run_id": ti.run_id, "task_state_store": store}
    operator = PromptLayerRunWorkflowOperator(
        task_id="task", workflow_id_or_name="Slow", retries=2, **arguments
    )
    with pytest.raises(TaskDeferred):
        operator.execute(context)


def record(
    phase: SubmissionPhase, external_id: int | None = 7, input_fingerprint: str | None = None
) -> SubmissionRecord:
    return SubmissionRecord(
        phase, "a", 1, "https://here", external_id, input_fingerprint=input_fingerprint
    )


STARTED, DELIVERED = record(SubmissionPhase.SUBMITTED), record(SubmissionPhase.DELIVERED)
STARTING = record(SubmissionPhase.INTENT, None)


@pytest.mark.parametrize(
    ("record", "clear_epoch", "base_url", "expected"),
    [
        (None, "a", None, Plan.START),
        (STARTED, "a", "https://here", Plan.REATTACH),
        (STARTED, "b", "https://here", Plan.REATTACH),  # cleared while it went on
        (DELIVERED, "a", "https://here", Plan.REATTACH),  # died after it had delivered
        (DELIVERED, "b", "https://here", Plan.START),  # cleared to run again
        (STARTING, "a", None, Plan.UNCERTAIN),
        (STARTING, "b", None, Plan.UNCERTAIN),  # cleared, which says of no look
        (
            record(SubmissionPhase.SUBMITTED, input_fingerprint="this"),
            "b",
            "https://here",
            Plan.REATTACH,
        ),
        (
            record(SubmissionPhase.SUBMITTED, input_fingerprint="that"),
            "b",
            "https://here",
            Plan.START,
        ),  # and changed
        (
            record(SubmissionPhase.SUBMITTED, input_fingerprint="that"),
            "a",
            "https://here",
            Plan.REATTACH,
        ),  # billed once
        (STARTED, "a", "https://there", Plan.REATTACH),  # nor started twice
        (STARTED, "b", "https://there", Plan.START),  # cleared, and changed
        (DELIVERED, "a", "https://there", Plan.REATTACH),
    ],
)
def test_plan(
    record: SubmissionRecord | None, clear_epoch: str, base_url: str | None, expected: Plan
) -> None:
    assert plan(record, clear_epoch, base_url, "this") is expected


class TestReattach:
    """With a task state store, as on Airflow 3.3 and later."""

    @pytest.mark.parametrize("deferrable", [False, True])
    def test_a_try_after_a_crash_goes_back_to_its_run(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        store = Store()
        store.set(
            "promptlayer_run",
            SubmissionRecord(
                SubmissionPhase.SUBMITTED, epoch(), 1, server.url, server.start_execution("Slow")
            ).payload(),
        )
        ending = attempt(store, number=2, deferrable=deferrable)
        assert ending.value == {"Answer": "long"}
        assert ending.xcoms["promptlayer_execution_id"] == 1
        assert server.count("POST") == 0
        assert store.phase == "delivered"

    def test_a_failed_run_is_replaced(self, server: LocalPromptLayer) -> None:
        store = Store()
        assert attempt(store, workflow_id_or_name="Broken").kind == "failed"
        ending = attempt(store, number=2)
        assert (ending.kind, ending.xcoms["promptlayer_execution_id"]) == ("success", 2)
        assert server.count("POST") == 2

    def test_a_run_that_failed_counts_by_fail_on(self, server: LocalPromptLayer) -> None:
        store = Store()
        attempt(store, workflow_id_or_name="Broken")
        assert attempt(store, workflow_id_or_name="Broken", fail_on="never").kind == "success"
        assert server.count("POST") == 1

    def test_a_try_after_delivery_does_not_run_again(self, server: LocalPromptLayer) -> None:
        store = Store()
        first = attempt(store)
        assert attempt(store, number=2).value == first.value
        assert server.count("POST") == 1

    def test_clearing_after_success_runs_again(self, server: LocalPromptLayer) -> None:
        store = Store()
        attempt(store)
        attempt(store, number=2, max_tries=3)
        assert server.count("POST") == 2

    @pytest.mark.parametrize(("variables", "runs"), [({"day": 1}, 1), ({"day": 2}, 2)])
    def test_clearing_while_it_goes_on(
        self,
        server: LocalPromptLayer,
        variables: dict[str, int],
        runs: int,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store = Store()
        leave(store, input_variables={"day": 1})
        ending = attempt(
            store, input_variables=variables, number=2, max_tries=3, workflow_id_or_name="Slow"
        )
        assert ending.xcoms["promptlayer_execution_id"] == server.count("POST") == runs
        log = capsys.readouterr().out + caplog.text
        assert ("started for other arguments is left to itself: 1." in log) == (runs == 2)

    @pytest.mark.parametrize(("variables", "runs"), [({"day": 1}, 1), ({"day": 2}, 2)])
    def test_clearing_after_a_retry_with_another_input(
        self, server: LocalPromptLayer, variables: dict[str, int], runs: int
    ) -> None:
        """The retry goes back to the run of day 1, which does not make it one of day 2."""
        store = Store()
        leave(store, input_variables={"day": 1})
        leave(store, input_variables={"day": 2}, number=2)
        attempt(store, input_variables=variables, number=3, max_tries=3, workflow_id_or_name="Slow")
        assert server.count("POST") == runs

    def test_a_refused_start_of_another_input_does_not_forget_the_run(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        leave(store, input_variables={"day": 1})
        server.script(Reply(422), method="POST")
        refused = attempt(
            store, input_variables={"day": 2}, number=2, max_tries=3, workflow_id_or_name="Slow"
        )
        assert refused.kind == "failed for good"
        ending = attempt(
            store, input_variables={"day": 1}, number=3, max_tries=4, workflow_id_or_name="Slow"
        )
        assert ending.xcoms["promptlayer_execution_id"] == 1

    def test_keys_in_another_order_are_no_other_input(self, server: LocalPromptLayer) -> None:
        store = Store()
        leave(store, input_variables={"a": 1, "b": 2})
        attempt(
            store,
            input_variables={"b": 2, "a": 1},
            number=2,
            max_tries=3,
            workflow_id_or_name="Slow",
        )
        assert server.count("POST") == 1

    def test_without_waiting_the_same_id_is_returned(self, server: LocalPromptLayer) -> None:
        store = Store()
        assert attempt(store, wait_for_completion=False).value == 1
        assert attempt(store, wait_for_completion=False, number=2).value == 1
        assert server.count("POST") == 1

    def test_a_try_that_died_while_sending_starts_nothing(self, server: LocalPromptLayer) -> None:
        store = Store()
        store.set(
            "promptlayer_run",
            SubmissionRecord(SubmissionPhase.INTENT, epoch(), 1, server.url).payload(),
        )
        ending = attempt(store, number=2)
        assert ending.kind == "failed for good"
        assert "airflow_run_id='manual__1'" in ending.message
        assert "airflow_try_number='1'" in ending.message
        assert server.count() == 0

    def test_a_start_that_a_gateway_lost_is_not_sent_by_a_retry(
        self, server: LocalPromptLayer
    ) -> None:
        server.script(Reply(503, LOST_UPSTREAM), method="POST", times=None, acted_on=True)
        store = Store()
        for number in (1, 2):
            assert attempt(store, number=number).kind == "failed for good"
        assert server.count("POST") == len(server.executions) == 1

    @pytest.mark.parametrize("store", [Store(), None], ids=["3.3", "before"])
    def test_a_start_that_is_to_come_much_later_is_left_to_a_retry(
        self, server: LocalPromptLayer, store: Store | None
    ) -> None:
        server.script(Reply(429, "{}", {"Retry-After": "3600"}), method="POST")
        first = attempt(store)
        assert (first.kind, server.count("POST")) == ("failed", 1)
        assert "1 hour" in first.message
        assert attempt(store, number=2).kind == "success"

    def test_a_refused_start_leaves_nothing_behind(self, server: LocalPromptLayer) -> None:
        store = Store()
        assert attempt(store, workflow_id_or_name="Digst").kind == "failed for good"
        assert store == {}

    def test_reattach_false_starts_anew(self, server: LocalPromptLayer) -> None:
        store = Store()
        attempt(store, reattach=False)
        attempt(store, reattach=False, number=2)
        assert server.count("POST") == 2
        assert store == {}

    @pytest.mark.parametrize(("store", "kind"), [(Store(), "failed"), (None, "failed for good")])
    def test_trouble_while_waiting_may_be_retried(
        self, server: LocalPromptLayer, store: Store | None, kind: str
    ) -> None:
        """Because the next try goes back to the run; without a store it may not."""
        with offline_after_start(server):
            ending = attempt(store, max_outage=0.2, deferrable=False)
        assert ending.kind == kind, ending

    def test_a_store_that_cannot_be_read_starts_nothing(self, server: LocalPromptLayer) -> None:
        class Away(Store):
            def get(self, *_: Any) -> Any:
                raise ConnectionError("the API server is away")

        with pytest.raises(ConnectionError):
            attempt(Away())
        assert server.count() == 0

    @pytest.mark.parametrize("is_stored", [False, True])
    def test_a_store_that_cannot_be_written_before_the_start_stops_no_retry(
        self, server: LocalPromptLayer, is_stored: bool
    ) -> None:
        """The note may be there although Airflow's answer to it was lost."""

        class Blip(Store):
            is_over = False

            def set(self, key: str, value: Any) -> None:
                if self.is_over or is_stored:
                    super().set(key, value)
                if not self.is_over:
                    self.is_over = True
                    raise ConnectionError("the API server is away")

        store = Blip()
        first = attempt(store)
        assert first.kind == "failed"
        assert "nothing more is started" in first.message
        assert server.count() == 0
        assert attempt(store, number=2).kind == "success"

    def test_a_store_that_cannot_be_written_after_the_start_loses_nothing(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        policy = replace(retries.WRITING_TASK_STATE, give_up_after=0.0)
        monkeypatch.setattr(retries, "WRITING_TASK_STATE", policy)

        class Full(Store):
            def set(self, key: str, value: Any) -> None:
                if value["phase"] != "intent":
                    raise ConnectionError("the API server is away")
                super().set(key, value)

        assert attempt(Full()).value == {"Answer": "long"}


def test_older_airflow_says_that_it_cannot(
    server: LocalPromptLayer, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    attempt(None)
    assert "cannot remember the run across tries" in capsys.readouterr().out + caplog.text


@contextmanager
def offline_after_start(server: LocalPromptLayer) -> Iterator[None]:
    """Let the server go away as soon as a run was started."""
    start = PromptLayerHook.start_run

    def start_run(self: PromptLayerHook, call: Any) -> int:
        run_id = start(self, call)
        server.stop()
        return run_id

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptLayerHook, "start_run", start_run)
        yield


class Script:
    """A server that plays one scripted byte string for each connection, then hangs up."""

    def __init__(self, *answers: bytes | None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self.starts = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Script:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts; a close would not
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):  # the test is over
            self._play()

    def _play(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                self.starts += head.startswith(b"POST")
                if answer is None:  # a reset
                    linger = b"\1\0\0\0\0\0\0\0"
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    connection.sendall(answer)


def http(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


ACCEPTED = http("201 Created", '{"success": true, "workflow_version_execution_id": 7}')
NO_ID = http("201 Created", '{"success": true}')
LOST_UPSTREAM = (
    "upstream connect error or disconnect/reset before headers. reset reason: connection "
    "termination"
)
BUSY = "503 Service Unavailable"


@pytest.fixture(params=["blocking", "async"])
def start(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def start(url: str) -> int:
        connection = {"conn_type": "promptlayer", "host": url, "password": "pl_key"}
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps(connection))
        hook = PromptLayerHook()
        if request.param == "async":
            return asyncio.run(hook.arun_workflow("W"))
        try:
            return hook.run_workflow("W")
        finally:
            hook.close()

    return start


class TestResending:
    """A start is sent again only when it certainly did not arrive."""

    @pytest.mark.parametrize(
        "first",
        [
            http("429 Too Many Requests", '{"message": "slow"}', "Retry-After: 0"),
            http("429 Too Many Requests", "<html>"),
            http(BUSY, "<html>", "Retry-After: 0"),
            http(BUSY, '{"success": false, "message": "Down for maintenance"}'),
            http(BUSY, '{"success": false, "error": "overloaded"}'),
            http(BUSY, '{"error": "overloaded"}'),
            http(BUSY, '{"detail": "overloaded"}'),
            http(BUSY, '{"detail": [{"loc": ["body"], "msg": "overloaded"}]}'),
        ],
    )
    def test_is_sent_again(self, start: Callable[..., int], first: bytes) -> None:
        with Script(first, ACCEPTED) as server:
            assert start(server.url) == 7
        assert server.starts == 2

    def test_an_answer_that_is_too_large_leaves_it_open(
        self, start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_provider_promptlayer.transport.redaction.MAX_BODY_BYTES", 1000)
        with (
            Script(http("201 Created", "x" * 1001), ACCEPTED) as server,
            pytest.raises(PromptLayerStartUncertainError, match="larger than"),
        ):
            start(server.url)
        assert server.starts == 1

    @pytest.mark.parametrize(
        "first",
        [
            None,
            http("500 Internal Server Error", "{}"),
            http("502 Bad Gateway", "<html>"),
            http("504 Gateway Timeout", ""),
            http(BUSY, '{"workflow_version_execution_id": 7}'),
            http(BUSY, '{"error": "late", "workflow_version_execution_id": 7}', "Retry-After: 0"),
            # A gateway's own, sent when it has lost a request that it had handed on.
            http(BUSY, LOST_UPSTREAM),
            http(BUSY, "<html><h1>503 Service Temporarily Unavailable</h1></html>"),
            http(BUSY, ""),
            http(BUSY, '{"message": "Service Unavailable"}'),
            http(BUSY, '{"error": null}'),
            http(BUSY, '[{"error": "overloaded"}]'),
            http(BUSY, "<html>", "Retry-After: soon"),
            NO_ID,
            http("201 Created", "<html>"),
            http("202 Accepted", ""),
            b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{",
            b"not HTTP at all\r\n\r\n",
        ],
    )
    def test_is_not_sent_again(self, start: Callable[..., int], first: bytes | None) -> None:
        with (
            Script(first, ACCEPTED) as server,
            pytest.raises(PromptLayerStartUncertainError, match="airflow_run_id"),
        ):
            start(server.url)
        assert server.starts == 1

    @pytest.mark.parametrize("status", ["429 Too Many Requests", BUSY])
    def test_is_not_sent_before_the_time_that_was_asked_for(
        self, start: Callable[..., int], status: str
    ) -> None:
        """A retry of the task comes later than this call may wait."""
        with (
            Script(http(status, "{}", "Retry-After: 3600"), ACCEPTED) as server,
            pytest.raises(PromptLayerTransientError, match="1 hour") as raised,
        ):
            start(server.url)
        assert server.starts == 1
        assert raised.value.retry_after == 3600

    @pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
    @pytest.mark.parametrize("after", ["another key", "a pause"])
    def test_is_not_sent_again_for_a_task_that_is_being_stopped(
        self, server: LocalPromptLayer, after: str, is_async: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hook = PromptLayerHook()

        def stop(_: Any) -> Reply:
            hook.stop_starting()
            if after == "a pause":
                return Reply(429, "{}", {"Retry-After": "0"})
            connection = json.loads(server.airflow_connection_json)
            connection["password"] = "pl_another"
            monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps(connection))
            return Reply(401, "{}")

        server.script(stop, method="POST")
        with pytest.raises(PromptLayerTransientError, match="nothing more is started"):
            asyncio.run(hook.arun_workflow("Digest")) if is_async else hook.run_workflow("Digest")
        hook.close()
        assert server.count("POST") == 1

    def test_is_not_sent_for_ever(self, start: Callable[..., int]) -> None:
        busy = http("429 Too Many Requests", "", "Retry-After: 0")
        with Script(*[busy] * 9) as server, pytest.raises(PromptLayerTransientError):
            start(server.url)
        assert server.starts == retries.SUBMITTING.attempts

    def test_a_refused_connection_is_tried_again(
        self, start: Callable[..., int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Exception] = []

        def is_retried(error: Exception) -> bool:
            seen.append(error)
            return retries.started_nothing(error)

        policy = replace(retries.SUBMITTING, attempts=4, retries=is_retried)
        monkeypatch.setattr(retries, "SUBMITTING", policy)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(PromptLayerUnreachableError):
                start(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert [type(error) for error in seen] == [PromptLayerUnreachableError] * 3


class TestKilled:
    """PromptLayer cannot cancel, so the log says that the run goes on, and which."""

    def test_in_the_worker(
        self,
        server: LocalPromptLayer,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        operator = PromptLayerRunWorkflowOperator(
            task_id="t", workflow_id_or_name="Digest", wait_for_completion=False
        )
        operator.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
        operator.on_kill()
        assert "Workflow run 1 goes on" in capsys.readouterr().out + caplog.text

    def test_in_the_triggerer(
        self, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        asyncio.run(PromptLayerWorkflowTrigger(workflow_version_execution_id=7).on_kill())
        assert "Workflow run 7 was going on" in capsys.readouterr().out + caplog.text


def test_a_start_that_was_given_up_while_connecting_is_never_sent(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that was given up goes on with the name server; it must not go on to send."""
    resolve = socket.getaddrinfo
    answered = threading.Event()
    input_fingerprint: list[str] = []

    def slow_at_first(*args: Any, **kwargs: Any) -> Any:
        input_fingerprint.append("")
        if len(input_fingerprint) == 1:
            answered.wait(60)
        return resolve(*args, **kwargs)

    connection = json.loads(server.airflow_connection_json)
    connection["extra"] = {"timeout": 3.0}
    monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps(connection))
    monkeypatch.setattr("urllib3.util.connection.socket.getaddrinfo", slow_at_first)
    before = threading.active_count()
    hook = PromptLayerHook()
    assert hook.run_workflow("Digest") == 1
    answered.set()
    for thread in threading.enumerate():
        if thread.name == "promptlayer-request":
            thread.join(60)
    hook.close()
    assert threading.active_count() <= before
    assert server.count("POST") == 1


def test_a_blip_after_the_deadline_does_not_lose_a_run_that_ended(
    server: LocalPromptLayer,
) -> None:
    """The triggerer saw it end in time, and only fetching the outputs meets trouble."""
    run_id = server.start_execution("Digest")
    long_ago = time.time() - 600
    waiting = state_for(WorkflowRun(run_id), began_at=long_ago, deadline=long_ago + 300)
    event = {"version": 1, "id": run_id, "outcome": "ended", "message": ""}
    server.script(Reply(502))

    class Resumed(PromptLayerWorkflowResultsOperator):
        def execute(self, context: Any) -> Any:
            kwargs = {"waiting": waiting, "event": event}
            return self.resume_execution("execute_complete", kwargs, context)

    ending = run_task(lambda: Resumed(task_id="task", workflow_version_execution_id=run_id))
    assert ending.value == {"Answer": "long"}


def test_clearing_a_task_whose_run_is_gone_starts_another(server: LocalPromptLayer) -> None:
    store = Store()
    store.set(
        "promptlayer_run",
        SubmissionRecord(SubmissionPhase.SUBMITTED, epoch(), 1, server.url, 4711).payload(),
    )
    assert attempt(store).kind == "failed for good"
    assert attempt(store, max_tries=3).kind == "success"


def test_clearing_a_task_for_whose_run_another_server_answers_starts_nothing(
    server: LocalPromptLayer,
) -> None:
    """PromptLayer has not said that the run is gone: it may be going on."""
    store = Store()
    leave(store)
    server.script(Reply(404, "<html>"), method="GET", times=None)
    lost = attempt(store, number=2, max_tries=3, workflow_id_or_name="Slow")
    assert lost.kind == "failed for good"
    server.clear_scripts()
    found = attempt(store, number=3, max_tries=4, workflow_id_or_name="Slow")
    assert found.kind == "success"
    assert server.count("POST") == 1


@contextmanager
def full_xcom(error: type[Exception]) -> Iterator[None]:
    """Let the push of a run's main output fail."""
    push = FakeTaskInstance.xcom_push

    def full(self: FakeTaskInstance, key: str, value: Any) -> None:
        if key == "promptlayer_final_output":
            raise error("no space is left")
        push(self, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTaskInstance, "xcom_push", full)
        yield


@pytest.mark.parametrize("deferrable", [False, True])
class TestOutputsThatCouldNotGoOut:
    """The run has succeeded, and the task has not handed on its outputs."""

    @pytest.mark.parametrize("max_tries", [2, 3], ids=["retry", "clear"])
    def test_corrected_nodes_come_back_to_the_run(
        self, server: LocalPromptLayer, max_tries: int, deferrable: bool
    ) -> None:
        store = Store()
        first = attempt(store, nodes=["Anwser"], deferrable=deferrable)
        assert first.kind == "failed for good"
        assert "has no node 'Anwser'. It has: 'Answer'" in first.message
        ending = attempt(
            store, nodes=["Answer"], number=2, max_tries=max_tries, deferrable=deferrable
        )
        assert (ending.value, server.count("POST")) == ({"Answer": "long"}, 1)

    @pytest.mark.parametrize(("max_tries", "runs"), [(2, 1), (3, 2)], ids=["retry", "clear"])
    def test_a_node_that_the_run_lacks_takes_another_run(
        self, server: LocalPromptLayer, max_tries: int, runs: int, deferrable: bool
    ) -> None:
        """The workflow may have been mended instead: else the task could never succeed."""
        store = Store()
        attempt(store, nodes=["Summary"], deferrable=deferrable)
        attempt(store, nodes=["Summary"], number=2, max_tries=max_tries, deferrable=deferrable)
        assert server.count("POST") == runs

    def test_a_clear_after_trouble_with_xcom_comes_back_to_the_run(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        store = Store()
        with full_xcom(ConnectionError), pytest.raises(ConnectionError):
            attempt(store, deferrable=deferrable)
        ending = attempt(store, number=2, max_tries=3, deferrable=deferrable)
        assert (ending.value, server.count("POST")) == ({"Answer": "long"}, 1)

    @pytest.mark.parametrize("error", [ConnectionError, AirflowException, AirflowNotFoundException])
    def test_where_nothing_remembers_the_run_no_retry_starts_another(
        self, server: LocalPromptLayer, error: type[Exception], deferrable: bool
    ) -> None:
        """Airflow retries after a plain error of its own too, such as an XCom backend raises."""
        with full_xcom(error):
            ending = attempt(None, deferrable=deferrable)
        assert (ending.kind, ending.message) == (
            "failed for good",
            f"{error.__name__}: no space is left",
        )


class TestExecutionTimeout:
    """It fails a task from outside, and the retry would start another run."""

    def deadline(self, counts: bool, allowed: float, **extra: Any) -> float:
        """Return how long after its beginning the task gives up in the triggerer."""
        ti = FakeTaskInstance()
        began = datetime.datetime.now(datetime.UTC)
        ti.start_date = began  # type: ignore[attr-defined]
        context: Any = {"ti": ti, "run_id": ti.run_id, **extra}
        operator = PromptLayerRunWorkflowOperator(
            task_id="task",
            workflow_id_or_name="Slow",
            timeout=10_000.0,
            execution_timeout=datetime.timedelta(seconds=allowed),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(version_compat, "EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED", counts)
            with pytest.raises(TaskDeferred) as deferral:
                operator.execute(context)
        kwargs = deferral.value.trigger.serialize()[1]
        return float(kwargs["state"]["deadline"]) - began.timestamp()

    @pytest.mark.parametrize(("allowed", "waits"), [(1000.0, 940.0), (80.0, 60.0)])
    def test_the_wait_ends_before_it_where_it_counts(
        self, allowed: float, waits: float, server: LocalPromptLayer
    ) -> None:
        assert self.deadline(True, allowed) == pytest.approx(waits, abs=15.0)

    def test_and_nowhere_else(self, server: LocalPromptLayer) -> None:
        assert self.deadline(False, 1000.0) == pytest.approx(10_000.0, abs=15.0)
        assert self.deadline(True, 1000.0, task_state_store=Store()) == pytest.approx(
            10_000.0, abs=15.0
        )

    def test_a_wait_in_the_worker_ends_before_it_everywhere(self, server: LocalPromptLayer) -> None:
        ending = attempt(
            None,
            workflow_id_or_name="Endless",
            deferrable=False,
            execution_timeout=datetime.timedelta(seconds=0.8),
        )
        assert ending.kind == "timeout"


def test_airflow_is_told_of_one_call_of_execute(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 2 takes the call of a base's ``execute`` for one from outside of the task."""
    safeguard: Any = import_module(BaseOperator.__module__).ExecutorSafeguard
    monkeypatch.setattr(safeguard, "test_mode", False)
    operator = PromptLayerRunWorkflowOperator(
        task_id="task",
        workflow_id_or_name="Digest",
        deferrable=False,
        allow_nested_operators=False,
    )
    if hasattr(safeguard, "sentinel_value"):  # Airflow 3
        sentinel = safeguard.sentinel_value
    else:
        sentinel = import_module("airflow.models.base")._sentinel
    ti = FakeTaskInstance()
    context: Any = {"ti": ti, "run_id": ti.run_id}
    outputs = operator.execute(context, **{"PromptLayerRunWorkflowOperator__sentinel": sentinel})
    assert outputs == {"Answer": "long"}
