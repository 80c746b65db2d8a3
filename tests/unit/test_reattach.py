# SPDX-License-Identifier: Apache-2.0
"""Which try goes back to the job of an earlier one, and which starts another.

test_task_state.py has the records that cannot be read, and the tries that died in between. At this
server a second passes with each poll: the good and the bad job still run at the first poll and have
ended at the second.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
)
from support.clocks import passing_asleep
from support.kinds import OUTPUTS, Serve, new_server
from support.modes import Ending, FakeTaskInstance, Store, epoch
from support.starts import (
    RUN_REPORT,
    RUN_SCORECARD,
    RUN_WORKFLOW,
    Start,
    deferred,
    every_evaluation,
    every_start,
)

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.submission.reattach import (
    Plan,
    SubmissionPhase,
    SubmissionRecord,
    plan,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Reset, Workflow

SLOW = Workflow("Slow", [Node("Answer", "long", duration=6, is_output_node=True)])


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server(SLOW, by_polls=True))


class TestReattach:
    """With a task state store, as on Airflow 3.3 and later."""

    @every_start
    def test_a_try_after_a_crash_goes_back_to_its_job(
        self, start: Start, deferrable: bool, server: LocalPromptLayer
    ) -> None:
        store = Store()
        deferred(start.make(), store)
        (its_id,) = start.started(server)
        ending = start.run(store, number=2, deferrable=deferrable)
        assert ending.kind == "success", ending
        assert ending.xcoms[start.id_key] == its_id
        assert server.count("POST") == 1
        assert store.phase == "delivered"

    @every_start
    def test_a_try_after_delivery_does_not_run_again(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        store = Store()
        first = start.run(store)
        assert start.run(store, number=2).value == first.value
        assert server.count("POST") == 1

    @every_evaluation
    def test_a_verdict_is_asked_for_again_by_a_clear_alone(
        self, start: Start, server: LocalPromptLayer
    ) -> None:
        """A worker that died after the end leaves a note, and a verdict that stands."""
        store = Store()
        for number in (1, 2):
            assert start.run(store, "bad", number=number).kind == "failed for good"
        assert len(start.started(server)) == server.count("POST") == 1
        start.run(store, "bad", number=3, max_tries=3)
        assert server.count("POST") == 2

    def test_the_score_of_an_earlier_report_is_not_that_of_the_next(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()

        def low_at_first(request: Any) -> Reply | None:
            of_first = request.raw_path == f"/reports/{min(server.reports, default=0)}/score"
            return Reply.of_json({"score": {"overall_score": 10.0}}) if of_first else None

        server.script(low_at_first, times=None)
        how: dict[str, Any] = {"min_score": 50, "deferrable": False}  # so in one process
        assert RUN_REPORT.run(store, **how).kind == "failed for good"
        cleared = RUN_REPORT.run(store, number=2, max_tries=3, **how)
        assert (cleared.kind, cleared.xcoms["promptlayer_score"]) == ("success", 90.0), cleared

    def test_an_outage_lasts_from_the_first_request_on(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And not from the beginning of the wait, before which the retry asks for the outcome."""
        passing_asleep(monkeypatch)
        store = Store()
        deferred(RUN_WORKFLOW.make("never"), store)
        server.go_away()
        began_at = time.time()
        ending = RUN_WORKFLOW.run(store, "never", number=2, deferrable=False, max_outage=0.05)
        assert "longer than max_outage" in ending.message
        assert time.time() - began_at == pytest.approx(0.05, abs=1e-4)

    @pytest.mark.parametrize("trouble", [None, Reply(429), Reply(502, "<html>"), Reset()], ids=str)
    def test_a_failed_run_is_replaced(
        self, trouble: Reply | Reset | None, server: LocalPromptLayer
    ) -> None:
        """Also by the last retry, and where PromptLayer does not say at once that it has failed."""
        store = Store()
        assert RUN_WORKFLOW.run(store, "bad").kind == "failed"
        if trouble is not None:
            server.script(trouble, method="GET")
        ending = RUN_WORKFLOW.run(store, number=2)
        assert (ending.kind, ending.xcoms["promptlayer_execution_id"]) == ("success", 2)
        assert server.count("POST") == 2

    def test_a_run_that_failed_counts_by_fail_on(self, server: LocalPromptLayer) -> None:
        store = Store()
        RUN_WORKFLOW.run(store, "bad")
        assert RUN_WORKFLOW.run(store, "bad", number=2, fail_on="never").kind == "success"
        assert server.count("POST") == 1

    @every_start
    def test_trouble_while_waiting_may_be_retried_with_a_store_alone(
        self, start: Start, store: Store | None, server: LocalPromptLayer
    ) -> None:
        """Because the next try goes back to the job then."""
        server.script(Reply(503), method="GET", times=None)
        ending = start.run(store, max_outage=0.1)
        assert ending.kind == ("failed for good" if store is None else "failed"), ending

    @pytest.mark.parametrize(
        "arguments", [{"workflow_id_or_name": "god"}, {"reattach": False}], ids=["refused", "off"]
    )
    def test_a_start_that_was_refused_or_is_not_remembered_leaves_no_record(
        self, arguments: dict[str, Any], server: LocalPromptLayer
    ) -> None:
        store = Store()
        for number in (1, 2):
            RUN_WORKFLOW.run(store, number=number, **arguments)
        assert (server.count("POST"), store) == (2, {})

    def test_older_airflow_says_that_it_cannot(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        RUN_WORKFLOW.run(None)
        assert "cannot remember the run across tries" in log()

    def test_a_store_that_cannot_be_read_starts_nothing(self, server: LocalPromptLayer) -> None:
        class Away(Store):
            def get(self, *_: Any) -> Any:
                raise ConnectionError("the API server is away")

        with pytest.raises(ConnectionError):
            RUN_WORKFLOW.run(Away())
        assert server.count() == 0

    def test_an_input_that_has_no_fingerprint_starts_nothing(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as one that is nested too deep by a few levels: its run could not be recorded."""

        def too_deep(_: bytes) -> str:
            raise RecursionError

        monkeypatch.setattr("airflow_provider_promptlayer.bases.kind.fingerprint", too_deep)
        store = Store()
        with pytest.raises(RecursionError):
            RUN_WORKFLOW.run(store)
        assert (server.count("POST"), store) == (0, {})

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
        first = RUN_WORKFLOW.run(store)
        assert first.kind == "failed"
        assert "nothing more is started" in first.message
        assert server.count() == 0
        assert RUN_WORKFLOW.run(store, number=2).kind == "success"


class TestCleared:
    """A task that is cleared while its run goes on."""

    @staticmethod
    def leave(store: Store, variables: Any, *, number: int = 1) -> None:
        """Start the slow run, or go back to it, and leave the worker."""
        task = RUN_WORKFLOW.make(workflow_id_or_name="Slow", input_variables=variables)
        deferred(task, store, FakeTaskInstance(try_number=number, max_tries=2))

    @staticmethod
    def clear(store: Store, variables: Any, *, number: int = 2, max_tries: int = 3) -> Ending:
        """Clear the task, and run it to its end."""
        arguments: dict[str, Any] = {"number": number, "max_tries": max_tries}
        return RUN_WORKFLOW.run(
            store, workflow_id_or_name="Slow", input_variables=variables, **arguments
        )

    @pytest.mark.parametrize(
        ("variables", "runs"),
        [
            ({"day": 1, "n": 2}, 1),
            ({"n": 2, "day": 1}, 1),
            ('{"day": 1, "n": 2}', 1),
            ("{'day': 1, 'n': 2}", 1),
            ({"day": 2, "n": 2}, 2),
        ],
        ids=str,
    )
    def test_goes_back_to_a_run_of_the_same_input(
        self, variables: Any, runs: int, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        """Whatever the template engine has made of the input, and in whichever order."""
        store = Store()
        self.leave(store, {"day": 1, "n": 2})
        ending = self.clear(store, variables)
        assert ending.xcoms["promptlayer_execution_id"] == server.count("POST") == runs
        said = "Workflow run 1 was started for other arguments. It goes on at PromptLayer"
        assert (said in log()) == (runs == 2)

    @pytest.mark.parametrize(
        ("start", "change", "jobs"),
        [
            (RUN_WORKFLOW, {"return_all_outputs": False}, 1),
            (RUN_WORKFLOW, {"workflow_version_number": 1}, 2),
            (RUN_SCORECARD, {"row_indices": [0]}, 2),
            (RUN_REPORT, {"name": "of another day"}, 1),
        ],
        ids=["what a run answers with", "version", "rows", "name"],
    )
    def test_which_arguments_ask_for_another_job(
        self, start: Start, change: dict[str, Any], jobs: int, server: LocalPromptLayer
    ) -> None:
        store = Store()
        deferred(start.make(), store, FakeTaskInstance(max_tries=2))
        assert start.run(store, number=2, max_tries=3, **change).kind == "success"
        assert len(start.started(server)) == jobs

    @pytest.mark.parametrize(("day", "runs"), [(1, 1), (2, 2)])
    def test_after_a_retry_with_another_input(
        self, day: int, runs: int, server: LocalPromptLayer
    ) -> None:
        """The retry goes back to the run of day 1, which does not make it one of day 2."""
        store = Store()
        self.leave(store, {"day": 1})
        self.leave(store, {"day": 2}, number=2)
        self.clear(store, {"day": day}, number=3)
        assert server.count("POST") == runs

    def test_a_refused_start_of_another_input_does_not_forget_the_run(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        self.leave(store, {"day": 1})
        server.script(Reply(422), method="POST")
        assert self.clear(store, {"day": 2}).kind == "failed for good"
        ending = self.clear(store, {"day": 1}, number=3, max_tries=4)
        assert ending.xcoms["promptlayer_execution_id"] == 1

    def test_starts_another_where_the_run_is_gone(self, server: LocalPromptLayer) -> None:
        record = SubmissionRecord(SubmissionPhase.SUBMITTED, epoch(), 1, server.url, 4711)
        store = Store(promptlayer_run=record.payload())
        assert RUN_WORKFLOW.run(store).kind == "failed for good"
        assert RUN_WORKFLOW.run(store, max_tries=3).kind == "success"

    def test_starts_nothing_where_another_server_answers(self, server: LocalPromptLayer) -> None:
        """PromptLayer has not said that the run is gone: it may be going on."""
        store = Store()
        self.leave(store, {})
        server.script(Reply(404, "<html>"), method="GET", times=None)
        assert self.clear(store, {}).kind == "failed for good"
        server.clear_scripts()
        assert self.clear(store, {}, number=3, max_tries=4).kind == "success"
        assert server.count("POST") == 1

    def test_a_record_without_an_input_is_of_any(self) -> None:
        record = SubmissionRecord(SubmissionPhase.SUBMITTED, "a", 1, "https://here", 7)
        assert plan(record, "b", "https://here", "this") is Plan.REATTACH


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


class TestOutputsThatCouldNotGoOut:
    """The run has succeeded, and the task has not handed on its outputs."""

    @pytest.mark.parametrize("max_tries", [2, 3], ids=["retry", "clear"])
    def test_corrected_nodes_come_back_to_the_run(
        self, max_tries: int, deferrable: bool, server: LocalPromptLayer
    ) -> None:
        store = Store()
        first = RUN_WORKFLOW.run(store, nodes=["Anwser"], deferrable=deferrable)
        assert first.kind == "failed for good"
        assert "has no node 'Anwser'. It has: 'Notes', 'Answer'" in first.message
        ending = RUN_WORKFLOW.run(
            store, nodes=["Answer"], number=2, max_tries=max_tries, deferrable=deferrable
        )
        assert (ending.value, server.count("POST")) == ({"Answer": "true"}, 1)

    @pytest.mark.parametrize(("max_tries", "runs"), [(2, 1), (3, 2)], ids=["retry", "clear"])
    def test_a_node_that_the_run_lacks_takes_another_run(
        self, max_tries: int, runs: int, server: LocalPromptLayer
    ) -> None:
        """The workflow may have been mended instead. Otherwise the task could never succeed."""
        store = Store()
        RUN_WORKFLOW.run(store, nodes=["Summary"])
        RUN_WORKFLOW.run(store, nodes=["Summary"], number=2, max_tries=max_tries)
        assert server.count("POST") == runs

    def test_a_clear_after_trouble_with_xcom_comes_back_to_the_run(
        self, server: LocalPromptLayer
    ) -> None:
        store = Store()
        with full_xcom(ConnectionError), pytest.raises(ConnectionError):
            RUN_WORKFLOW.run(store)
        ending = RUN_WORKFLOW.run(store, number=2, max_tries=3)
        assert (ending.value, server.count("POST")) == (OUTPUTS, 1)

    @pytest.mark.parametrize("waits", [True, False])
    def test_a_clear_after_a_result_that_airflow_cannot_store_comes_back_to_the_run(
        self, waits: bool, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as one that is too large for a proxy before the API server."""
        store, push = Store(), FakeTaskInstance.xcom_push

        def refuse(ti: FakeTaskInstance, key: str, value: Any) -> None:
            if key == "return_value":
                raise ConnectionError("413")
            push(ti, key, value)

        with monkeypatch.context() as patch:
            patch.setattr(FakeTaskInstance, "xcom_push", refuse)
            with pytest.raises(ConnectionError):
                RUN_WORKFLOW.run(store, wait_for_completion=waits)
        ending = RUN_WORKFLOW.run(store, number=2, max_tries=3)
        assert (ending.value, server.count("POST")) == (OUTPUTS, 1)

    @pytest.mark.parametrize("error", [ConnectionError, AirflowException, AirflowNotFoundException])
    def test_where_nothing_remembers_the_run_no_retry_starts_another(
        self, error: type[Exception], deferrable: bool, server: LocalPromptLayer
    ) -> None:
        """Airflow retries after a plain error of its own too, such as an XCom backend raises."""
        with full_xcom(error):
            ending = RUN_WORKFLOW.run(None, deferrable=deferrable)
        assert (ending.kind, ending.message) == (
            "failed for good",
            f"{error.__name__}: no space is left",
        )
        assert isinstance(ending.error, AirflowFailException)
        assert isinstance(ending.error.__cause__, error)


class TestExecutionTimeout:
    """It fails a task from outside, and the retry would start another run."""

    @staticmethod
    def deadline(counts: bool, allowed: float, store: Store | None = None) -> float:
        """Return how long after its beginning the task gives up in the triggerer."""
        ti = FakeTaskInstance()
        began = datetime.datetime.now(datetime.UTC)
        ti.start_date = began  # type: ignore[attr-defined]
        task = RUN_WORKFLOW.make(
            "never", timeout=10_000.0, execution_timeout=datetime.timedelta(seconds=allowed)
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(version_compat, "EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED", counts)
            state = deferred(task, store, ti).trigger.state
        return float(state.deadline) - began.timestamp()

    @pytest.mark.parametrize(
        ("counts", "allowed", "store", "waits"),
        [
            (True, 1000.0, None, 940.0),
            (True, 80.0, None, 60.0),
            (False, 1000.0, None, 10_000.0),
            (True, 1000.0, Store(), 10_000.0),
        ],
    )
    def test_ends_the_wait_earlier_where_it_counts_and_nothing_remembers_the_run(
        self,
        counts: bool,
        allowed: float,
        store: Store | None,
        waits: float,
        server: LocalPromptLayer,
    ) -> None:
        assert self.deadline(counts, allowed, store) == pytest.approx(waits, abs=15.0)

    def test_ends_a_wait_in_the_worker_earlier_everywhere(self, server: LocalPromptLayer) -> None:
        allowed = datetime.timedelta(seconds=0.4)
        ending = RUN_WORKFLOW.run(None, "never", deferrable=False, execution_timeout=allowed)
        assert ending.kind == "timeout"
