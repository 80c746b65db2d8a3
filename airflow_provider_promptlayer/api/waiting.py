# SPDX-License-Identifier: Apache-2.0
"""The decision after each look: done, look again in so many seconds, or give up.

Every mode of waiting asks :class:`Wait`, and hands it the time. It keeps three rules:

- A blip is not an outage. Trouble in asking says nothing about what is asked for, so the wait goes
  on, backing off, until it has lasted for ``max_outage``.
- The deadline is a point in time, set once, so that a wait which moves to another process ends
  when it would have ended. The last look is taken at the deadline, not before it.
- What cannot get better ends at once: a refusal that another try would meet again.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from airflow_provider_promptlayer.api.pace import (
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    Pace,
    fraction,
)
from airflow_provider_promptlayer.api.subjects import Look
from airflow_provider_promptlayer.api.throttle import Throttle
from airflow_provider_promptlayer.exceptions import (
    PromptLayerError,
    PromptLayerOutageError,
    PromptLayerRateLimitError,
    PromptLayerTransientError,
    PromptLayerWaitTimeoutError,
)

DEFAULT_MAX_OUTAGE: Final = 30 * 60.0
"""Seconds for which PromptLayer may be out of reach before a wait gives up."""

_MAX_BACKOFF: Final = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next.

    :param is_done: the wait is over: the thing has ended.
    :param sleep: seconds until the next look.
    :param note: a line for the log, or None where there is no news.
    :param is_trouble: whether the note warns.
    :param ends_outage: whether the note says that PromptLayer answers again.
    """

    is_done: bool = False
    sleep: float = 0.0
    note: str | None = None
    is_trouble: bool = False
    ends_outage: bool = False


