# SPDX-License-Identifier: Apache-2.0
"""What a try makes of the record that an earlier one has left in Airflow's task state."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    TaskDeferred,
)
from support.kinds import new_server
from support.modes import FakeTaskInstance, Store, epoch, first_event, rebuilt
from support.starts import STARTS, Start

from airflow_provider_promptlayer import transport, version_compat
from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.hooks import connection as hooks_connection
from airflow_provider_promptlayer.hooks import workflows as workflow_methods
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators import workflows as workflow_operators
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.submission.reattach import SubmissionPhase, SubmissionRecord
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply
from airflow_provider_promptlayer.transport import blocking

KEY = "promptlayer_run"


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> Start:
    return STARTS[request.param]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with new_server() as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        yield server


GOOD = SubmissionRecord(SubmissionPhase.SUBMITTED, epoch(), 1, "https://here", 7).payload()
UNREADABLE: dict[str, Any] = {
    "of another version": GOOD | {"version": 2},
    "without a version": {key: value for key, value in GOOD.items() if key != "version"},
    "of an unknown phase": GOOD | {"phase": "celebrated"},
    "without an id": GOOD | {"external_id": None},
    "with an id of another type": GOOD | {"external_id": [7]},
    "without a place": GOOD | {"base_url": None},
    "without a clear epoch": GOOD | {"clear_epoch": None},
    "empty": {},
    "a text": "7",
    "a list": [7],
}
REFERENCE = {"__airflow_state_ref__": "s3://bucket/promptlayer_run"}


class TestUnreadable:
    """What is there and cannot be read is never taken for nothing: a run may hang on it."""

    @pytest.mark.parametrize("kept", UNREADABLE.values(), ids=UNREADABLE)
    def test_starts_nothing_and_asks_a_person(
        self, start: Start, kept: Any, server: LocalPromptLayer
    ) -> None:
        store = Store({KEY: kept})
        for number in (2, 3):  # the second, should Airflow try again all the same
            ending = start.run(store, number=number)
            assert ending.kind == "failed for good", ending
            assert f"task's state ({KEY})" in ending.message
            assert "look" in ending.message
            assert "clear this task to start another" in ending.message
        assert (server.count(), store[KEY]) == (0, kept)
        assert start.run(store, number=4, max_tries=5).kind == "success"
        assert server.count("POST") == 1

    def test_in_a_state_backend_that_this_worker_lacks(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        """However often it is cleared: with the backend it can be read, so it has to be."""
        store = Store()
        first = start.run(store, "never", wait_for_completion=False)
        at_backend, store[KEY] = store[KEY] | {"phase": "submitted"}, REFERENCE
        for number, max_tries in ((2, 2), (3, 5), (4, 8)):
            ending = start.run(store, number=number, max_tries=max_tries)
            assert ending.kind == "failed for good"
            assert "[workers] state_store_backend" in ending.message
        store[KEY] = at_backend
        back = start.run(store, "never", number=5, max_tries=8, wait_for_completion=False)
        assert (back.value, server.count("POST")) == (first.value, 1)

    def test_in_a_state_backend_that_has_lost_it(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        """As in a directory of another machine: Airflow returns None, and no default, then."""
        store = Store({KEY: None})
        for number, max_tries in ((2, 2), (3, 5), (4, 8)):
            ending = start.run(store, number=number, max_tries=max_tries)
            assert ending.kind == "failed for good"
            assert "is not where the state backend has put it" in ending.message
            assert f"delete {KEY} from the task's state" in ending.message
        assert server.count() == 0
        store.delete(KEY)
        assert start.run(store, number=5, max_tries=11).kind == "success"

    def test_the_question_to_a_person(self, start: Start, server: LocalPromptLayer) -> None:
        """Where the note that a person was asked cannot be read, a person is asked once more."""
        store = Store({KEY: UNREADABLE["empty"]})
        start.run(store)
        store["promptlayer_question"] = REFERENCE
        assert start.run(store, number=2, max_tries=3).kind == "failed for good"
        assert start.run(store, number=3, max_tries=5).kind == "success"


ANOTHER_EPOCH = pytest.mark.parametrize(
    "cleared",
    [{"max_tries": 3}, {"max_tries": 2, "carrier": "another"}],
    ids=["cleared", "cleared with retries lowered"],
)


@ANOTHER_EPOCH
class TestCleared:
    """A clear means another run where the docs say so, and nowhere else."""

    def test_after_success(
        self, start: Start, cleared: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        store = Store()
        start.run(store)
        assert start.run(store, number=2, **cleared).kind == "success"
        assert server.count("POST") == 2

    def test_after_a_start_whose_answer_was_lost(
        self, start: Start, cleared: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        store = Store()
        server.script(Close(), method="POST", acted_on=True)
        assert start.run(store).kind == "failed for good"
        assert start.run(store, number=2, **cleared).kind == "success"
        assert server.count("POST") == 2

    def test_after_a_try_that_died_while_sending(
        self, start: Start, cleared: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        """Nobody was told to look yet, so the clear says nothing; the next one does."""
        store = Store(
            {KEY: SubmissionRecord(SubmissionPhase.INTENT, epoch(), 1, "https://here").payload()}
        )
        ending = start.run(store, number=2, **cleared)
        assert ending.kind == "failed for good"
        assert "clear this task to start another" in ending.message
        assert start.run(store, number=3, **cleared).kind == "failed for good"
        assert server.count() == 0
        assert start.run(store, number=4, max_tries=7).kind == "success"

    def test_an_answer_is_about_one_start(
        self, start: Start, cleared: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        """The one that a person has looked for is not the one that died after the clear."""
        store = Store(
            {KEY: SubmissionRecord(SubmissionPhase.INTENT, epoch(), 1, "https://here").payload()}
        )
        start.run(store)
        store[KEY] = SubmissionRecord(SubmissionPhase.INTENT, epoch(5), 2, "https://here").payload()
        assert start.run(store, number=3, **cleared).kind == "failed for good"
        assert server.count() == 0


def test_a_retry_after_a_start_whose_answer_was_lost(
    start: Start, server: LocalPromptLayer
) -> None:
    """Should Airflow try again all the same: without a clear nobody has looked."""
    store = Store()
    server.script(Close(), method="POST", acted_on=True)
    for number in (1, 2, 3):
        assert start.run(store, number=number).kind == "failed for good"
    assert server.count("POST") == 1


class TestNotesOfADeferral:
    """Another release may have written them; a clear error then, and never a second run."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"version": 2}, "has version 2"),
            ({"version": None}, "has version None"),
            ({"job": None}, "has no job"),
            ({"job": {"pipeline": 7}}, "it has pipeline"),
            ({"job_type": "Pipeline"}, "is about a Pipeline"),
            ({"began_at": None}, "has no began_at"),
            ({"deadline": "soon"}, "has a deadline that is no number"),
            ({"outage_since": "noon"}, "has a outage_since that is no number"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("with_store", [True, False], ids=["store", "no store"])
    def test_that_cannot_be_read(
        self,
        start: Start,
        change: dict[str, Any],
        said: str,
        with_store: bool,
        server: LocalPromptLayer,
    ) -> None:
        ti = FakeTaskInstance(max_tries=2)
        context: Any = {"ti": ti, "run_id": ti.run_id}
        if with_store:
            context["task_state_store"] = Store()
        with pytest.raises(TaskDeferred) as left:
            start.make("never", deferrable=True).execute(context)
        waiting = {**(left.value.kwargs or {})["waiting"], **change}
        event = {"version": 1, "id": ti.xcoms[start.id_key], "outcome": "ended", "message": ""}
        resumed = start.make("never", deferrable=True)
        with pytest.raises(AirflowException) as failed:
            resumed.resume_execution(
                left.value.method_name, {"waiting": waiting, "event": event}, context
            )
        assert said in str(failed.value)
        # With a store, a retry goes back to what was started.
        assert isinstance(failed.value, AirflowFailException) is not with_store
        assert server.count("POST") == 1


def test_all_is_ready_before_a_start_is_noted(
    start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies between the note and the start asks a person to look for nothing."""
    happened = []

    def noting(what: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            happened.append(what)
            return function(*args, **kwargs)

        return call

    class NotingStore(Store):
        def set(self, key: str, value: Any) -> None:
            happened.append(value["phase"])
            if value["phase"] == "intent":
                happened.append("imported" if blocking.__name__ in sys.modules else "not imported")
            super().set(key, value)

    # As in a new process. The attribute comes back with the module.
    monkeypatch.setattr(transport, "blocking", blocking)
    monkeypatch.delitem(sys.modules, blocking.__name__)
    get_connection = staticmethod(noting("connection", PromptLayerHook.get_connection))
    monkeypatch.setattr(PromptLayerHook, "get_connection", get_connection)
    for module in (workflow_operators, workflow_methods):
        monkeypatch.setattr(module, "run_workflow", noting("body", module.run_workflow))
    monkeypatch.setattr(requests.Session, "send", noting("sent", requests.Session.send))
    start.run(NotingStore(), "never", wait_for_completion=False)
    body = ["body"] if start is STARTS["workflow run"] else []
    assert happened[: happened.index("submitted")] == [
        *body,
        "connection",
        "intent",
        "imported",
        "sent",
    ]


class Away(Store):
    """Airflow's API server cannot be reached so many times after a start."""

    def __init__(self, times: float, in_between: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.times = times
        self.attempts = 0
        self.in_between = in_between

    def set(self, key: str, value: Any) -> None:
        if value.get("phase") == "submitted":
            self.attempts += 1
            if self.attempts <= self.times:
                self.in_between()
                raise ConnectionError("the API server is away")
        super().set(key, value)


class TestApiServerAwayAfterTheStart:
    """The id is known, and has to be noted."""

    def test_for_a_while(
        self, start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, ti = Away(3), FakeTaskInstance(max_tries=2)
        context: Any = {"ti": ti, "run_id": ti.run_id, "task_state_store": store}
        with pytest.raises(TaskDeferred):
            start.make("never", deferrable=True).execute(context)
        assert (store.attempts, store.phase) == (4, "submitted")
        start.run(store, "never", number=2, wait_for_completion=False)
        assert server.count("POST") == 1

    def test_for_long(
        self, start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        policy = replace(retries.WRITING_TASK_STATE, give_up_after=0.0)
        monkeypatch.setattr(retries, "WRITING_TASK_STATE", policy)
        store = Away(math.inf)
        ti = FakeTaskInstance(try_number=3, max_tries=2)
        context: Any = {"ti": ti, "run_id": ti.run_id, "task_state_store": store}
        with pytest.raises(TaskDeferred):
            start.make("never", deferrable=True).execute(context)
        ending = start.run(store, number=4)
        assert ending.kind == "failed for good"
        assert "the log of try 3 says what was started" in ending.message
        assert server.count("POST") == 1

    def test_a_task_that_is_being_stopped_has_no_time(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        task = start.make("good")
        store, ti = Away(math.inf, in_between=task.on_kill), FakeTaskInstance(max_tries=2)
        context: Any = {"ti": ti, "run_id": ti.run_id, "task_state_store": store}
        with suppress(AirflowException, TaskDeferred):
            task.execute(context)
        assert store.attempts == 1


@pytest.mark.parametrize("cleared", [{}, {"max_tries": 3}, {"carrier": "another"}], ids=str)
def test_stopped_while_the_start_is_sent(
    start: Start,
    cleared: dict[str, Any],
    server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a clear stops a running task. Both logs say how to look for what goes on."""
    store, ti, task = Store(), FakeTaskInstance(max_tries=2), start.make("never")
    send = blocking.BlockingTransport.send

    def killed(self: Any, request: Any) -> Any:
        send(self, request)
        task.on_kill()
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking.BlockingTransport, "send", killed)
        with pytest.raises(SystemExit):
            task.execute({"ti": ti, "run_id": ti.run_id, "task_state_store": store})
    how_to_look = task.new_submission({"ti": ti}).how_to_find(1)
    assert how_to_look in capsys.readouterr().out + caplog.text
    assert ("airflow_try_number='1'" in how_to_look) == (start is STARTS["workflow run"])
    ending = start.run(store, "never", number=2, **cleared)
    assert ending.kind == "failed for good"
    assert how_to_look in ending.message
    assert server.count("POST") == 1


def test_durable_is_another_name_of_reattach(start: Start, server: LocalPromptLayer) -> None:
    store = Store()
    start.run(store, durable=False)
    start.run(store, durable=False, number=2)
    assert server.count("POST") == 2
    assert store == {}
    assert start.make(durable=True, reattach=True).reattach
    with pytest.raises(PromptLayerInvalidInputError, match="durable=True contradicts reattach=Fa"):
        start.make(durable=True, reattach=False)
    assert not PromptLayerRunWorkflowBatchOperator(
        task_id="batch", workflow_id_or_name="good", inputs=[], durable=False
    ).reattach


class TestElsewhere:
    """The connection leads to another PromptLayer, where the same id is of something else."""

    @pytest.fixture
    def there(self) -> Iterator[LocalPromptLayer]:
        with new_server() as other:
            other.start_execution("good")  # it has a run 1 too
            yield other

    @staticmethod
    def lead_to(server: LocalPromptLayer) -> None:
        os.environ["AIRFLOW_CONN_PROMPTLAYER_DEFAULT"] = server.airflow_connection_json

    @staticmethod
    def leave(start: Start, store: Store) -> tuple[Any, Any, Any]:
        """Start it and leave the worker; return the deferral, the context and the id."""
        ti = FakeTaskInstance(max_tries=2)
        context: Any = {"ti": ti, "run_id": ti.run_id, "task_state_store": store}
        with pytest.raises(TaskDeferred) as left:
            start.make("never", deferrable=True).execute(context)
        return left.value, context, ti.xcoms[start.id_key]

    def test_a_retry_asks_for_it_nowhere_else(
        self, start: Start, server: LocalPromptLayer, there: LocalPromptLayer
    ) -> None:
        store = Store()
        *_, its_id = self.leave(start, store)
        self.lead_to(there)
        ending = start.run(store, "never", number=2)
        assert ending.kind == "failed for good"
        assert f"{its_id} was started at {server.url}" in ending.message
        assert f"leads to {there.url} now" in ending.message
        assert there.count() == 0
        self.lead_to(server)  # corrected, and cleared
        back = start.run(store, "never", number=3, max_tries=5, wait_for_completion=False)
        assert (back.value, server.count("POST")) == (its_id, 1)

    def test_a_clear_starts_another(
        self,
        start: Start,
        server: LocalPromptLayer,
        there: LocalPromptLayer,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        store = Store()
        self.leave(start, store)
        self.lead_to(there)
        assert start.run(store, number=2, max_tries=3).kind == "success"
        assert (server.count("POST"), there.count("POST")) == (1, 1)
        log = capsys.readouterr().out + caplog.text
        assert f"What an earlier try started at {server.url} is left to itself" in log

    @pytest.mark.parametrize("max_tries", [2, 3], ids=["retry", "cleared"])
    def test_a_try_that_learns_of_it_when_it_asks(
        self, start: Start, max_tries: int, server: LocalPromptLayer, there: LocalPromptLayer
    ) -> None:
        """With a key that is refused, the connection is read again, and may lead elsewhere."""
        store = Store()
        self.leave(start, store)

        def move(_: Any) -> Reply:
            self.lead_to(there)
            return Reply.of_json({"success": False, "message": "no"}, 401)

        server.script(move, method="GET", times=None)
        ending = start.run(store, "never", number=2, max_tries=max_tries, timeout=60.0)
        assert ending.kind == "failed", ending
        assert there.count() == 0

    def test_another_connection_to_the_same_place(
        self, start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store()
        *_, its_id = self.leave(start, store)
        connection = json.loads(server.airflow_connection_json)
        connection["host"] = connection["host"].replace("http://", "HTTP://") + "/"
        monkeypatch.setenv("AIRFLOW_CONN_SAME", json.dumps(connection))
        ending = start.run(
            store, "never", number=2, promptlayer_conn_id="same", wait_for_completion=False
        )
        assert (ending.value, server.count("POST")) == (its_id, 1)

    @pytest.mark.parametrize(
        ("with_store", "keeps", "remedy"),
        [
            (True, True, "clear this task, to go back"),
            (True, False, "clear this task with keep_task_state, to go back"),
            (False, False, "Before you clear this task, which starts another one"),
        ],
        ids=["store", "store, Airflow 3.4", "no store"],
    )
    def test_a_worker_that_resumes(
        self,
        start: Start,
        with_store: bool,
        keeps: bool,
        remedy: str,
        server: LocalPromptLayer,
        there: LocalPromptLayer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(version_compat, "CLEAR_KEEPS_STATE", keeps)
        left, context, its_id = self.leave(start, Store())
        if not with_store:
            del context["task_state_store"]
        self.lead_to(there)
        event = {"version": 1, "id": its_id, "outcome": "ended", "message": ""}
        said = f"{its_id} was started at {server.url}.*{remedy}"
        with pytest.raises(AirflowFailException, match=said):
            start.make("never", deferrable=True).resume_execution(
                left.method_name, {**left.kwargs, "event": event}, context
            )
        assert there.count() == 0

    def test_a_triggerer_that_begins(
        self, start: Start, server: LocalPromptLayer, there: LocalPromptLayer
    ) -> None:
        left, context, its_id = self.leave(start, Store())
        self.lead_to(there)
        event = asyncio.run(first_event(rebuilt(left.trigger)))
        assert event.payload["outcome"] == "refused"
        with pytest.raises(AirflowFailException, match=f"{its_id} was started at {server.url}"):
            start.make("never", deferrable=True).resume_execution(
                left.method_name, {**left.kwargs, "event": event.payload}, context
            )
        assert there.count() == 0

    @pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
    def test_a_wait_goes_on_where_it_began(
        self,
        start: Start,
        deferrable: bool,
        server: LocalPromptLayer,
        there: LocalPromptLayer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Where it is out of reach, no other PromptLayer is asked instead; it may come back."""
        monkeypatch.setattr(hooks_connection, "_READ_AGAIN_SECONDS", 0.0)

        def move() -> None:
            server.wait_for(lambda: server.count("GET") >= 2, 60.0)
            self.lead_to(there)
            server.stop()

        mover = threading.Thread(target=move)
        mover.start()
        ending = start.run(Store(), "never", deferrable=deferrable, max_outage=0.5, timeout=60)
        mover.join()
        assert ending.kind == "failed", ending
        assert there.count() == 0
        log = capsys.readouterr().out + caplog.text
        assert f"leads to {there.url} now. PromptLayer is asked about it" in log
