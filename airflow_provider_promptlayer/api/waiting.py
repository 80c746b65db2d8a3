# SPDX-License-Identifier: Apache-2.0
"""The decision after each look: done, look again in so many seconds, or give up.

Every mode of waiting asks :class:`Wait`, and hands it the time. It keeps three rules:

- A blip is not an outage. Trouble in asking says nothing about the run, so the wait goes on,
  backing off, until it has lasted for ``max_outage``.
- The deadline is a point in time, set once, so that a wait which moves to another process ends
  when it would have ended. The last look is taken at the deadline, not before it.
- What cannot get better ends at once: a refusal that another try would meet again.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from airflow_provider_promptlayer.api.throttle import Throttle
from airflow_provider_promptlayer.exceptions import (
    PromptLayerError,
    PromptLayerOutageError,
    PromptLayerRateLimitError,
    PromptLayerTransientError,
    PromptLayerWaitTimeoutError,
)

DEFAULT_POKE_INTERVAL: Final = 10.0
"""Seconds between two looks."""

DEFAULT_MAX_OUTAGE: Final = 30 * 60.0
"""Seconds for which PromptLayer may be out of reach before a wait gives up."""

_MAX_BACKOFF: Final = 60.0
_LONGEST: Final = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look; the arguments mean what they mean for Airflow's sensors.

    :param poke_interval: seconds between two looks.
    :param exponential_backoff: let the interval double from look to look, with jitter.
    :param max_wait: longest interval in seconds; None or 0 for none. Counts only with
        ``exponential_backoff``, as in Airflow.
    """

    poke_interval: float = DEFAULT_POKE_INTERVAL
    exponential_backoff: bool = False
    max_wait: float | None = None

    def interval(self, elapsed: float, *, seed: str) -> float:
        """Return the seconds until the next look.

        Computed from the time waited so far and not from a count of looks, so that a wait taken
        over by another process goes on at the pace that it had. The formula and its jitter are
        those of ``BaseSensorOperator``.

        :param elapsed: seconds since the wait began.
        :param seed: tells waits apart, so that those which began together spread out.
        """
        if not self.exponential_backoff:
            return self.poke_interval
        look, passed = 1, 0.0
        while (passed := passed + self._backoff(look, seed)) <= elapsed and passed < _LONGEST:
            look += 1
        interval = self._backoff(look, seed)
        return min(self.max_wait, interval) if self.max_wait else interval

    def _backoff(self, look: int, seed: str) -> float:
        shortest = max(int(self.poke_interval * 2.0 ** (look - 2)), 1)
        digest = hashlib.sha1(f"{seed}#{look}".encode(), usedforsecurity=False).hexdigest()
        return float(shortest + int(digest, 16) % shortest)


@dataclass(frozen=True, slots=True)
class Look:
    """What a look has shown: whether the thing has ended, and a line for people."""

    is_done: bool
    progress: str


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next.

    :param is_done: the wait is over: the thing has ended.
    :param sleep: seconds until the next look.
    :param note: a line for the log, or None where there is no news.
    :param is_trouble: whether the note warns.
    """

    is_done: bool = False
    sleep: float = 0.0
    note: str | None = None
    is_trouble: bool = False


class Wait:
    """The state of one wait.

    :param subject: what is waited for, for messages: ``"workflow run 123"``.
    :param started_at: when the wait began, in seconds since the epoch.
    :param deadline: when it ends without success, in seconds since the epoch; None for a caller
        that keeps the time itself.
    :param max_outage: seconds for which PromptLayer may be out of reach.
    :param outage_since: when an outage began that is still going on, or None.
    :param throttle: what all waits on one connection share.
    :param jitter: returns numbers from 0 to 1.
    """

    def __init__(
        self,
        subject: str,
        pace: Pace,
        *,
        started_at: float,
        deadline: float | None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        outage_since: float | None = None,
        throttle: Throttle | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.subject = subject
        self.pace = pace
        self.started_at = started_at
        self.deadline = deadline
        self.max_outage = max_outage
        self.outage_since = outage_since
        self.throttle = throttle or Throttle()
        self._jitter = jitter
        self._failures = 0
        self._last = "nothing yet"

    def before_look(self, *, now: float) -> float:
        """Return the seconds for which to put the look off, because others were told to wait.

        0 once the time is up: the last look is taken, and decides.
        """
        return self._capped(self.throttle.delay(now=now), now)

    def after_look(self, look: Look, *, now: float) -> Step:
        """Return what follows from an answer.

        :raises PromptLayerWaitTimeoutError: if the thing has not ended and the time is up.
        """
        note = None
        if self.outage_since is not None:
            note = f"PromptLayer answers again after {now - self.outage_since:.0f} s."
            self.outage_since, self._failures = None, 0
        elif look.progress != self._last:
            note = f"{self._subject}: {look.progress}."
        self._last = look.progress
        if look.is_done:
            return Step(is_done=True, note=note)
        return Step(sleep=self._until_next(now), note=note)

    def after_error(self, error: PromptLayerError, *, now: float) -> Step:
        """Return what follows from trouble in asking.

        :raises PromptLayerError: ``error`` itself, if trying again cannot help.
        :raises PromptLayerWaitTimeoutError: if the time is up.
        :raises PromptLayerOutageError: if PromptLayer has been out of reach for too long.
        """
        if not error.retry_helps:
            raise error
        note = None
        if self.outage_since is None:
            self.outage_since = now
            note = f"{str(error).rstrip('.')}. Waiting on for {self.subject}."
        self._failures += 1
        self._last = str(error)
        if now - self.outage_since >= self.max_outage:
            raise PromptLayerOutageError(
                f"PromptLayer could not be asked about {self.subject} since "
                f"{_utc(self.outage_since)}, longer than max_outage={self.max_outage:.0f} s. The "
                f"run itself may well go on. Last trouble: {error}"
            ) from None
        asked = error.retry_after if isinstance(error, PromptLayerTransientError) else None
        backoff = self._backoff() if asked is None else asked
        until_outage = self.outage_since + self.max_outage - now
        if isinstance(error, PromptLayerRateLimitError):
            self.throttle.hold_for(min(backoff, until_outage), now=now)
        seconds = min(max(self._until_next(now), backoff), until_outage)
        return Step(sleep=self._capped(seconds, now), note=note, is_trouble=True)

    def _until_next(self, now: float) -> float:
        if self.deadline is not None and now >= self.deadline:
            raise PromptLayerWaitTimeoutError(
                f"{self._subject} did not end within {self.deadline - self.started_at:.0f} s "
                f"(last seen: {self._last}). The run itself goes on: PromptLayer cannot cancel it."
            )
        interval = self.pace.interval(
            now - self.started_at, seed=f"{self.subject}#{self.started_at}"
        )
        return self._capped(interval, now)

    def _capped(self, seconds: float, now: float) -> float:
        remaining = math.inf if self.deadline is None else self.deadline - now
        return max(0.0, min(seconds, remaining))

    def _backoff(self) -> float:
        longest = min(_MAX_BACKOFF, 2.0 ** min(self._failures, 10))
        return longest * (0.5 + 0.5 * self._jitter())

    @property
    def _subject(self) -> str:
        return self.subject[:1].upper() + self.subject[1:]


def _utc(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
