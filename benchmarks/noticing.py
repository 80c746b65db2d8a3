# SPDX-License-Identifier: Apache-2.0
"""How soon the end of a run is noticed, and with how many requests; on a simulated clock.

The provider's own poll schedule is applied to thousands of runs of random length, and compared with
polling every 10 s, or every 60 s, from the start of the run.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from airflow_provider_promptlayer.api.workflows import WorkflowResults
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.schedule import PollSchedule
from benchmarks.figures import Figure, Samples

SHORTEST: Final = 5.0
LONGEST: Final = 3600.0

_ROUNDS = 7
_RUNS = 1000
_UNDER_WAY = WorkflowResults(1, is_complete=False)

PollTimes = Callable[[int], Iterator[float]]
"""The seconds after the start at which the run of that number is polled."""


def measure() -> list[Figure]:
    """Return the figures of this module."""
    return [
        _figure(duration, mode, interval)
        for duration in (_LOG_UNIFORM, _UNIFORM)
        for mode in (_IN_WORKER, _DEFERRED)
        for interval in (10.0, 60.0)
    ]


@dataclass(frozen=True)
class _Durations:
    name: str
    draw: Callable[[random.Random], float]


@dataclass(frozen=True)
class _Mode:
    name: str
    polls: PollTimes


@dataclass(frozen=True)
class _Round:
    """The results of one round."""

    lateness: list[float]
    requests: list[int]


def _figure(durations: _Durations, mode: _Mode, interval: float) -> Figure:
    ours = [_round(durations, mode.polls, seed) for seed in range(_ROUNDS)]
    theirs = [_round(durations, lambda _: _every(interval), seed) for seed in range(_ROUNDS)]
    late, fixed_late = _medians(ours), _medians(theirs)
    requests, fixed_requests = _means(ours), _means(theirs)
    return Figure(
        f"late, median: runs {durations.name}, {mode.name}",
        "s",
        late,
        f"fixed {interval:g} s",
        fixed_late,
        reached=late.median < fixed_late.median and requests.median <= fixed_requests.median,
        wanted="earlier, no more requests",
        note=(
            f"requests {requests.median:.0f} to {fixed_requests.median:.0f}; "
            f"90th percentile {_ninetieth(ours).median:.1f} s to {_ninetieth(theirs).median:.1f} s"
        ),
        details={
            "requests": requests.payload(),
            "fixed_requests": fixed_requests.payload(),
            "p90": _ninetieth(ours).payload(),
            "fixed_p90": _ninetieth(theirs).payload(),
        },
    )


def _round(durations: _Durations, polls: PollTimes, seed: int) -> _Round:
    draw = random.Random(seed)  # noqa: S311 - the same runs for all
    found = _Round([], [])
    for number in range(1, _RUNS + 1):
        duration = durations.draw(draw)
        for count, at in enumerate(polls(number), start=1):
            if at >= duration:
                found.lateness.append(at - duration)
                found.requests.append(count)
                break
    return found


def _medians(rounds: list[_Round]) -> Samples:
    return Samples.of([statistics.median(one.lateness) for one in rounds])


def _ninetieth(rounds: list[_Round]) -> Samples:
    return Samples.of([statistics.quantiles(one.lateness, n=10)[-1] for one in rounds])


def _means(rounds: list[_Round]) -> Samples:
    return Samples.of([statistics.fmean(one.requests) for one in rounds])


def _every(interval: float) -> Iterator[float]:
    at = 0.0
    while True:
        yield at
        at += interval


def _in_worker(number: int) -> Iterator[float]:
    wait, at = _new_wait(number), 0.0
    while True:
        yield at
        at += _step(wait, at).sleep


def _deferred(number: int) -> Iterator[float]:
    """In a worker at first, and then in the triggerer, as by default in Airflow 3."""
    from airflow_provider_promptlayer.bases.deferral import DEFER_AFTER, SETTLE_SECONDS

    wait, at = _new_wait(number), 0.0
    while at + (step := _step(wait, at)).sleep <= DEFER_AFTER:
        yield at
        at += step.sleep
    yield at
    at = wait.first_poll_after_defer(step, settle=SETTLE_SECONDS, now=at)
    while True:
        yield at
        at += _step(wait, at).sleep


def _new_wait(number: int) -> Poller:
    return Poller(f"workflow run {number}", PollSchedule(), began_at=0.0)


def _step(wait: Poller, now: float) -> PollDecision:
    return wait.on_status(_UNDER_WAY, now=now)


_LOG_UNIFORM = _Durations(
    "5 s to 1 h, log-uniform",
    lambda draw: math.exp(draw.uniform(math.log(SHORTEST), math.log(LONGEST))),
)
_UNIFORM = _Durations("5 s to 1 h, uniform", lambda draw: draw.uniform(SHORTEST, LONGEST))
_IN_WORKER = _Mode("in a worker", _in_worker)
_DEFERRED = _Mode("deferred", _deferred)
