# SPDX-License-Identifier: Apache-2.0
"""What a try makes of the record that an earlier one has left in Airflow's task state."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    TaskDeferred,
)
from support.modes import FakeTaskInstance, Store, epoch
from support.needs import needs_task_state
from support.processes import in_new_process, noting
from support.starts import RUN_WORKFLOW, STARTS, Start, deferred

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.hooks import workflows as workflow_methods
from airflow_provider_promptlayer.operators import workflows as workflow_operators
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.submission.reattach import SubmissionPhase, SubmissionRecord
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer
from airflow_provider_promptlayer.transport import blocking

KEY = "promptlayer_run"


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> Start:
    return STARTS[request.param]


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


def sending(clear_epoch: str, try_number: int) -> dict[str, Any]:
    """Return the record of a try that died while it sent the start."""
    phase = SubmissionPhase.INTENT
    return SubmissionRecord(phase, clear_epoch, try_number, "https://here").payload()


class TestUnreadable:
    """What is there and cannot be read is never taken for nothing: it may be about a run."""

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

    @pytest.mark.parametrize(
        ("kept", "says"),
        [
            (REFERENCE, "[workers] state_store_backend"),
            # As in a directory of another machine: Airflow returns None, and no default, then.
            (None, "is not where the state backend has put it"),
        ],
        ids=["that this worker lacks", "that has lost it"],
    )
    def test_in_a_state_backend(
        self, start: Start, kept: Any, says: str, server: LocalPromptLayer
    ) -> None:
        """However often it is cleared: with the backend it can be read, so it has to be."""
        store = Store()
        first = start.run(store, "never", wait_for_completion=False)
        at_backend, store[KEY] = store[KEY] | {"phase": "submitted"}, kept
        for number, max_tries in ((2, 2), (3, 5), (4, 8)):
            ending = start.run(store, number=number, max_tries=max_tries)
            assert ending.kind == "failed for good"
            assert says in ending.message
            assert f"delete {KEY} from the task's state" in ending.message
        store[KEY] = at_backend
        back = start.run(store, "never", number=5, max_tries=8, wait_for_completion=False)
        assert (back.value, server.count("POST")) == (first.value, 1)
        store.delete(KEY)
        assert start.run(store, number=6, max_tries=11).kind == "success"

    def test_a_question_that_cannot_be_read_is_asked_again(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        store = Store({KEY: UNREADABLE["empty"]})
        start.run(store)
        store["promptlayer_question"] = REFERENCE
        assert start.run(store, number=2, max_tries=3).kind == "failed for good"
        assert start.run(store, number=3, max_tries=5).kind == "success"


@pytest.mark.parametrize(
    "cleared",
    [
        {"max_tries": 3},
        pytest.param({"max_tries": 2, "carrier": "another"}, marks=needs_task_state),
    ],
    ids=["cleared", "cleared with retries lowered"],
)
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
        """A retry, should there be one, starts nothing: without a clear no person has looked."""
        store = Store()
        server.script(Close(), method="POST", acted_on=True)
        for number in (1, 2, 3):
            assert start.run(store, number=number).kind == "failed for good"
        assert server.count("POST") == 1
        assert start.run(store, number=4, **cleared).kind == "success"
        assert server.count("POST") == 2

    def test_after_a_try_that_died_while_sending(
        self, start: Start, cleared: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        """No log had asked a person to look, so the first clear does not mean that one has."""
        store = Store({KEY: sending(epoch(), 1)})
        for number in (2, 3):
            ending = start.run(store, number=number, **cleared)
            assert ending.kind == "failed for good"
            assert "clear this task to start another" in ending.message
        assert server.count() == 0
        assert start.run(store, number=4, max_tries=7).kind == "success"

    def test_an_answer_is_about_one_start(
        self, start: Start, cleared: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        """The start that a person has looked for is not the one that died after the clear."""
        store = Store({KEY: sending(epoch(), 1)})
        start.run(store)
        store[KEY] = sending(epoch(5), 2)
        assert start.run(store, number=3, **cleared).kind == "failed for good"
        assert server.count() == 0


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
def test_a_deferral_that_cannot_be_read(
    start: Start, change: dict[str, Any], said: str, store: Store | None, server: LocalPromptLayer
) -> None:
    """Another release may have written it; a clear error then, and never a second run."""
    ti = FakeTaskInstance(max_tries=2)
    left = deferred(start.make("never"), store, ti)
    waiting = {**(left.kwargs or {})["waiting"], **change}
    event = {"version": 1, "id": ti.xcoms[start.id_key], "outcome": "ended", "message": ""}
    with pytest.raises(AirflowException) as failed:
        start.make("never").resume_execution(
            left.method_name,
            {"waiting": waiting, "event": event},
            {"ti": ti, "task_state_store": store},
        )
    assert said in str(failed.value)
    # With a store, a retry goes back to the job.
    assert isinstance(failed.value, AirflowFailException) is (store is None)
    assert server.count("POST") == 1


def test_all_is_ready_before_a_start_is_noted(
    start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a worker dies between the two, a person has to look for a run that was never started."""
    happened: list[str] = []

    class NotingStore(Store):
        def set(self, key: str, value: Any) -> None:
            happened.append(value["phase"])
            if value["phase"] == "intent":
                happened.append("imported" if blocking.__name__ in sys.modules else "not imported")
            super().set(key, value)

    in_new_process(monkeypatch, happened)
    for module in (workflow_operators, workflow_methods):
        body = noting(happened, "body", module.run_workflow)
        monkeypatch.setattr(module, "run_workflow", body)
    start.run(NotingStore(), "never", wait_for_completion=False)
    steps = ["connection", "intent", "imported", "sent"]
    if start is RUN_WORKFLOW:
        steps.insert(0, "body")
    assert happened[: happened.index("submitted")] == steps


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

    def test_for_a_while(self, start: Start, server: LocalPromptLayer) -> None:
        store = Away(3)
        deferred(start.make("never"), store)
        assert (store.attempts, store.phase) == (4, "submitted")
        start.run(store, "never", number=2, wait_for_completion=False)
        assert server.count("POST") == 1

    def test_for_long(
        self, start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        policy = replace(retries.WRITING_TASK_STATE, give_up_after=0.0)
        monkeypatch.setattr(retries, "WRITING_TASK_STATE", policy)
        store = Away(math.inf)
        deferred(start.make("never"), store, FakeTaskInstance(try_number=3, max_tries=2))
        ending = start.run(store, number=4)
        assert ending.kind == "failed for good"
        assert "the log of try 3 says what was started" in ending.message
        assert "it was killed, or Airflow could not be reached" in ending.message
        assert server.count("POST") == 1

    def test_a_task_that_is_being_stopped_has_no_time(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        task = start.make("good")
        store, ti = Away(math.inf, in_between=task.on_kill), FakeTaskInstance(max_tries=2)
        with suppress(AirflowException, TaskDeferred):
            task.execute({"ti": ti, "run_id": ti.run_id, "task_state_store": store})
        assert store.attempts == 1


@pytest.mark.parametrize("cleared", [{}, {"max_tries": 3}, {"carrier": "another"}], ids=str)
def test_stopped_while_the_start_is_sent(
    start: Start, cleared: dict[str, Any], server: LocalPromptLayer, log: Callable[[], str]
) -> None:
    """As a clear stops a running task. Both logs say how to look for the run that goes on."""
    store, ti, task = Store(), FakeTaskInstance(max_tries=2), start.make("never")
    send = blocking.BlockingTransport.send

    def killed(self: Any, request: Any, *how: Any) -> Any:
        send(self, request, *how)
        task.on_kill()
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocking.BlockingTransport, "send", killed)
        with pytest.raises(SystemExit):
            task.execute({"ti": ti, "run_id": ti.run_id, "task_state_store": store})
    how_to_look = task.new_submission({"ti": ti}).how_to_find(1)
    assert how_to_look in log()
    assert ("airflow_try_number='1'" in how_to_look) == (start is RUN_WORKFLOW)
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
