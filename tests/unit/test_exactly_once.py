# SPDX-License-Identifier: Apache-2.0
"""A job is started once: whatever the network does, and whichever try it is.

At this server a second passes with each poll: the good and the bad job still run at the first poll
and have ended at the second.
"""

from __future__ import annotations

import socket
import threading
from importlib import import_module
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, BaseOperator
from support.arguments import AT_RUN_TIME
from support.connections import connect
from support.kinds import OUTPUTS, SHEETS, Serve, new_server
from support.modes import FakeTaskInstance, Store
from support.starts import (
    RUN_REPORT,
    RUN_SCORECARD,
    RUN_TABLE,
    RUN_WORKFLOW,
    Start,
    every_evaluation,
    every_start,
)

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server(by_polls=True))


@every_start
def test_good(start: Start, deferrable: bool, server: LocalPromptLayer) -> None:
    ending = start.run(deferrable=deferrable)
    assert ending.kind == "success", ending
    (its_id,) = start.started(server)
    assert ending.xcoms[start.id_key] == its_id
    assert start is RUN_WORKFLOW or ending.value[start.kind.id_name] == its_id
    assert server.count("POST") == 1


@every_start
def test_without_waiting(start: Start, server: LocalPromptLayer) -> None:
    store = Store()
    ending = start.run(store, "never", wait_for_completion=False)
    (its_id,) = start.started(server)
    assert (ending.kind, ending.value) == ("success", its_id)
    assert ending.xcoms == {start.id_key: its_id, "return_value": its_id}
    assert start.run(store, "never", wait_for_completion=False, number=2).value == its_id
    assert (server.count("POST"), server.count("GET")) == (1, 0)


@every_start
def test_a_poke_starts_nothing(start: Start, server: LocalPromptLayer) -> None:
    """Airflow takes the operators for sensors, and a poke must not start a job at each call."""
    with pytest.raises(AirflowException):
        start.make("good").poke({"ti": FakeTaskInstance()})
    assert server.count() == 0


@every_start
def test_do_xcom_push_false_pushes_nothing(start: Start, server: LocalPromptLayer) -> None:
    assert start.run(do_xcom_push=False).xcoms == {}


BAD_INPUT: list[tuple[Start, dict[str, Any], str]] = [
    (RUN_WORKFLOW, {"workflow_id_or_name": "Digst"}, "404"),
    (RUN_WORKFLOW, {"workflow_id_or_name": " "}, "empty"),
    (RUN_WORKFLOW, {"workflow_id_or_name": None}, "name or a number"),
    (RUN_WORKFLOW, {"workflow_label_name": "staging"}, "404"),
    (RUN_WORKFLOW, {"workflow_label_name": "a", "workflow_version_number": 1}, "exclude each"),
    (RUN_WORKFLOW, {"input_variables": "None"}, "or one as JSON, not 'None'"),
    (RUN_WORKFLOW, {"input_variables": {"t": object()}}, "cannot be sent as JSON"),
    (RUN_WORKFLOW, {"metadata": {"m": {}}}, "metadata['m'] must be a string"),
    (RUN_WORKFLOW, {"nodes": 3}, "nodes must be a list"),
    (RUN_TABLE, {"table_id": "Support answers"}, "table_id must be a UUID"),
    (RUN_TABLE, {"table_id": SHEETS["good"].id}, "Check table_id, sheet_id"),
    (RUN_TABLE, {"row_ids": "None"}, "row_ids must be a list"),
    (RUN_TABLE, {"column_ids": [SHEETS["good"].columns[0].id]}, "Text columns cannot be recalc"),
    (RUN_TABLE, {"statuses": ["OLD"]}, "'OLD' is none of them"),
    (RUN_SCORECARD, {"row_indices": [-1]}, "row_indices[0] must be a row number"),
    (RUN_SCORECARD, {"row_indices": [99]}, "Check that the sheet has a scorecard"),
    (RUN_SCORECARD, {"step_ids": ["polite"]}, "step_ids[0] must be a UUID"),
    (RUN_SCORECARD, {"fail_on_verdict": ["bad"]}, "fail_on_verdict must be one of"),
    (RUN_SCORECARD, {"fail_on_verdict": None}, "fail_on_verdict must be a list"),
    (RUN_SCORECARD, {"min_score": "high"}, "min_score must be a number"),
    (RUN_REPORT, {"report_id": 4711}, "Check report_id"),
    (RUN_REPORT, {"name": " "}, "name must be a text"),
    (RUN_REPORT, {"dataset_id": "x"}, "dataset_id must be a positive integer"),
    (RUN_REPORT, {"refresh_dataset": True}, "Dataset refresh is not allowed"),
    (RUN_REPORT, {"min_score": 100.5}, "min_score must be a number from 0 to 100"),
]


