# SPDX-License-Identifier: Apache-2.0
"""Many triggerers against a PromptLayer that limits the requests a second; on a simulated clock.

    python -m benchmarks.fleet [--runs 100000]

The provider's own poll loop, pollers, schedule and throttle wait for thousands of runs, in as many
triggerers as are told. The server answers 429 to whatever is above its limit, with a
``Retry-After`` or without. Each triggerer learns of the limit from its own 429s alone. That is
compared with waits that learn of it one by one, and with triggerers that hear of each other's
429s at once, as from a service that they all ask.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from statistics import median, quantiles
from typing import Any, Final
from unittest.mock import patch

from airflow_provider_promptlayer.api.errors import PromptLayerError, PromptLayerRateLimitError
from airflow_provider_promptlayer.api.workflows import WorkflowResults
from airflow_provider_promptlayer.polling import loop
from airflow_provider_promptlayer.polling.loop import Loop
from airflow_provider_promptlayer.polling.poller import Poller
from airflow_provider_promptlayer.polling.schedule import PollSchedule, Throttle
from benchmarks.figures import Figure, Samples
from benchmarks.report import table

RUNS: Final = 10_000
TRIGGERERS: Final = 20
RUNS_PER_REQUEST: Final = 50
"""The limit: a request a second for so many runs, about a fifth of what the waits would send."""

_BEGIN_WITHIN = 600.0
_SHORTEST = 30.0
_LONGEST = 1800.0
_LATENCY = 0.1
_CONNECTIONS = 20
_CALL: Any = object()

OWN, NONE, COMMON = "a brake in each triggerer", "no brake", "one brake for all triggerers"


@dataclass(frozen=True)
class Outcome:
    """What came of all waits.

    :param answers: the requests that were answered.
    :param refusals: those that were answered 429.
    :param seconds: from the first wait's beginning to the last one's end.
    :param lateness: for each wait, the seconds from the end of its run until that was noticed.
    :param silence: for each wait, the longest time without an answer, in seconds.
    :param failed: how many waits gave up.
    """

    answers: int
    refusals: int
    seconds: float
    lateness: list[float]
    silence: list[float]
    failed: int

    @property
    def refused(self) -> float:
        """The share of the requests that were answered 429."""
        return self.refusals / (self.answers + self.refusals)

    def note(self) -> str:
        """Return all but the median lateness, for people."""
        return (
            f"late {_ninety_ninth(self.lateness):.0f} s (99th percentile); "
            f"{(self.answers + self.refusals) / self.seconds:,.0f} requests/s, "
            f"{self.refusals:,} of them 429 ({self.refused:.0%}); longest time without an answer "
            f"{median(self.silence):.0f} s (median), {_ninety_ninth(self.silence):.0f} s (99th "
            f"percentile); {self.failed} waits gave up"
        )


def measure(runs: int = RUNS, say: Callable[[str], None] = lambda _: None) -> list[Figure]:
    """Return the figures of this module.

    :param say: called with each line of progress.
    """
    limit = runs / RUNS_PER_REQUEST
    title = f"{runs:,} runs, {TRIGGERERS} triggerers: end noticed late, median"

    def wait(brake: str, limit: float, retry_after: float | None) -> Outcome:
        say(f"{brake}, limit {limit:g}/s, Retry-After {retry_after}")
        return simulate(runs, TRIGGERERS, brake=brake, limit=limit, retry_after=retry_after)

    free = wait(OWN, math.inf, None)
    figures = [Figure(f"{title}; no limit", "s", _median(free), note=free.note())]
    for retry_after in (None, 10.0):
        asks = "no Retry-After" if retry_after is None else f"Retry-After: {retry_after:.0f}"
        ours = wait(OWN, limit, retry_after)
        for brake in (NONE, COMMON):
            theirs = wait(brake, limit, retry_after)
            figures.append(
                Figure(
                    f"{title}; {limit:g} requests/s, {asks}",
                    "s",
                    _median(ours),
                    brake,
                    _median(theirs),
                    reached=_ninety_ninth(ours.lateness) < _ninety_ninth(theirs.lateness),
                    wanted="99th percentile too",
                    note=f"ours: {ours.note()}\n    {brake}: {theirs.note()}",
                )
            )
    return figures


def simulate(
    runs: int, triggerers: int, *, brake: str, limit: float, retry_after: float | None
) -> Outcome:
    """Wait for runs that begin within ten minutes, and take from half a minute to half an hour.

    The durations are log-uniform, an answer takes 0.1 s, and a triggerer has 20 connections.

    :param brake: which waits a 429 slows down: :data:`OWN`, :data:`NONE` or :data:`COMMON`.
    :param limit: the requests a second that the server answers; a second's worth may come at once.
    :param retry_after: the seconds that its 429 asks for, if any.
    """
    clock = _Clock()
    with patch.object(loop, "time", clock):
        return _Fleet(runs, triggerers, brake, _Server(limit, retry_after), clock).run()


@dataclass
class _Clock:
    now: float = 0.0

    def time(self) -> float:
        return self.now


@dataclass
class _Server:
    """A token bucket."""

    limit: float
    retry_after: float | None
    answers: int = 0
    refusals: int = 0
    _tokens: float = 0.0
    _at: float = 0.0

    def admits(self, now: float) -> bool:
        if self.limit < math.inf:
            self._tokens = min(self.limit, self._tokens + (now - self._at) * self.limit)
            self._at = now
            if self._tokens < 1:
                self.refusals += 1
                return False
            self._tokens -= 1
        self.answers += 1
        return True

    def refusal(self) -> PromptLayerRateLimitError:
        return PromptLayerRateLimitError("429", status=429, retry_after=self.retry_after)


@dataclass
class _Triggerer:
    throttle: Throttle
    free: int = _CONNECTIONS
    queue: deque[_Wait] = field(default_factory=deque)


@dataclass(slots=True)
class _Wait:
    triggerer: _Triggerer
    loop: Loop[WorkflowResults]
    run_ends_at: float
    answered_at: float
    silence: float = 0.0


class _Fleet:
    def __init__(
        self, runs: int, triggerers: int, brake: str, server: _Server, clock: _Clock
    ) -> None:
        self._server, self._clock = server, clock
        self._number = count()
        self._events: list[tuple[float, int, _Wait, bool | None]] = []
        self._lateness: list[float] = []
        self._silence: list[float] = []
        self._failed = 0
        draw = random.Random(1)  # noqa: S311 - the same runs for all
        common = Throttle(jitter=draw.random)
        them = [
            _Triggerer(common if brake == COMMON else Throttle(jitter=draw.random))
            for _ in range(triggerers)
        ]
        for number in range(runs):
            triggerer = them[number % triggerers]
            began_at = draw.uniform(0.0, _BEGIN_WITHIN)
            poller = Poller(
                f"workflow run {number}",
                PollSchedule(),
                began_at=began_at,
                throttle=Throttle(jitter=draw.random) if brake == NONE else triggerer.throttle,
                jitter=draw.random,
            )
            seconds = math.exp(draw.uniform(math.log(_SHORTEST), math.log(_LONGEST)))
            polls = loop.poll_until_ended(poller, _CALL)
            wait = _Wait(triggerer, polls, began_at + seconds, began_at)
            self._at(began_at + poller.resume_delay(None, now=began_at), wait)

    def run(self) -> Outcome:
        """Let all events happen."""
        while self._events:
            self._clock.now, _, wait, admitted = heapq.heappop(self._events)
            try:
                step = next(wait.loop) if admitted is None else self._answered(wait, admitted)
            except StopIteration:
                self._silence.append(wait.silence)
                continue
            except PromptLayerError:
                self._failed += 1
                continue
            if step is _CALL:
                self._poll(wait)
            else:  # after the decision that the wait is over, the loop returns
                self._at(self._clock.now + step.sleep, wait)
        return Outcome(
            self._server.answers,
            self._server.refusals,
            self._clock.now,
            self._lateness,
            self._silence,
            self._failed,
        )

    def _at(self, moment: float, wait: _Wait, admitted: bool | None = None) -> None:
        """Let a wait go on at a moment, with an answer or a refusal if there is one."""
        heapq.heappush(self._events, (moment, next(self._number), wait, admitted))

    def _poll(self, wait: _Wait) -> None:
        if wait.triggerer.free:
            wait.triggerer.free -= 1
            self._send(wait)
        else:
            wait.triggerer.queue.append(wait)

    def _send(self, wait: _Wait) -> None:
        admitted = self._server.admits(self._clock.now + _LATENCY / 2)
        self._at(self._clock.now + _LATENCY, wait, admitted)

    def _answered(self, wait: _Wait, admitted: bool) -> Any:
        now = self._clock.now
        if wait.triggerer.queue:
            self._send(wait.triggerer.queue.popleft())
        else:
            wait.triggerer.free += 1
        if not admitted:
            return wait.loop.throw(self._server.refusal())
        wait.silence = max(wait.silence, now - wait.answered_at)
        wait.answered_at = now
        is_complete = now - _LATENCY / 2 >= wait.run_ends_at
        if is_complete:
            self._lateness.append(now - wait.run_ends_at)
        return wait.loop.send(WorkflowResults(1, is_complete=is_complete))


def _median(outcome: Outcome) -> Samples:
    return Samples.of([median(outcome.lateness)])


def _ninety_ninth(values: list[float]) -> float:
    return quantiles(values, n=100)[98]


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"{RUNS} by default")
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    print(table(measure(parser.parse_args().runs, say)))


if __name__ == "__main__":
    _main()
