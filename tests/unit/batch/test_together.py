# SPDX-License-Identifier: Apache-2.0
"""What a batch sends together: starts, each once, whatever dies; polls and results."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from support.batches import (
    SLOW,
    Died,
    DyingStore,
    answers,
    cleared,
    context_of,
    dying_around_the_start,
    each_once,
    index_in,
    index_of,
    numbered,
    retry,
    run,
    starts,
    task,
    watched,
)
from support.modes import FakeTaskInstance, Store

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.threads import DaemonThreads
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply, Silence, Slow

AT_ONCE = 4
SIZE = 11
together: dict[str, Any] = {"start_concurrency": AT_ONCE}


def until_no_start_is_sent() -> None:
    """Wait for the threads of a worker that has died: a real one would have ended with it."""
    for thread in threading.enumerate():
        if thread.name == "promptlayer-work":
            thread.join(60)


@pytest.fixture
def store() -> Store:
    return Store()


class TestAllAreStarted:
    @pytest.mark.parametrize("workflow", ["Echo", "Slow"])
    def test_each_once_and_in_order(
        self, server: LocalPromptLayer, deferrable: bool, workflow: str
    ) -> None:
        ending = run(numbered(30), workflow=workflow, deferrable=deferrable, start_concurrency=8)
        assert ending.value == answers(*range(30))
        assert starts(server) == each_once(30)
        ids = ending.xcoms["promptlayer_execution_ids"]
        places = [server.executions[one].metadata["airflow_batch_index"] for one in ids]
        assert places == [str(place) for place in range(30)]

    @pytest.mark.parametrize("at_once", [1, 3, 8])
    def test_as_many_at_a_time_as_is_allowed(self, server: LocalPromptLayer, at_once: int) -> None:
        """The first one alone, and one that hangs holds up no other."""
        held: list[int] = []

        def hold(request: Any) -> Silence | None:
            held.append(index_in(request))
            return Silence() if len(held) > 1 else None

        script = server.script(hold, method="POST", times=None)

        def watch() -> None:
            server.wait_for(lambda: len(held) > at_once, timeout=60)
            time.sleep(0.1)
            assert len(held) == 1 + at_once

        with watched(server, script, watch):
            ending = run(numbered(20), start_concurrency=at_once, min_success_rate=0.0)
        lost = {*held[1:]}
        assert ending.value == answers(*(None if n in lost else n for n in range(20)))
        assert starts(server) == Counter({*range(20)} - lost)

    def test_while_one_hangs(self, server: LocalPromptLayer, store: Store) -> None:
        """What the others have become is noted meanwhile."""

        def hang(request: Any) -> Silence | None:
            return Silence() if index_in(request) == 3 else None

        script = server.script(hang, method="POST", times=None)

        def are_noted() -> bool:
            page = store.get("promptlayer_batch_0")
            return page is not None and sum(isinstance(note, int) for note in page["runs"]) == 19

        def watch() -> None:
            # server.wait_for() would look only when another request has come.
            while not are_noted() and not server.count("GET"):
                time.sleep(0.01)
            time.sleep(0.1)
            assert server.count("GET") == 0  # the start still hangs, or the runs were polled

        with watched(server, script, watch):
            ending = run(numbered(20), store=store, min_success_rate=0.9, **together)
        assert ending.value == answers(*(None if n == 3 else n for n in range(20)))
        assert "airflow_batch_index=3" in ending.xcoms["promptlayer_errors"][3]

    @pytest.mark.parametrize("places", [1, 3, 8])
    def test_max_active_runs_is_kept_to(self, server: LocalPromptLayer, places: int) -> None:
        ending = run(numbered(10), workflow="Slow", max_active_runs=places, start_concurrency=8)
        assert ending.value == answers(*range(10))
        moments = [one.started_at for one in server.executions.values()]
        for moment in moments:
            assert sum(start <= moment < start + SLOW for start in moments) <= places

    def test_all_are_noted_before_the_first_is_sent(self, server: LocalPromptLayer) -> None:
        """By the thread of the task, as Airflow may be asked by one thread alone."""
        writers: set[int] = set()
        sent_in_a_write: list[int] = []

        class Noting(Store):
            def set(self, key: str, value: Any) -> None:
                writers.add(threading.get_ident())
                sent_in_a_write.append(list(value.get("runs", ())).count("sent"))
                super().set(key, value)

        store, not_noted = Noting(), list[int]()

        def look(request: Any) -> None:
            index = index_in(request)
            if store["promptlayer_batch_0"]["runs"][index] != "sent":
                not_noted.append(index)

        server.script(look, method="POST", times=None)
        assert run(numbered(30), None, store, **together).kind == "success"
        assert not not_noted
        assert writers == {threading.get_ident()}
        assert max(sent_in_a_write) == AT_ONCE


@contextmanager
def dying_between_two_sends(count: int) -> Iterator[None]:
    """Let the worker die after it has handed so many starts to threads."""
    submit, sent = DaemonThreads.submit, list[None]()

    def submit_some(self: DaemonThreads, function: Any) -> Any:
        if len(sent) == count:
            raise Died
        sent.append(None)
        return submit(self, function)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DaemonThreads, "submit", submit_some)
        patch.setattr("airflow_provider_promptlayer.bases.batch_starts.BatchStarts.note", _nothing)
        yield


def _nothing(_: Any) -> None:
    """A process that is killed cleans nothing up."""


class TestCrashes:
    """Of the starts that were under way, none is sent again, and no other input is lost."""

    def retried(self, server: LocalPromptLayer, store: Store) -> set[int]:
        """Check that the next try finds or starts all others; return the inputs it asks about."""
        until_no_start_is_sent()
        store = Store(store)
        ending = run(numbered(SIZE), retry(), store, min_success_rate=0.0, **together)
        assert ending.kind == "success"
        errors = ending.xcoms["promptlayer_errors"]
        lost = {index for index, error in enumerate(errors) if error is not None}
        assert all(f"airflow_batch_index={index}" in errors[index] for index in lost)
        assert len(lost) <= AT_ONCE
        assert ending.value == answers(*(None if n in lost else n for n in range(SIZE)))
        assert {*range(SIZE)} - lost <= {*starts(server)}
        assert set(starts(server).values()) == {1}
        # Once a person has looked for them, they can be started.
        assert run(numbered(SIZE), cleared(3), store, **together).kind == "success"
        return lost

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("index", [0, 1, 4, SIZE - 1])
    def test_around_a_start(
        self, server: LocalPromptLayer, store: Store, index: int, after: bool
    ) -> None:
        with dying_around_the_start(index, after=after), pytest.raises(Died):
            run(numbered(SIZE), store=store, **together)
        assert index in self.retried(server, store)

    @pytest.mark.parametrize("count", range(8))
    def test_between_the_note_and_a_send(
        self, server: LocalPromptLayer, store: Store, count: int
    ) -> None:
        with dying_between_two_sends(count), pytest.raises(Died):
            run(numbered(SIZE), store=store, **together)
        assert count in self.retried(server, store)

    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("write", range(1, 8))
    def test_around_a_note(self, server: LocalPromptLayer, write: int, after: bool) -> None:
        store = DyingStore(at=write, after=after)
        try:
            run(numbered(SIZE), store=store, **together)
        except Died:
            self.retried(server, store)


class TestAnErrorThatAllWouldMeet:
    @pytest.mark.parametrize("status", [401, 404])
    def test_is_met_by_the_first_alone(self, server: LocalPromptLayer, status: int) -> None:
        server.script(Reply.of_json({"message": "no"}, status), method="POST", times=None)
        assert run(numbered(20), start_concurrency=8).kind.startswith("failed")
        assert server.count("POST") == 1

    @pytest.mark.parametrize("status", [401, 404])
    def test_starts_no_more_and_loses_none(
        self, server: LocalPromptLayer, store: Store, status: int
    ) -> None:
        """What was under way is waited for and noted."""

        def refuse(request: Any) -> Reply | None:
            is_it = index_in(request) == 5
            return Reply.of_json({"message": "no"}, status) if is_it else None

        server.script(refuse, method="POST", times=None)
        ending = run(numbered(40), store=store, start_concurrency=8)
        assert ending.kind.startswith("failed")
        assert server.count("POST") <= 5 + 2 * 8
        started = [one for one in ending.xcoms["promptlayer_execution_ids"] if one is not None]
        assert sorted(started) == sorted(server.executions)
        assert f"{len(started)} runs that were started go on" in ending.message
        server.clear_scripts()
        assert run(numbered(40), retry(), store, **together).value == answers(*range(40))
        assert starts(server) == each_once(40)

    def test_where_the_note_cannot_be_written(self, server: LocalPromptLayer) -> None:
        class Away(Store):
            def set(self, key: str, value: Any) -> None:
                if 2 <= server.count("POST") < 4 and "sent" in value.get("runs", ()):
                    raise ConnectionError("the API server is away")
                super().set(key, value)

        store = Away()
        run(numbered(SIZE), store=store, workflow="Slow", **together)
        ending = run(numbered(SIZE), retry(), store, "Slow", **together)
        assert ending.value == answers(*range(SIZE))
        assert starts(server) == each_once(SIZE)


class TestReading:
    """Results, and the polls of a worker."""

    @pytest.mark.parametrize("what", ["true", "false"], ids=["results", "polls"])
    def test_is_sixteen_at_once(self, server: LocalPromptLayer, what: str) -> None:
        """As many as that from the fifth answer on; the first one alone."""
        held: list[str] = []

        def hold(request: Any) -> Silence | None:
            run_id = request.query["workflow_version_execution_id"]
            if int(run_id) <= 5 or request.query["return_all_outputs"] != what:
                return None
            held.append(run_id)
            return Silence()

        script = server.script(hold, method="GET", times=None)

        def watch() -> None:
            server.wait_for(lambda: len(held) >= 16, timeout=60)
            time.sleep(0.1)
            assert sorted(map(int, held)) == [*range(6, 22)]

        with watched(server, script, watch):
            ending = run(numbered(40), deferrable=False)
        assert ending.value == answers(*range(40))

    def test_keeps_the_order(self, server: LocalPromptLayer, deferrable: bool) -> None:
        def late(request: Any) -> Slow:
            return Slow(0.03 * (int(request.query["workflow_version_execution_id"]) % 3))

        server.script(late, method="GET", times=None)
        ending = run(numbered(20, broken=[7]), deferrable=deferrable, min_success_rate=0.9)
        assert ending.value == answers(*(None if n == 7 else n for n in range(20)))
        errors = ending.xcoms["promptlayer_errors"]
        assert [error is None for error in errors] == [n != 7 for n in range(20)]


class TestKilled:
    def test_nothing_more_is_noted(self, server: LocalPromptLayer) -> None:
        """Else a person would have to look for runs that were never started."""
        written: list[Any] = []

        class Noting(Store):
            def set(self, key: str, value: Any) -> None:
                written.append(value)
                super().set(key, value)

        operator = task(numbered(3), **together)
        operator.on_kill()
        with pytest.raises(AirflowException, match="being stopped"):
            operator.execute(context_of(FakeTaskInstance(), Noting()))
        assert not [value for value in written if "sent" in value.get("runs", ())]

    def test_nothing_more_is_started(
        self, server: LocalPromptLayer, log: Callable[[], str]
    ) -> None:
        start_run = PromptLayerHook.start_run
        stopped = threading.Event()
        sent_after: list[int] = []

        def run_it(hook: PromptLayerHook, call: Any, *how: Any) -> int:
            if stopped.is_set():
                sent_after.append(index_of(call))
            run_id = start_run(hook, call, *how)
            if index_of(call) == 2:
                hook.stop_starting()
                stopped.set()
            return run_id

        store = Store()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PromptLayerHook, "start_run", run_it)
            run(numbered(40), None, store, "Slow", deferrable=False, **together)
        assert len(sent_after) < AT_ONCE  # which were handed to their threads before
        assert len(starts(server)) <= 2 + 2 * AT_ONCE
        ending = run(numbered(40), FakeTaskInstance(try_number=2), store, "Slow", **together)
        assert ending.value == answers(*range(40))
        assert starts(server) == each_once(40)
