# SPDX-License-Identifier: Apache-2.0
"""How a batch slows down after a 429, its own or that of another request of its process."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from support.batches import answers, each_once, index_in, leave, numbered, run, starts, watched
from support.modes import Store

from airflow_provider_promptlayer.bases.batch_starts import StartWindow
from airflow_provider_promptlayer.exceptions import (
    PromptLayerRateLimitError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.threads import DaemonThreads
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply, Silence


class TestAfterA429:
    def test_half_as_many_are_under_way(self, server: LocalPromptLayer) -> None:
        seen: Counter[int] = Counter()

        def limit(request: Any) -> Reply | Silence | None:
            index = index_in(request)
            seen[index] += 1
            if index == 0:
                return None
            return Reply(429) if seen[index] == 1 and index <= 8 else Silence()

        script = server.script(limit, method="POST", times=None)

        def watch() -> None:
            server.wait_for(lambda: seen.total() >= 1 + 8 + 4, timeout=60)
            time.sleep(0.1)
            assert seen.total() == 1 + 8 + 4

        with watched(server, script, watch):
            ending = run(numbered(20), start_concurrency=8, min_success_rate=0.0)
        assert ending.kind == "success"
        assert sum(value is None for value in ending.value) == 4  # whose answers were lost
        assert set(starts(server).values()) == {1}

    def test_every_input_is_started_once_in_the_end(self, server: LocalPromptLayer) -> None:
        arrived: list[int] = []

        def limit(request: Any) -> Reply | None:
            arrived.append(index_in(request))
            return Reply(429, headers={"Retry-After": "0"}) if len(arrived) % 3 == 0 else None

        server.script(limit, method="POST", times=None)
        assert run(numbered(30), start_concurrency=8).value == answers(*range(30))
        assert starts(server) == each_once(30)

    def test_the_window_is_halved_once_for_a_burst_and_grows_again(self) -> None:
        window = StartWindow(8)
        refusal = PromptLayerRateLimitError("429", status=429)
        window.sent()
        assert window.size == 1
        window.answered()
        assert window.size == 8
        burst = [window.sent() for _ in range(8)]
        for number in burst:
            assert window.put_off(number, refusal)
        assert window.size == 4
        assert window.put_off(window.sent(), refusal)
        assert window.size == 2
        sizes = []
        for _ in range(2 + 3 + 4 + 5 + 6 + 7 + 10):
            window.answered()
            sizes.append(window.size)
        assert sizes == sorted(sizes)
        assert Counter(sizes)[3] == 3
        assert sizes[-1] == 8

    @pytest.mark.parametrize(
        ("error", "tries"),
        [
            (PromptLayerRateLimitError("429", status=429), 5),
            (PromptLayerUnreachableError("lost", arrived=True), 1),
        ],
        ids=["may pass", "may have arrived"],
    )
    def test_the_window_gives_up(self, error: Any, tries: int) -> None:
        window = StartWindow(8)
        for number in range(1, tries + 1):
            pause = window.put_off(window.sent(), error)
            assert (pause is None) == (number == tries)


class TestAfterALostAnswer:
    def test_one_is_under_way(self, server: LocalPromptLayer) -> None:
        """A gateway that restarts costs few inputs, whose runs a person has to look for."""
        arrived: list[int] = []

        def gateway(request: Any) -> Reply | Silence | None:
            arrived.append(index_in(request))
            if len(arrived) == 1:
                return None
            return Reply(502, "<html>") if len(arrived) <= 1 + 8 else Silence()

        script = server.script(gateway, method="POST", times=None)

        def watch() -> None:
            server.wait_for(lambda: len(arrived) >= 1 + 8 + 1, timeout=60)
            time.sleep(0.1)
            assert len(arrived) == 1 + 8 + 1

        with watched(server, script, watch):
            ending = run(numbered(20), start_concurrency=8, min_success_rate=0.0)
        assert ending.kind == "success"
        assert sum(value is None for value in ending.value) == 8 + 1
        assert set(starts(server).values()) == {1}

    def test_the_pauses_grow_until_one_is_answered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        window, asked = StartWindow(8), list[int]()
        monkeypatch.setattr(
            RetryPolicy, "pause", lambda _, failures, *args, **kwargs: asked.append(failures)
        )
        for now in range(1, 4):
            window.lost(window.sent(), now)
        assert (window.size, window.seconds_lost(10)) == (1, 9)
        window.answered()
        assert window.seconds_lost(10) == 0
        window.lost(window.sent(), 11)
        assert asked == [1, 2, 3, 1]

    def test_one_is_under_way_where_others_of_the_burst_were_refused(self) -> None:
        window = StartWindow(8)
        window.answered()
        burst = [window.sent() for _ in range(8)]
        window.put_off(burst[0], PromptLayerRateLimitError("429", status=429))
        window.lost(burst[1], 0.0)
        assert window.size == 1

    def test_an_outage_ends_the_starts(self, server: LocalPromptLayer) -> None:
        """The inputs that are left are not lost: a retry starts them."""
        store = Store()
        server.script(Reply(502, "<html>"), method="POST", after=1, times=None)
        ending = run(numbered(500), store=store, min_success_rate=0.0, max_outage=0.05)
        assert (ending.kind, server.count("POST") < 500) == ("failed", True)
        assert "No start was answered for 0.05 seconds (max_outage)" in ending.message


class TestWhenOtherRequestsWereRefused:
    """A 429 holds up all requests of the process on the same connection."""

    def test_starts_wait(self, server: LocalPromptLayer) -> None:
        hook, arrived = PromptLayerHook(), list[float]()

        def refuse_another(_: Any) -> None:
            arrived.append(now := time.time())
            if len(arrived) == 1:
                hook.throttle.hold_for(0.3, now=now)

        server.script(refuse_another, method="POST", times=None)
        assert run(numbered(3), start_concurrency=4).kind == "success"
        assert arrived[1] > arrived[0] + 0.29

    def test_polls_wait(self, server: LocalPromptLayer) -> None:
        hook, started, polled = PromptLayerHook(), list[float](), list[float]()

        def refuse_another(request: Any) -> None:
            now = time.time()
            if request.method == "GET":
                polled.append(now)
            else:
                started.append(now)
                hook.throttle.hold_for(0.3, now=now)

        server.script(refuse_another, times=None)
        assert run(numbered(1), deferrable=False).kind == "success"
        assert polled[0] > started[0] + 0.29

    @pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferred"])
    def test_a_refused_poll_of_one_run_holds_up_the_starts(
        self, server: LocalPromptLayer, deferrable: bool
    ) -> None:
        refused, started = list[float](), list[float]()

        def refuse_one(request: Any) -> Reply | None:
            now = time.time()
            if request.method == "POST":
                started.append(now)
            elif request.query["workflow_version_execution_id"] == "2" and not refused:
                refused.append(now)
                return Reply(429, headers={"Retry-After": "1"})
            return None

        server.script(refuse_one, times=None)
        ending = run(numbered(3), max_active_runs=2, deferrable=deferrable, defer_after=5)
        assert ending.value == answers(0, 1, 2)
        assert started[2] > refused[0] + 0.99

    def test_a_long_pause_is_not_slept_in_the_worker(self, server: LocalPromptLayer) -> None:
        """Nor is it forgotten: the triggerer polls after it."""
        server.script(Reply(429, headers={"Retry-After": "30"}), method="GET", times=1)
        began = time.time()
        left = leave(numbered(2), defer_after=10)
        next_poll_at = left.trigger.serialize()[1]["state"]["next_poll_at"]
        # Waits that were held come back spread over twice the pause.
        assert began + 29 < next_poll_at < time.time() + 2 * 30 + 10
        assert server.count("GET") == 2

    def test_results_wait(self, server: LocalPromptLayer) -> None:
        hook, held, read = PromptLayerHook(), list[float](), list[float]()

        def refuse_another(request: Any) -> None:
            now = time.time()
            if request.query["return_all_outputs"] == "true":
                read.append(now)
            else:
                held.append(now)
                hook.throttle.hold_for(0.3, now=now)

        server.script(refuse_another, method="GET", times=None)
        assert run(numbered(3), start_concurrency=4).kind == "success"
        assert min(read) > max(held) + 0.29

    def test_late_results_do_not(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The time of the batch is up, and Airflow may end the task before a pause is over."""
        hook, slept = PromptLayerHook(), list[float]()
        monkeypatch.setattr(DaemonThreads, "sleep", lambda _, seconds: slept.append(seconds))

        def refuse_another(_: Any) -> None:
            hook.throttle.hold_for(3600.0, now=time.time())

        server.script(refuse_another, method="POST", times=None)
        ending = run(numbered(2), deferrable=False, timeout=3.0, min_success_rate=0.5)
        assert (ending.value, sum(slept)) == ([*answers(0), None], 0.0)
