# SPDX-License-Identifier: Apache-2.0
"""How long to pause between two polls."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_promptlayer.polling.schedule import PollSchedule


@pytest.mark.parametrize("exponential_backoff", [False, True])
@pytest.mark.parametrize("max_wait", [None, 0.0, 5.0, 300.0])
@pytest.mark.parametrize("poke_interval", [0.2, 1.0, 1.7, 10.0, 60.0, 3600.0])
def test_the_intervals_are_those_of_airflow(
    poke_interval: float, max_wait: float | None, exponential_backoff: bool
) -> None:
    from airflow.providers.common.compat.sdk import BaseSensorOperator

    sensor: Any = BaseSensorOperator(
        task_id="wait",
        mode="reschedule",
        poke_interval=poke_interval,
        timeout=10**9,
        exponential_backoff=exponential_backoff,
        max_wait=None if max_wait is None else timedelta(seconds=max_wait),
    )
    seed = f"{sensor.dag_id}#{sensor.task_id}#1.5"
    schedule = PollSchedule(poke_interval, exponential_backoff, max_wait)
    for elapsed in (0.0, 0.4, 1.0, 9.0, 10.0, 61.0, 1234.5, 86_400.0, 5_000_000.0):
        airflows = sensor._get_next_poke_interval(1.5, lambda elapsed=elapsed: elapsed, 1)
        assert schedule.interval(elapsed, seed=seed) == airflows, elapsed


def polls(schedule: PollSchedule, run: float, *, seed: str = "a") -> list[float]:
    """Return when a run of so many seconds is polled; the last poll sees that it has ended."""
    times = [0.0]
    while times[-1] < run:
        times.append(times[-1] + schedule.interval(times[-1], seed=seed))
    return times


@pytest.mark.parametrize("run", [1.0, 5.0, 20.0, 37.0, 50.0, 333.0, 1000.0, 3600.0, 86_400.0])
def test_an_end_is_noticed_a_twentieth_late_or_two_seconds_or_a_minute(run: float) -> None:
    for seed in "abcdefgh":
        late = polls(PollSchedule(), run, seed=seed)[-1] - run
        assert late <= min(max(2.0, run / 20), 60.0)


def test_a_long_run_costs_few_requests() -> None:
    assert len(polls(PollSchedule(), 3600.0)) < 3600 / 10 / 2


def test_the_interval_grows_up_to_max_wait() -> None:
    times = polls(PollSchedule(max_wait=5.0), 400.0)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] <= 2.0
    assert 4.0 <= gaps[-1] <= max(gaps) <= 5.0
    assert max(PollSchedule(max_wait=0.5).interval(t, seed="a") for t in times) <= 0.5


def test_an_interval_that_was_set_is_kept_to_exactly() -> None:
    assert {PollSchedule(7.0).interval(t, seed="a") for t in (0.0, 1.0, 5000.0)} == {7.0}


def test_exponential_backoff_alone_counts_from_airflows_own_interval() -> None:
    for elapsed in (0.0, 100.0, 5000.0):
        assert PollSchedule(None, True).interval(elapsed, seed="a") == PollSchedule(
            60.0, True
        ).interval(elapsed, seed="a")


@pytest.mark.parametrize(
    "schedule",
    [PollSchedule(10.0, True), PollSchedule(0.0, True), PollSchedule(), PollSchedule(3.0)],
)
@pytest.mark.parametrize("elapsed", [-5.0, 0.0, 1e3, 1e9, 1e300])
def test_an_interval_is_finite_at_any_time(schedule: PollSchedule, elapsed: float) -> None:
    interval = schedule.interval(elapsed, seed="x")
    assert 1.0 <= interval < 1e9


@pytest.mark.parametrize("schedule", [PollSchedule(60.0, True), PollSchedule()])
def test_waits_that_began_together_spread_out(schedule: PollSchedule) -> None:
    assert len({schedule.interval(1000.0, seed=str(seed)) for seed in range(20)}) > 10
    assert schedule.interval(1000.0, seed="a") == schedule.interval(1000.0, seed="a")


def test_backoff_grows_up_to_max_wait() -> None:
    schedule = PollSchedule(10.0, True, max_wait=100.0)
    intervals = [schedule.interval(elapsed, seed="x") for elapsed in (0, 100, 10_000)]
    assert intervals[0] < intervals[-1] == 100.0
