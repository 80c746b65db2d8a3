# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a batch: refused starts, lost answers, outages, and time that is up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred
from support.batches import (
    answers,
    context_of,
    each_once,
    numbered,
    retry,
    run,
    starts,
    task,
)
from support.clocks import Leap
from support.modes import FakeTaskInstance, Store

from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.testing import Close, Huge, LocalPromptLayer, Reply

NO_MORE = Reply(429, headers={"Retry-After": "0"})
UNKNOWN = Reply.of_json({"success": False, "message": "No such execution."}, 404)


INDEX = "airflow_batch_index=1"


@pytest.mark.parametrize(
    ("fault", "arrives", "says"),
    [
        *((Reply.of_json({"message": "bad tea"}, of), False, "bad tea") for of in (400, 413, 422)),
        (Reply(500), False, INDEX),
        (Close(), True, INDEX),
        (Huge(10**9), True, INDEX),
    ],
    ids=["400", "413", "422", "500", "answer lost", "answer too large"],
)
def test_a_refused_or_unanswered_start_fails_its_input_alone(
    server: LocalPromptLayer, deferrable: bool, fault: Any, arrives: bool, says: str
) -> None:
    server.script(fault, method="POST", after=1, acted_on=arrives)
    ending = run(numbered(4), min_success_rate=0.75, deferrable=deferrable)
    assert ending.value == answers(0, None, 2, 3)
    assert ending.xcoms["promptlayer_execution_ids"][1] is None
    assert says in ending.xcoms["promptlayer_errors"][1]
    assert starts(server) == (each_once(4) if arrives else Counter([0, 2, 3]))


class TestRefusals:
    def test_are_no_reason_to_try_again(
        self, server: LocalPromptLayer, store: Store | None
    ) -> None:
        server.script(Reply(422), method="POST")
        assert run(numbered(2), store=store).kind == "failed for good"

    @pytest.mark.parametrize(
        ("status", "says"), [(401, "API key"), (404, "no such thing"), (302, "redirect")]
    )
    def test_of_all_end_the_task_at_once(
        self, server: LocalPromptLayer, status: int, says: str
    ) -> None:
        refusal = Reply.of_json({"success": False, "message": "no"}, status)
        server.script(refusal, method="POST", after=2, times=None)
        ending = run(numbered(9), store=(store := Store()))
        assert ending.kind == ("failed" if status == 401 else "failed for good")
        assert says in ending.message
        assert "2 runs that were started go on" in ending.message
        assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, *[None] * 7]
        server.clear_scripts()
        # A retry starts the others, wherever they stand in the list by then.
        assert run(numbered(9)[::-1], retry(), store).value == answers(*range(9))[::-1]
        assert starts(server) == each_once(9)

    def test_of_the_first_leave_nothing_behind(self, server: LocalPromptLayer) -> None:
        ending = run(workflow="Ecko")
        assert ending.kind == "failed for good"
        assert "go on" not in ending.message
        assert server.count("POST") == 1


class TestStartsThatAreRefusedForTheMoment:
    @pytest.mark.parametrize("status", [429, 503])
    def test_are_sent_again(self, server: LocalPromptLayer, status: int) -> None:
        server.script(Reply(status, headers={"Retry-After": "0"}), method="POST", after=1, times=2)
        assert run(numbered(3)).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_wait_for_the_runs_that_go_on(self, server: LocalPromptLayer, deferrable: bool) -> None:
        server.script(NO_MORE, method="POST", after=2, times=5)
        ending = run(workflow="Slow", deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3, 4)
        assert ending.worker_visits == (3 if deferrable else 1)
        assert starts(server) == each_once(5)

    def test_all_may_be_tried_again(self, server: LocalPromptLayer, store: Store | None) -> None:
        server.script(NO_MORE, method="POST", times=None)
        ending = run(numbered(3), store=store)
        assert ending.kind == "failed"
        assert "429" in ending.message
        server.clear_scripts()
        assert run(numbered(3), retry(), store).kind == "success"
        assert starts(server) == each_once(3)