class Wait:
    """The state of one wait.

    :param subject: what is waited for, for messages: ``"workflow run 123"``.
    :param started_at: when the wait began, in seconds since the epoch.
    :param deadline: when it ends without success, in seconds since the epoch; None for a caller
        that keeps the time itself.
    :param grace: seconds after the deadline in which trouble in asking is still ridden out, for
        what is thought to have ended in time. An answer that it goes on ends the wait then.
    :param max_outage: seconds for which PromptLayer may be out of reach.
    :param outage_since: when an outage began that is still going on, or None.
    :param throttle: what all waits on one connection share.
    :param jitter: returns numbers from 0 to 1.
    """

    __slots__ = (
        "_failures",
        "_jitter",
        "_last",
        "deadline",
        "grace",
        "max_outage",
        "outage_since",
        "pace",
        "started_at",
        "subject",
        "throttle",
    )

    def __init__(
        self,
        subject: str,
        pace: Pace,
        *,
        started_at: float,
        deadline: float | None,
        grace: float = 0.0,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        outage_since: float | None = None,
        throttle: Throttle | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.subject = subject
        self.pace = pace
        self.started_at = started_at
        self.deadline = deadline
        self.grace = grace
        self.max_outage = max_outage
        self.outage_since = outage_since
        self.throttle = throttle or Throttle()
        self._jitter = jitter
        self._failures = 0
        self._last = "nothing yet"

    def hand_over(
        self, step: Step, *, settle: float, now: float, is_contradicted: bool = False
    ) -> float:
        """Return when the process that takes this wait over is to look first, since the epoch.

        Tasks that hand over at the same moment, as mapped ones do, are spread: each has a place of
        its own in the interval to come.

        :param step: what follows from the last look here.
        :param settle: seconds in which it must not look.
        :param is_contradicted: the short answer, which that process asks for, said wrongly that it
            had ended. It may say so again, so the whole interval passes before.
        """
        if step.is_trouble:
            seconds = max(step.sleep, settle) + self._place * min(step.sleep, settle)
        elif is_contradicted:
            seconds = max(step.sleep, settle)
        else:
            seconds = settle + self._place * max(step.sleep - settle, min(step.sleep, settle))
        return now + max(self._capped(seconds, now), settle)

    def take_over(self, planned: float | None, *, now: float) -> float:
        """Return the seconds until this process is to look first.

        Waits whose time has long passed, as that of all has when a triggerer comes back, do not all
        look at once. One whose time lies further ahead than any plan goes was planned by another
        machine's clock: it is polled after two intervals, or two minutes; in an outage, in which
        PromptLayer may have asked for a longer pause, after ``max_outage`` at the latest. A wait
        that seems to begin in the future begins now, and lasts as long as it was meant to.

        :param planned: what :meth:`hand_over` said; None for a wait that begins here.
        """
        if self.started_at > now:  # this machine's clock is behind that of the one before
            ahead = self.started_at - now
            self.started_at = now
            self.deadline = None if self.deadline is None else self.deadline - ahead
        interval = self._interval(now)
        if planned is None:
            return self._capped(self._place * min(interval, SHORTEST_INTERVAL), now)
        if now - planned < interval:
            furthest = 2 * max(interval, LONGEST_INTERVAL)
            if self.outage_since is not None:
                furthest = max(furthest, self.max_outage)
            # The clocks of two machines may differ by hours.
            return max(0.0, min(planned - now, furthest))
        return self._capped(self._place * interval, now)

    def before_look(self, *, now: float) -> float:
        """Return the seconds for which to put the look off, because others were told to wait.

        0 once the time is up: the last look is taken, and decides.
        """
        return self._capped(self.throttle.delay(now=now), now)

    def after_look(self, look: Look, *, now: float) -> Step:
        """Return what follows from an answer.

        :raises PromptLayerWaitTimeoutError: if the thing has not ended and the time is up.
        """
        notes = []
        if ends_outage := self.outage_since is not None:
            notes.append(self._answers_again(now))
        if look.progress != self._last:
            notes.append(f"{self._subject}: {look.progress}.")
        note = " ".join(notes) or None
        self._last = look.progress
        if look.is_complete:
            return Step(is_done=True, note=note, ends_outage=ends_outage)
        self.grace = 0.0  # is for what has ended in time, and this has not
        sleep = self._until_next(now, self.deadline)
        return Step(sleep=sleep, note=note, ends_outage=ends_outage)

    def after_answer(self, *, now: float) -> Step:
        """Return what follows from an answer that is all that was asked for."""
        if self.outage_since is None:
            return Step(is_done=True)
        return Step(is_done=True, note=self._answers_again(now), ends_outage=True)

    def after_error(self, error: PromptLayerError, *, now: float) -> Step:
        """Return what follows from trouble in asking.

        :raises PromptLayerError: ``error`` itself, if trying again cannot help.
        :raises PromptLayerWaitTimeoutError: if the time is up.
        :raises PromptLayerOutageError: if PromptLayer has been out of reach for too long.
        """
        if not error.retry_helps:
            raise error
        note = None
        if self.outage_since is not None:
            self.outage_since = min(self.outage_since, now)  # the clock may have been set back
        else:
            self.outage_since = now
            note = f"{str(error).rstrip('.')}. Still waiting for {self.subject}."
        self._failures += 1
        self._last = str(error)
        if now - self.outage_since >= self.max_outage:
            raise PromptLayerOutageError(
                f"PromptLayer could not be asked about {self.subject} since "
                f"{_utc(self.outage_since)}, longer than max_outage={self.max_outage:.0f} s. It "
                f"may well go on. Last trouble: {error}"
            ) from None
        asked = error.retry_after if isinstance(error, PromptLayerTransientError) else None
        backoff = self._backoff() if asked is None else asked
        until_outage = self.outage_since + self.max_outage - now
        if isinstance(error, PromptLayerRateLimitError):
            self.throttle.hold_for(min(backoff, until_outage), now=now)
        interval = self._until_next(now, self._last_deadline)
        if self.pace.fits_the_work:  # what asked for a long interval was not the trouble
            interval = min(interval, SHORTEST_INTERVAL)
        seconds = min(max(interval, backoff), until_outage)
        return Step(sleep=self._capped(seconds, now), note=note, is_trouble=True)

    def _answers_again(self, now: float) -> str:
        lasted = 0.0 if self.outage_since is None else now - self.outage_since
        self.outage_since, self._failures = None, 0
        return f"PromptLayer answers again after {lasted:.0f} s."

    def _until_next(self, now: float, deadline: float | None) -> float:
        if deadline is not None and now >= deadline:
            raise PromptLayerWaitTimeoutError(
                f"{self._subject} did not end within {deadline - self.started_at:.0f} s "
                f"(last seen: {self._last}). It goes on at PromptLayer."
            )
        return self._capped(self._interval(now), now)

    def _interval(self, now: float) -> float:
        return self.pace.interval(now - self.started_at, seed=self._seed)

    def _capped(self, seconds: float, now: float) -> float:
        deadline = self._last_deadline
        remaining = math.inf if deadline is None else deadline - now
        return max(0.0, min(seconds, remaining))

    def _backoff(self) -> float:
        longest = min(_MAX_BACKOFF, 2.0 ** min(self._failures, 10))
        return longest * (0.5 + 0.5 * self._jitter())

    @property
    def _last_deadline(self) -> float | None:
        return None if self.deadline is None else self.deadline + self.grace

    @property
    def _seed(self) -> str:
        return f"{self.subject}#{self.started_at}"

    @property
    def _place(self) -> float:
        """Where this wait stands among those that began at the same moment, from 0 to 1."""
        return fraction(self._seed)

    @property
    def _subject(self) -> str:
        return self.subject[:1].upper() + self.subject[1:]


def _utc(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