@pytest.mark.parametrize(
    ("start", "wrong", "says"),
    BAD_INPUT,
    ids=lambda value: "" if isinstance(value, Start) else str(value).partition(" object at")[0],
)
def test_bad_input_starts_nothing(
    start: Start, wrong: dict[str, Any], says: str, server: LocalPromptLayer
) -> None:
    ending = start.run(**wrong, **AT_RUN_TIME)
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert "\n" not in ending.message
    assert start.started(server) == {}


class TestStart:
    """Whatever comes of the request, no second job is started, and billed."""

    @pytest.mark.parametrize(
        "fault",
        [Close(), Reply(500), Reply(502, "<html>"), Reply(201, "{}"), Reply(200, "<html>")],
        ids=str,
    )
    @every_start
    def test_a_lost_answer_is_not_asked_for_again(
        self, start: Start, fault: Any, server: LocalPromptLayer
    ) -> None:
        store = Store()
        server.script(fault, method="POST", acted_on=True)
        for number in (1, 2):
            ending = start.run(store, number=number)
            assert ending.kind == "failed for good", ending
            assert "look" in ending.message
        assert len(start.started(server)) == server.count("POST") == 1

    @every_start
    def test_a_lost_answer_is_not_asked_for_again_without_a_store(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        server.script(Close(), method="POST", acted_on=True)
        assert start.run().kind == "failed for good"
        assert server.count("POST") == 1

    @every_evaluation
    def test_a_refusal_that_names_what_was_started_is_not_asked_for_again(
        self, start: Start, store: Store | None, server: LocalPromptLayer
    ) -> None:
        named = {"message": "Busy", start.kind.id_name: 4711}
        server.script(Reply.of_json(named, 409), method="POST", acted_on=True)
        ending = start.run(store)
        assert ending.kind == "failed for good", ending
        assert f"has the {start.kind.id_name} '4711' all the same" in ending.message
        if store is not None:  # a person has to look, whatever retries there are
            assert start.run(store, number=2).kind == "failed for good"
        assert len(start.started(server)) == server.count("POST") == 1

    @pytest.mark.parametrize("status", [429, 503])
    @every_start
    def test_a_start_that_did_not_arrive_is_sent_again(
        self, start: Start, status: int, server: LocalPromptLayer
    ) -> None:
        server.script(Reply(status, "{}", {"Retry-After": "0"}), method="POST", times=2)
        assert start.run().kind == "success"
        assert (len(start.started(server)), server.count("POST")) == (1, 3)

    @every_start
    def test_an_answer_with_the_id_alone_will_do(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        server.script(
            lambda _: Reply.of_json({start.kind.id_name: start.kind.begin(server, "good")}, 202),
            method="POST",
            times=None,
        )
        ending = start.run()
        assert ending.kind == "success", ending
        (its_id,) = start.started(server)
        assert ending.xcoms[start.id_key] == its_id
        assert server.count("POST") == 1

    def test_a_start_that_is_to_come_much_later_is_left_to_a_retry(
        self, store: Store | None, server: LocalPromptLayer
    ) -> None:
        server.script(Reply(429, "{}", {"Retry-After": "3600"}), method="POST")
        first = RUN_WORKFLOW.run(store)
        assert (first.kind, server.count("POST")) == ("failed", 1)
        assert "1 hour" in first.message
        assert RUN_WORKFLOW.run(store, number=2).kind == "success"

    def test_a_start_that_was_given_up_while_connecting_is_never_sent(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The thread that was given up still waits for the name server; it must not send then."""
        resolve = socket.getaddrinfo
        answered = threading.Event()
        questions: list[Any] = []

        def slow_at_first(*args: Any, **kwargs: Any) -> Any:
            questions.append(args)
            if len(questions) == 1:
                answered.wait(60)
            return resolve(*args, **kwargs)

        connect(server, monkeypatch, timeout=1.0)
        monkeypatch.setattr("urllib3.util.connection.socket.getaddrinfo", slow_at_first)
        before = threading.active_count()
        hook = PromptLayerHook()
        assert hook.run_workflow("good") == 1
        answered.set()
        for thread in threading.enumerate():
            if thread.name == "promptlayer-request":
                thread.join(60)
        hook.close()
        assert threading.active_count() <= before
        assert server.count("POST") == 1


def test_airflow_is_told_of_one_call_of_execute(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 2 takes the call of a base's ``execute`` for one from outside of the task."""
    safeguard: Any = import_module(BaseOperator.__module__).ExecutorSafeguard
    monkeypatch.setattr(safeguard, "test_mode", False)
    operator = RUN_WORKFLOW.make(deferrable=False, allow_nested_operators=False)
    if hasattr(safeguard, "sentinel_value"):  # Airflow 3
        sentinel = safeguard.sentinel_value
    else:
        sentinel = import_module("airflow.models.base")._sentinel
    ti = FakeTaskInstance()
    context: Any = {"ti": ti, "run_id": ti.run_id}
    outputs = operator.execute(context, **{"PromptLayerRunWorkflowOperator__sentinel": sentinel})
    assert outputs == OUTPUTS