class TestOneRun:
    """Trouble with one run is a failure of one input."""

    @pytest.mark.parametrize("status", [429, 500, 502])
    def test_a_failed_poll_is_repeated(
        self, server: LocalPromptLayer, deferrable: bool, status: int
    ) -> None:
        for after in (1, 4):
            server.script(Reply(status), method="GET", after=after, times=1)
        ending = run(numbered(4), workflow="Slow", deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3)
        assert ending.worker_visits <= 2

    def test_that_was_said_to_have_ended_too_early(self, server: LocalPromptLayer) -> None:
        """PromptLayer's status code has been wrong for a moment; the results tell."""
        server.script(Reply(200, '"early"'), method="GET", execution_id=2)
        assert run(numbered(3), workflow="Slow").value == answers(0, 1, 2)

    def test_that_goes_on_after_all_is_waited_for(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        def early(request: Any) -> Reply | None:
            is_status = request.query.get("return_all_outputs") == "false"
            return Reply(200, '"early"') if is_status else None

        server.script(early, method="GET", execution_id=1, times=None)
        ending = run(
            numbered(1), workflow="Endless", deferrable=deferrable, timeout=0.5, poke_interval=0.2
        )
        assert ending.kind == "timeout"
        assert server.count("GET") < 20

    @pytest.mark.parametrize(
        ("reply", "places", "broken"),
        # With one at a time, an outage of the first one is all that is known.
        [
            (UNKNOWN, None, 1),
            *((Reply(502), *case) for case in [(None, 0), (None, 1), (1, 1), (1, 2)]),
        ],
    )
    def test_that_is_gone_or_cannot_be_polled(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        reply: Reply,
        places: int | None,
        broken: int,
    ) -> None:
        server.script(reply, method="GET", execution_id=broken + 1, times=None)
        ending = run(
            numbered(3),
            workflow="Slow",
            deferrable=deferrable,
            min_success_rate=0.6,
            max_active_runs=places,
            max_outage=0.4,
        )
        assert ending.value == answers(*(None if n == broken else n for n in range(3))), ending
        assert str(reply.status) in ending.xcoms["promptlayer_errors"][broken]

    def test_that_cannot_be_read_long_after_the_others(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        first = time.monotonic()

        def gone_later(request: Any) -> Reply:
            return Reply(202, "{}") if time.monotonic() < first + 0.8 else Reply(502)

        server.script(gone_later, method="GET", execution_id=2, times=None)
        ending = run(numbered(3), deferrable=deferrable, min_success_rate=0.6, max_outage=0.3)
        assert ending.value == answers(0, None, 2), ending

    def test_that_could_not_be_read_is_read_by_a_retry(self, server: LocalPromptLayer) -> None:
        store = Store()
        server.script(Reply(502), method="GET", execution_id=2, times=None)
        assert run(numbered(3), store=store, max_outage=0.2).kind == "failed"
        server.clear_scripts()
        assert run(numbered(3), retry(), store).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)


class TestOutages:
    """An outage of PromptLayer is no failure of single inputs."""

    def test_may_be_retried_where_the_runs_are_noted(
        self, server: LocalPromptLayer, deferrable: bool, store: Store | None
    ) -> None:
        server.script(Reply(502), method="GET", times=None)
        ending = run(
            store=store,
            workflow="Slow",
            deferrable=deferrable,
            min_success_rate=0.0,
            max_outage=0.2,
        )
        assert ending.kind == ("failed for good" if store is None else "failed"), ending
        assert "longer than max_outage" in ending.message
        assert ending.xcoms == {"promptlayer_execution_ids": [1, 2, 3, 4, 5]}
        server.clear_scripts()
        if store is not None:
            assert run(ti=retry(), store=store).kind == "success"
            assert starts(server) == each_once(5)

    def test_while_the_results_are_read(self, server: LocalPromptLayer) -> None:
        whole: list[Any] = []

        def away_after_the_first(request: Any) -> Reply | None:
            if request.query.get("return_all_outputs") == "true":
                whole.append(request)
            return Reply(502) if len(whole) > 1 else None

        server.script(away_after_the_first, method="GET", times=None)
        ending = run(
            numbered(12), store=Store(), deferrable=False, min_success_rate=0.0, max_outage=0.2
        )
        assert ending.kind == "failed", ending
        assert "promptlayer_errors" not in ending.xcoms

    @pytest.mark.parametrize("gap", [0.0, 3600.0], ids=["at once", "after an hour"])
    def test_of_two_workers_are_one_if_one_follows_the_other(
        self, server: LocalPromptLayer, gap: float, leap: Leap
    ) -> None:
        """In an hour in between, the triggerer was answered."""
        context = context_of(FakeTaskInstance())
        began: list[float | None] = []
        kwargs: dict[str, Any] = {}
        for visit in range(3):
            arguments: dict[str, Any] = {"max_active_runs": 2, "max_outage": 1800.0}
            visiting = task(numbered(4), "Endless", **arguments)
            resume = partial(visiting.resume_execution, "execute_complete", kwargs)
            with pytest.raises(TaskDeferred) as left:
                (resume if visit else visiting.execute)(context)
            state, notes = left.value.trigger.state, left.value.kwargs or {}
            began.append(state.fetch_outage_since)
            kwargs = {**notes, "event": {"version": 1, "id": state.job.id, "outcome": "ended"}}
            if not visit:
                server.script(Reply(502), method="GET", times=None)
            leap(gap)
        assert began[0] is None
        assert (began[1] == began[2]) is (gap == 0.0)


GIVEN = "8 minutes 20 seconds"


class TestTimeIsUp:
    """After ``timeout=500.0``."""

    @pytest.mark.parametrize(("rate", "kind"), [(1.0, "timeout"), (0.2, "success")])
    def test_while_inputs_are_left(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap, rate: float, kind: str
    ) -> None:
        def late(_: Any) -> None:
            if server.count("POST") == 3:  # and this is the fourth
                leap(1000.0)

        server.script(late, method="POST", times=None)
        ending = run(
            numbered(9),
            workflow="Slow",
            max_active_runs=2,
            deferrable=deferrable,
            timeout=500.0,
            min_success_rate=rate,
        )
        assert ending.kind == kind, ending
        assert starts(server) == each_once(4)
        errors = ending.xcoms["promptlayer_errors"]
        assert errors[-1] == f"No run was started within {GIVEN}."
        results = ending.value if kind == "success" else ending.xcoms["return_value"]
        assert results[0] == {"Answer": 0}

    @pytest.mark.parametrize(
        ("rate", "kind"), [(1.0, "timeout"), (0.7, "timeout"), (0.5, "success"), (0.0, "success")]
    )
    def test_the_results_of_the_runs_that_have_ended_are_returned(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap, rate: float, kind: str
    ) -> None:
        """And the rate decides, as it does in time."""
        polls: list[Any] = []

        def goes_on(_: Any) -> Reply:
            polls.append(1)
            if len(polls) == 8:  # worker or triggerer knows that the others have ended
                leap(1000.0)
            return Reply(202, "{}")

        for execution_id in (2, 3):
            server.script(goes_on, method="GET", execution_id=execution_id, times=None)
        ending = run(
            numbered(4),
            workflow="Slow",
            deferrable=deferrable,
            timeout=500.0,
            min_success_rate=rate,
        )
        assert ending.kind == kind, ending
        assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, 3, 4]
        results = ending.value if kind == "success" else ending.xcoms["return_value"]
        assert results == answers(0, None, None, 3)
        first, *late, last = ending.xcoms["promptlayer_errors"]
        assert (first, last) == (None, None)
        for run_id, error in zip((2, 3), late, strict=True):
            assert error.startswith(f"Workflow run {run_id} did not end within {GIVEN}.")
        if kind == "timeout":
            assert f"did not end within {GIVEN}. 2 of 4 inputs succeeded" in ending.message
            assert "Workflow run 2 did not end" in ending.message

    def test_and_one_run_cannot_be_read(
        self, server: LocalPromptLayer, deferrable: bool, leap: Leap
    ) -> None:
        def late(request: Any) -> Reply | None:
            if server.count("GET") == 3:
                leap(1000.0)
            is_it = request.query["workflow_version_execution_id"] == "2"
            return Reply(502 if server.count("GET") > 3 else 202, "{}") if is_it else None

        server.script(late, method="GET", times=None)
        ending = run(
            numbered(3), deferrable=deferrable, timeout=500.0, min_success_rate=0.5, max_outage=0.3
        )
        assert ending.value == answers(0, None, 2), ending
        error = ending.xcoms["promptlayer_errors"][1]
        assert error == "The results of workflow run 2 could not be fetched in time."

    def test_and_promptlayer_is_away(
        self,
        server: LocalPromptLayer,
        deferrable: bool,
        leap: Leap,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def late(_: Any) -> Reply:
            if server.count("GET") == 3:
                leap(1000.0)
            return Reply(502)

        server.script(late, method="GET", times=None)
        monkeypatch.setattr(retries, "FETCHING_LATE", retries.FETCHING_LATE.within(0.0))
        ending = run(
            numbered(50),
            deferrable=deferrable,
            timeout=500.0,
            max_outage=2000.0,
            min_success_rate=0.5,
        )
        assert server.count("GET") < 50  # a few failures tell that all will fail
        assert ending.kind == "timeout", ending
        assert all("could not be fetched" in error for error in ending.xcoms["promptlayer_errors"])


class TestTheStoreIsAway:
    def test_nothing_is_sent_without_a_note(self, server: LocalPromptLayer) -> None:
        class Full(Store):
            def set(self, *_: Any) -> None:
                raise ConnectionError("the API server is away")

        with pytest.raises(ConnectionError):
            run(store=Full())
        assert server.count() == 0

    def test_waits_for_the_runs_that_go_on_and_then_tries_again(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        class Away(Store):
            writes = 0

            def set(self, key: str, value: Any) -> None:
                self.writes += 1
                if self.writes in (4, 5):
                    raise ConnectionError("the API server is away")
                super().set(key, value)

        ending = run(numbered(4), store=Away(), workflow="Slow", deferrable=deferrable)
        assert ending.value == answers(0, 1, 2, 3)
        assert starts(server) == each_once(4)


def test_ids_that_cannot_be_pushed_lose_no_run(
    server: LocalPromptLayer, deferrable: bool, log: Callable[[], str]
) -> None:
    class XComIsAway(FakeTaskInstance):
        def xcom_push(self, key: str, value: Any) -> None:
            if server.count("GET") == 0:
                raise ConnectionError("the API server is away")
            super().xcom_push(key, value)

    ending = run(ti=XComIsAway(), workflow="Slow", deferrable=deferrable)
    assert ending.value == answers(0, 1, 2, 3, 4)
    assert ending.xcoms["promptlayer_execution_ids"] == [1, 2, 3, 4, 5]
    assert "Could not push the ids of the runs to XCom" in log()


class TestElsewhere:
    """The connection leads to another PromptLayer, where the same ids are those of other runs."""

    def test_a_worker_that_resumes(self, server: LocalPromptLayer, there: LocalPromptLayer) -> None:
        moved = {"promptlayer_conn_id": "there"}
        ending = run(numbered(2), workflow="Slow", later=moved)
        assert ending.kind == "failed for good"
        assert f"started at {server.url}" in ending.message
        assert there.count() == 0

    def test_a_wait_goes_on_where_it_began(
        self,
        server: LocalPromptLayer,
        there: LocalPromptLayer,
        deferrable: bool,
        monkeypatch: pytest.MonkeyPatch,
        log: Callable[[], str],
    ) -> None:
        """Where that is out of reach, no other PromptLayer is asked instead."""
        monkeypatch.setattr(
            "airflow_provider_promptlayer.hooks.connection._READ_AGAIN_SECONDS", 0.0
        )

        def move(_: Any) -> Close:
            monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", there.airflow_connection_json)
            return Close()

        server.script(move, method="GET", after=3, times=None)
        ending = run(
            numbered(2),
            workflow="Endless",
            deferrable=deferrable,
            store=Store(),
            max_outage=0.3,
        )
        assert ending.kind.startswith("failed"), ending
        assert there.count() == 0
        assert f"leads to {there.url} now" in log()
