# SPDX-License-Identifier: Apache-2.0
"""What a worker makes of what an earlier try, or an earlier visit of this one, has left."""

from __future__ import annotations

import asyncio
import datetime
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support.batches import (
    Died,
    DyingStore,
    answers,
    cleared,
    context_of,
    dying_around_the_start,
    each_once,
    leave,
    numbered,
    retry,
    run,
    starts,
    task,
)
from support.modes import FakeTaskInstance, Store, first_event, rebuilt
from support.needs import needs_task_state
from support.processes import in_new_process

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.submission.task_state import BatchState
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply
from airflow_provider_promptlayer.transport import blocking

UNKNOWN = Reply.of_json({"success": False, "message": "No such execution."}, 404)


@pytest.fixture
def store() -> Store:
    return Store()


class TestCrashes:
    @pytest.mark.parametrize("after", [False, True])
    def test_around_a_start(
        self, server: LocalPromptLayer, deferrable: bool, after: bool, store: Store
    ) -> None:
        """Whether the start arrived is unknown, so its input fails; the others do not."""
        with dying_around_the_start(2, after=after), pytest.raises(Died):
            run(store=store)
        ending = run(None, retry(), store, min_success_rate=0.8, deferrable=deferrable)
        assert ending.value == answers(0, 1, None, 3, 4)
        assert "airflow_batch_index=2" in ending.xcoms["promptlayer_errors"][2]
        assert starts(server) == each_once(5) - (Counter() if after else Counter([2]))

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("write", range(1, 9))
    def test_around_a_note(self, server: LocalPromptLayer, write: int, after: bool) -> None:
        store = DyingStore(at=write, after=after)
        with pytest.raises(Died):  # the head, five starts, the last id, the delivery
            run(store=store)
        ending = run(None, retry(), Store(store), min_success_rate=0.8)
        assert ending.kind == "success"
        lost = {index for index, value in enumerate(ending.value) if value is None}
        assert len(lost) <= 1
        assert all(count == 1 for count in starts(server).values())
        assert {*range(5)} - lost <= {*starts(server)}

    def test_while_resuming(self, server: LocalPromptLayer, store: Store) -> None:
        class DiesResuming(PromptLayerRunWorkflowBatchOperator):
            def execute_complete(self, *_: Any, **__: Any) -> Any:
                raise Died

        with pytest.raises(Died):
            run(numbered(3), store=store, workflow="Slow", operator=DiesResuming)
        assert run(numbered(3), retry(), store).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_on_the_third_page_of_notes(
        self, server: LocalPromptLayer, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(BatchState, "PAGE", 10)
        with dying_around_the_start(23, after=True), pytest.raises(Died):
            run(numbered(25), store=store)
        ending = run(numbered(25), retry(), store, min_success_rate=0.9)
        assert ending.value == answers(*[n if n != 23 else None for n in range(25)])
        assert starts(server) == each_once(25)


class TestRetry:
    def test_starts_only_the_inputs_that_have_failed(
        self, server: LocalPromptLayer, deferrable: bool, store: Store
    ) -> None:
        first = run(numbered(4, broken=[1, 3]), store=store, deferrable=deferrable)
        assert first.kind == "failed"
        second = run(numbered(4), retry(), store, deferrable=deferrable)
        assert second.value == answers(0, 1, 2, 3)
        assert second.xcoms["promptlayer_execution_ids"] == [1, 6, 3, 5]
        assert starts(server) == Counter([0, 1, 1, 2, 3, 3])

    def test_after_delivery_starts_nothing(self, server: LocalPromptLayer, store: Store) -> None:
        first = run(store=store)
        assert run(None, retry(), store).value == first.value
        assert starts(server) == each_once(5)

    def test_with_reattach_false_notes_nothing(
        self, server: LocalPromptLayer, store: Store
    ) -> None:
        run(numbered(2), store=store, reattach=False)
        assert store == {}


@pytest.mark.parametrize("ti", [retry(), cleared()], ids=["retry", "cleared"])
@pytest.mark.parametrize(
    "now", [(0, 1, 2), (2, 1, 0), (7, 0, 1, 2), (0, 2), (0, 0, 1, 2), (0, 7, 2, 8)], ids=str
)
def test_another_list_while_the_runs_go_on(
    server: LocalPromptLayer, now: tuple[int, ...], ti: FakeTaskInstance, deferrable: bool
) -> None:
    """Each input that is recognized keeps its run, and each other one gets an index of its own."""
    store = Store()
    leave(numbered(3), store)
    ti = FakeTaskInstance(try_number=ti.try_number, max_tries=ti.max_tries)
    ending = run([{"n": n} for n in now], ti, store, "Slow", deferrable=deferrable)
    assert ending.value == answers(*now)
    assert {*ending.xcoms["promptlayer_execution_ids"]} >= {n + 1 for n in now if n < 3}
    new = Counter(now) - Counter(range(3))
    assert starts(server) == each_once(3 + new.total())


class TestCleared:
    def test_after_success_it_starts_all_anew(self, server: LocalPromptLayer, store: Store) -> None:
        run(store=store)
        again = run(None, cleared(), store)
        assert again.xcoms["promptlayer_execution_ids"] == [6, 7, 8, 9, 10]
        run(None, FakeTaskInstance(try_number=3, max_tries=3), store)  # a retry of that
        assert server.count("POST") == 10

    @pytest.mark.parametrize(
        "max_tries",
        [
            pytest.param(0, marks=needs_task_state, id="retries lowered"),
            pytest.param(3, id="cleared"),
        ],
    )
    def test_whatever_the_retries_are(
        self, server: LocalPromptLayer, max_tries: int, store: Store
    ) -> None:
        run(numbered(2), store=store)
        carrier = {"traceparent": "another"}
        ti = FakeTaskInstance(try_number=2, max_tries=max_tries, context_carrier=carrier)
        run(numbered(2), ti, store)
        assert server.count("POST") == 4

    @pytest.mark.parametrize(
        ("now", "workflow", "started"),
        [([{"n": 0, "m": 1}], "Echo", 2), ([{"m": 1, "n": 0}], "Slow", 1)],
        ids=["another workflow", "the same with its keys in another order"],
    )
    def test_what_is_another_input(
        self, server: LocalPromptLayer, store: Store, now: Any, workflow: str, started: int
    ) -> None:
        leave([{"n": 0, "m": 1}], store)
        assert run(now, cleared(), store, workflow).value == answers(0)
        assert server.count("POST") == started

    def test_after_a_retry_with_another_input_it_starts_anew(
        self, server: LocalPromptLayer, store: Store, log: Callable[[], str]
    ) -> None:
        """The retry keeps the run of the old input, and says so; it is not taken for the new."""
        leave([{"n": 1}], store)
        leave([{"n": 2}], store, ti=retry())
        assert "1 of them were started for inputs that have changed since" in log()
        assert run([{"n": 2}], cleared(3), store, "Slow").value == answers(2)
        assert server.count("POST") == 2

    def test_names_the_runs_of_inputs_that_the_list_has_lost(
        self, server: LocalPromptLayer, store: Store, log: Callable[[], str]
    ) -> None:
        leave(numbered(3), store)
        run([{"n": 1}], cleared(), store, "Slow")
        said = log()
        assert "2 runs were started for inputs that are no longer in the list" in said
        assert "does not wait for them: 1, 3." in said

    def test_after_a_lost_answer_it_starts_that_input_again(
        self, server: LocalPromptLayer, store: Store
    ) -> None:
        server.script(Reply(500), method="POST", after=1)
        assert run(numbered(3), store=store).kind == "failed for good"
        again = run(numbered(3), retry(), store)
        assert again.kind == "failed for good"
        assert "airflow_batch_index=1" in again.message
        assert starts(server) == Counter([0])  # with that one lost, the others are no use
        assert run(numbered(3), cleared(3), store).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    def test_after_a_death_it_asks_a_person_first(
        self, server: LocalPromptLayer, store: Store
    ) -> None:
        """No log had asked a person to look, so the clear does not mean that one has."""
        with dying_around_the_start(1, after=True), pytest.raises(Died):
            run(numbered(2), store=store)
        ending = run(numbered(2), cleared(), store)
        assert ending.kind == "failed for good"
        assert "airflow_batch_index=1" in ending.message
        assert starts(server) == each_once(2)
        assert run(numbered(2), cleared(3), store).value == answers(0, 1)
        assert starts(server) == Counter([0, 1, 1])

    def test_with_a_misspelt_node_corrected_it_reattaches(
        self, server: LocalPromptLayer, store: Store
    ) -> None:
        assert run(numbered(2), store=store, nodes=["Anwser"]).kind == "failed for good"
        assert run(numbered(2), cleared(), store, nodes=["Answer"]).value == answers(0, 1)
        assert starts(server) == each_once(2)

    def test_before_the_results_went_out_it_reattaches(
        self, server: LocalPromptLayer, store: Store
    ) -> None:
        class Undelivered(PromptLayerRunWorkflowBatchOperator):
            def push_result(self, *_: Any) -> Any:
                raise ConnectionError("XCom is away")

        with pytest.raises(ConnectionError):
            run(numbered(2), store=store, operator=Undelivered)
        assert run(numbered(2), cleared(), store).value == answers(0, 1)
        assert starts(server) == each_once(2)

    def test_where_a_run_is_gone_it_starts_another(
        self, server: LocalPromptLayer, store: Store
    ) -> None:
        server.script(UNKNOWN, method="GET", execution_id=2, times=None)
        for ti in (None, retry()):
            assert run(numbered(3), ti, store).kind == "failed for good"
        assert run(numbered(3), cleared(3), store).value == answers(0, 1, 2)
        assert starts(server) == Counter([0, 1, 1, 2])

    def test_where_another_server_answers_for_a_run_it_starts_nothing(
        self, server: LocalPromptLayer, store: Store
    ) -> None:
        """PromptLayer has not said that the run is gone."""
        server.script(Reply(404, "<html>"), method="GET", execution_id=2, times=None)
        for ti in (None, retry(), cleared(3)):
            assert run(numbered(3), ti, store, max_outage=0.05).kind == "failed"
        server.clear_scripts()
        assert run(numbered(3), cleared(4), store).value == answers(0, 1, 2)
        assert starts(server) == each_once(3)


def test_a_clear_after_a_result_that_airflow_cannot_store_starts_no_other_runs(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, push = Store(), FakeTaskInstance.xcom_push

    def refuse(ti: FakeTaskInstance, key: str, value: Any) -> None:
        if key == "return_value":
            raise ConnectionError("413")
        push(ti, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(FakeTaskInstance, "xcom_push", refuse)
        with pytest.raises(ConnectionError):
            run(store=store)
    assert run(ti=cleared(), store=store).value == answers(0, 1, 2, 3, 4)
    assert starts(server) == each_once(5)


class TestElsewhere:
    """The connection leads to another PromptLayer, where the same ids are those of other runs."""

    def test_a_retry_asks_for_its_runs_nowhere_else(
        self, server: LocalPromptLayer, there: LocalPromptLayer, store: Store
    ) -> None:
        leave(numbered(2), store)
        ending = run(numbered(2), retry(), store, "Slow", promptlayer_conn_id="there")
        assert ending.kind == "failed for good"
        assert f"started at {server.url}" in ending.message
        assert there.count() == 0
        assert run(numbered(2), cleared(3), store, "Slow").value == answers(0, 1)
        assert starts(server) == each_once(2)

    def test_a_clear_starts_others(
        self,
        server: LocalPromptLayer,
        there: LocalPromptLayer,
        store: Store,
        log: Callable[[], str],
    ) -> None:
        leave(numbered(2), store)
        ending = run(numbered(2), cleared(), store, promptlayer_conn_id="there")
        assert ending.value == answers(0, 1)
        assert there.count("POST") == 2
        assert "at another PromptLayer: 1, 2." in log()


class Resumed(PromptLayerRunWorkflowBatchOperator):
    """A task that comes back from the triggerer at once.

    :param resumed: the method and the arguments with which Airflow resumes it.
    """

    def __init__(self, *, resumed: tuple[str, dict[str, Any]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.resumed = resumed

    def execute(self, context: Any) -> Any:
        return self.resume_execution(*self.resumed, context)


def test_a_deferral_that_airflow_ends_names_the_runs(server: LocalPromptLayer) -> None:
    ended = ("__fail__", {"error": "Trigger timeout"})
    ti = FakeTaskInstance(xcoms={"promptlayer_execution_ids": [7, None, 8]})
    ending = run(ti=ti, operator=Resumed, resumed=ended)
    assert ending.kind == "timeout"
    assert "Batch of 2 workflow runs goes on" in ending.message
    assert run(operator=Resumed, resumed=ended).kind == "timeout"


def test_an_event_that_cannot_be_read(server: LocalPromptLayer) -> None:
    resumed: Any = ("execute_complete", {"event": {}})
    assert run(operator=Resumed, resumed=resumed, store=Store()).kind == "failed"
    assert run(operator=Resumed, resumed=resumed).kind == "failed for good"


class TestWithoutNotes:
    def test_the_worker_says_so(self, server: LocalPromptLayer, log: Callable[[], str]) -> None:
        run(numbered(1))
        assert "cannot remember the runs across tries" in log()

    def test_resumed_with_the_event_alone(self, server: LocalPromptLayer) -> None:
        """As ``dag.test()`` and ``airflow tasks test`` do, on every Airflow."""
        ti = FakeTaskInstance()
        left = leave(numbered(3), ti=ti)
        event = {"event": asyncio.run(first_event(rebuilt(left.trigger))).payload}
        resumed = task(numbered(3)).resume_execution("execute_complete", event, context_of(ti))
        assert resumed == answers(0, 1, 2)
        assert starts(server) == each_once(3)

    @pytest.mark.parametrize(("counts", "waits"), [(True, 940.0), (False, 10_000.0)])
    def test_the_wait_ends_before_an_execution_timeout_that_counts(
        self, counts: bool, waits: float, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(version_compat, "EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED", counts)
        limit = datetime.timedelta(seconds=1000)
        began = time.time()
        left = leave(numbered(1), timeout=10_000.0, execution_timeout=limit)
        deadline = left.trigger.serialize()[1]["state"]["deadline"]
        assert deadline - began == pytest.approx(waits, abs=5.0)

    def test_results_are_not_retried_beyond_an_execution_timeout(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow would retry the task, and so start all inputs again."""

        def fail_to_tell_results(request: Any) -> Reply | None:
            return Reply(503) if request.query["return_all_outputs"] == "true" else None

        monkeypatch.setattr(retries, "FETCHING_LATE", RetryPolicy(give_up_after=0.0))
        server.script(fail_to_tell_results, method="GET", times=None)
        limit = datetime.timedelta(seconds=4)  # of which the last quarter is left for the end
        ending = run(numbered(2), deferrable=False, execution_timeout=limit)
        assert ending.kind == "timeout"
        assert starts(server) == each_once(2)


def test_all_is_ready_before_a_start_is_noted(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a worker dies between the two, a person has to look for a run that was never started."""
    happened: list[str] = []

    class NotingStore(Store):
        def set(self, key: str, value: Any) -> None:
            if "sent" in value.get("runs", ()):
                imported = "imported" if blocking.__name__ in sys.modules else "not imported"
                happened.extend(("note", imported))
            super().set(key, value)

    class NewProcess(PromptLayerRunWorkflowBatchOperator):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            in_new_process(monkeypatch, happened)

    ending = run(numbered(4), None, NotingStore(), "Slow", operator=NewProcess, max_active_runs=2)
    assert ending.value == answers(0, 1, 2, 3)
    notes = [index for index, what in enumerate(happened) if what == "note"]
    assert [happened[note + 1 : note + 3] for note in notes] == [["imported", "sent"]] * 4
