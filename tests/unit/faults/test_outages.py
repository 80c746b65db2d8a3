# SPDX-License-Identifier: Apache-2.0
"""PromptLayer is out of reach for long, or asks for a pause, in every mode of waiting."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from support.clocks import Leap
from support.connections import connect
from support.modes import TASK_MODES, first_event, rebuilt
from unit.faults.conftest import (
    PATIENCE,
    POKE_INTERVAL,
    assert_succeeds,
    in_every_mode,
    trigger_of,
    wait,
)

from airflow_provider_promptlayer.polling.schedule import Throttle
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply, Reset, Silence
from airflow_provider_promptlayer.testing.faults.model import Fault


class TestOutage:
    """PromptLayer is out of reach for longer than ``max_outage``."""

    FAULTS: ClassVar[dict[str, Any]] = {
        "away": None,
        "503": Reply(503),
        "429": Reply(429),
        "reset": Reset(),
        "junk": Reply(200, "<html>"),
    }

    @pytest.mark.parametrize(("mode", "fault"), in_every_mode(FAULTS, "away", "503"))
    def test_fails(self, mode: str, fault: str, server: LocalPromptLayer, run_id: int) -> None:
        if fault == "away":
            server.go_away()
        else:
            server.script(self.FAULTS[fault], times=None)
        before = time.time()
        ending = wait(mode, run_id, max_outage=0.1, timeout=PATIENCE)
        assert ending.kind == "failed", ending
        assert str(run_id) in ending.message
        since = datetime.fromtimestamp(before, UTC), datetime.now(UTC)
        assert any(f"{moment:%Y-%m-%d %H:%M}" in ending.message for moment in since)
        assert "may well go on" in ending.message

    def test_a_shorter_one_is_ridden_out(
        self, mode: str, server: LocalPromptLayer, run_id: int
    ) -> None:
        server.script(Reply(503), times=3)
        assert_succeeds(mode, run_id, max_outage=60)

    def test_two_short_ones_do_not_add_up(
        self, mode: str, server: LocalPromptLayer, run_id: int, leap: Leap
    ) -> None:
        server.script(lambda _: leap(400.0), times=None)  # the time between two polls
        bad, good = Reply(503), Reply(204)
        server.script(*[bad, bad, good] * 6)
        assert_succeeds(mode, run_id, max_outage=1000, timeout=100_000)

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    @pytest.mark.parametrize("mode", TASK_MODES)
    def test_skips_softly(
        self, mode: str, option: str, server: LocalPromptLayer, run_id: int
    ) -> None:
        server.go_away()
        ending = wait(mode, run_id, max_outage=0.1, timeout=PATIENCE, **{option: True})
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
        endless_run_id: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if fault is None:
            server.go_away()
        else:
            connect(server, monkeypatch, timeout=0.2)
            server.script(fault, times=None)
        started = time.monotonic()
        ending = wait(mode, endless_run_id, timeout=0.3)
        assert ending.kind == "timeout", ending
        assert str(endless_run_id) in ending.message
        assert 0.25 <= time.monotonic() - started < PATIENCE

    @pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
    @pytest.mark.parametrize("mode", TASK_MODES)
    def test_skips_softly(
        self, mode: str, option: str, server: LocalPromptLayer, endless_run_id: int
    ) -> None:
        server.go_away()
        assert wait(mode, endless_run_id, timeout=0.1, **{option: True}).kind == "skipped"

    def test_the_deadline_is_not_moved_by_each_outage(
        self, mode: str, server: LocalPromptLayer, endless_run_id: int, leap: Leap
    ) -> None:
        server.script(lambda _: leap(300.0), times=None)  # the time between two polls
        server.script(Reply(503), Reply(204), times=None)
        assert wait(mode, endless_run_id, timeout=1000).kind == "timeout"
        assert server.count("GET") <= 6


def test_a_wait_that_is_taken_over_keeps_its_deadline(
    server: LocalPromptLayer, endless_run_id: int, leap: Leap
) -> None:
    trigger = trigger_of(endless_run_id, deadline=time.time() + 1000.0)

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


def test_waits_on_one_connection_slow_down_together(server: LocalPromptLayer) -> None:
    run_ids = [server.start_execution("Never done") for _ in range(5)]
    refusal = server.script(Reply(429, "{}", {"Retry-After": "3600"}), after=5)

    async def wait_for_a_while() -> None:
        waits = [
            asyncio.create_task(first_event(trigger_of(run_id, deadline=time.time() + 7200)))
            for run_id in run_ids
        ]
        await asyncio.to_thread(server.wait_for, lambda: refusal.is_used_up, PATIENCE)
        await asyncio.sleep(20 * POKE_INTERVAL)
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    asyncio.run(wait_for_a_while())
    (refused,) = [record for record in server.requests if record.status == 429]
    later = [record for record in server.requests if record.arrived_at > refused.arrived_at]
    assert len(later) < len(run_ids)  # those that were under way at that moment


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 60.0), (0.5, 90.0), (1.0, 120.0)])
def test_waits_that_a_throttle_holds_come_back_one_by_one(chance: float, seconds: float) -> None:
    throttle = Throttle(jitter=lambda: chance)
    throttle.hold_for(60.0, now=1000.0)
    assert throttle.delay(now=1000.0) == seconds


def test_a_throttle_is_released_when_the_clock_is_set_back() -> None:
    """Else every wait of the process would pause for as long as the clock was set back."""
    throttle = Throttle(jitter=lambda: 0.0)
    throttle.hold_for(60.0, now=100_000.0)
    assert throttle.delay(now=100_010.0) == 50.0
    assert throttle.delay(now=10_000.0) == 0.0
    throttle.hold_for(30.0, now=10_000.0)
    assert throttle.delay(now=10_010.0) == 20.0
