# SPDX-License-Identifier: Apache-2.0
"""The decision after each poll: done, poll again in so many seconds, or give up.

Every mode of waiting asks :class:`Poller`, and hands it the time. It keeps three rules:

- A blip is not an outage. A failed poll says nothing about the job, so the wait goes on, backing
  off, until PromptLayer has been out of reach for ``max_outage``.
- The deadline is a point in time, set once, so that a wait which moves to another process ends
  when it would have ended. The last poll comes at the deadline, not before it.
- An error that another try would meet again, such as a refusal, ends the wait at once.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, NamedTuple

from airflow_provider_promptlayer.api.errors import (
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerOutageError,
    PromptLayerRateLimitError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.job import JobStatus, RemoteJob
from airflow_provider_promptlayer.api.times import in_words, moment
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.polling.schedule import (
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    PollSchedule,
    Throttle,
    fraction,
)

DEFAULT_MAX_OUTAGE: Final = 30 * 60.0
"""Seconds for which PromptLayer may be out of reach before a wait gives up."""


class PollDecision(NamedTuple):
    """What to do before the next poll.

    :param is_done: the wait is over: the job has ended.
    :param sleep: seconds until the next poll.
    :param note: a line for the log, or None where nothing has changed.
    :param is_trouble: the poll has failed; the note warns.
    :param ends_outage: the note says that PromptLayer answers again.
    :param is_hold: the poll is put off, because PromptLayer told other waits to pause.
    """

    is_done: bool = False
    sleep: float = 0.0
    note: str | None = None
    is_trouble: bool = False
    ends_outage: bool = False
    is_hold: bool = False

    @property
    def begins_outage(self) -> bool:
        """Whether the poll has failed, and the one before it had not."""
        return self.is_trouble and self.note is not None

    def log_to(self, log: Any) -> None:
        """Write the note to a logger, if there is one."""
        if self.note:
            (log.warning if self.is_trouble else log.info)("%s", self.note)


@dataclass(slots=True, eq=False)
class Poller:
    """Decides, after each poll of one wait, what comes next: a pause, the end, or an error.

    It sends nothing: the loops of :mod:`.loop` do.

    :param job: how messages name the job, such as ``"workflow run 123"``.
    :param began_at: when the wait began, in seconds since the epoch.
    :param deadline: when the wait fails, in seconds since the epoch; infinite for a caller that
        watches the time itself.
    :param grace: seconds after the deadline in which failed polls are still retried, for a job that
        was reported to have ended in time. An answer that the job goes on ends the wait then.
    :param max_outage: seconds for which PromptLayer may be out of reach.
    :param outage_since: when an outage began that is still going on, or None.
    :param doubts_connection: whether to retry, for a few polls, if the Airflow connection cannot be
        used any more.
    :param backoff: how long to pause after trouble.
    :param pending_phrase: see :class:`.RemoteJob`.
    :param abandoned_phrase: see :class:`.RemoteJob`.
    :param throttle: the pause that all waits on one connection share.
    :param jitter: returns numbers from 0 to 1.
    """

    job: str
    schedule: PollSchedule
    _: KW_ONLY
    began_at: float
    deadline: float = math.inf
    grace: float = 0.0
    max_outage: float = DEFAULT_MAX_OUTAGE
    outage_since: float | None = None
    doubts_connection: bool = False
    backoff: RetryPolicy = retries.POLLING
    pending_phrase: str = RemoteJob.pending_phrase
    abandoned_phrase: str = RemoteJob.abandoned_phrase
    throttle: Throttle = field(default_factory=Throttle)
    jitter: Callable[[], float] = random.random
    _failures: int = field(default=0, init=False)
    _unusable: int = field(default=0, init=False)
    _last: str = field(default="nothing yet", init=False)

    @classmethod
    def of_call(cls, about: str, policy: RetryPolicy, *, doubts_connection: bool = False) -> Poller:
        """Return the state of a call that is sent until there is an answer.

        :param about: the job or its part, for messages.
        """
        return cls(
            about,
            PollSchedule(0.0),
            began_at=time.time(),
            max_outage=policy.give_up_after,
            doubts_connection=doubts_connection,
            backoff=policy,
        )

    @property
    def last_deadline(self) -> float:
        """When to stop whatever the last answer was, in seconds since the epoch."""
        return self.deadline + self.grace

    def first_poll_after_defer(
        self, decision: PollDecision, *, settle: float, now: float, is_contradicted: bool = False
    ) -> float:
        """Return when the triggerer is to poll first, in seconds since the epoch.

        Tasks that defer at the same moment, as mapped ones do, are spread: each has a place of its
        own in the interval to come.

        :param decision: the decision after the last poll here.
        :param settle: seconds in which the triggerer must not poll.
        :param is_contradicted: whether the triggerer was told wrongly that the job had ended. That
            may happen again, so a whole interval passes first.
        """
        held = min(self.throttle.remaining(now=now), self.max_outage)
        if decision.is_trouble or decision.is_hold or held > decision.sleep:
            sleep = max(decision.sleep, held)
            seconds = max(sleep, settle) + self._place * min(sleep, settle)
        elif is_contradicted:
            seconds = max(decision.sleep, settle)
        else:
            spread = max(decision.sleep - settle, min(decision.sleep, settle))
            seconds = settle + self._place * spread
        return now + max(self._capped(seconds, now), settle)

    def resume_delay(
        self, planned: float | None, *, now: float, after_trouble: bool = False
    ) -> float:
        """Return the seconds until this process is to poll first.

        Polls that are long overdue, as after a restart of the triggerer, are spread. A poll that is
        planned too far ahead was planned by another machine's clock: it is sent after two intervals
        or two minutes at the latest; after trouble, in which PromptLayer may have asked for a
        longer pause, after ``max_outage`` at the latest. A wait that seems to begin in the future
        begins now, and keeps its length.

        :param planned: what :meth:`first_poll_after_defer` said; None for a wait that begins here.
        :param after_trouble: whether the previous process met trouble; that is no outage here.
        """
        if self.began_at > now:  # this machine's clock is behind that of the previous one
            self.deadline -= self.began_at - now
            self.began_at = now
        interval = self._interval(now)
        if planned is None:
            return self._capped(self._place * min(interval, SHORTEST_INTERVAL), now)
        if now - planned < interval:
            furthest = 2 * max(interval, LONGEST_INTERVAL)
            if after_trouble or self.outage_since is not None:
                furthest = max(furthest, self.max_outage)
            # The clocks of two machines may differ by hours.
            return max(0.0, min(planned - now, furthest))
        return self._capped(self._place * interval, now)

    def delay_before_poll(self, *, now: float) -> float:
        """Return for how long to put the poll off, because PromptLayer told other waits to pause.

        At most ``max_outage``, and 0 once the time is up, so that the last poll is sent.
        """
        held = self.throttle.delay(now=now)
        return self._capped(min(held, self.max_outage), now) if held else 0.0

    def on_status(self, status: JobStatus, *, now: float) -> PollDecision:
        """Return the decision after an answer.

        :raises PromptLayerWaitTimeoutError: if the job has not ended and the time is up.
        """
        notes = []
        if ends_outage := self.outage_since is not None:
            notes.append(self._answers_again(now))
        self._unusable = 0
        if (progress := status.progress) != self._last:
            notes.append(f"{self._job}: {progress}.")
        note = " ".join(notes) or None
        self._last = progress
        if status.is_complete:
            return PollDecision(is_done=True, note=note, ends_outage=ends_outage)
        self.grace = 0.0  # it is for a job that ended in time, and this one did not
        sleep = self._until_next(now, self.deadline)
        return PollDecision(sleep=sleep, note=note, ends_outage=ends_outage)

    def on_answer(self, *, now: float) -> PollDecision:
        """Return the decision after the answer to a call that is not repeated."""
        self._unusable = 0
        if self.outage_since is None:
            return PollDecision(is_done=True)
        return PollDecision(is_done=True, note=self._answers_again(now), ends_outage=True)

    def on_error(self, error: PromptLayerError, *, now: float) -> PollDecision:
        """Return the decision after a failed poll.

        :raises PromptLayerError: ``error`` itself, if trying again cannot help.
        :raises PromptLayerWaitTimeoutError: if the time is up.
        :raises PromptLayerOutageError: if PromptLayer has been out of reach for too long.
        """
        if not (self.backoff.retries(error) or self._may_be_corrected(error)):
            raise error
        note = None
        if self.outage_since is not None:
            self.outage_since = min(self.outage_since, now)  # the clock may have been set back
        else:
            self.outage_since = now
            note = f"{str(error).rstrip('.')}. Still waiting for {self.job}."
        self._failures += 1
        self._last = str(error)
        if now - self.outage_since >= self.max_outage:
            outage = PromptLayerOutageError(
                f"No request about {self.job} has succeeded since "
                f"{moment(self.outage_since)}, longer than max_outage "
                f"({in_words(self.max_outage)}). The job may well go on. Last error: {error}",
                status=error.status,
            )
            outage.request_id = error.request_id
            raise outage from None
        backoff = self.backoff.pause(self._failures, error, jitter=self.jitter)
        until_outage = self.outage_since + self.max_outage - now
        if isinstance(error, PromptLayerRateLimitError):
            self.throttle.hold_for(min(backoff, until_outage), now=now)
        interval = self._until_next(now, self.last_deadline)
        if self.schedule.is_adaptive:  # the user set none, and the trouble may pass soon
            interval = min(interval, SHORTEST_INTERVAL)
        seconds = min(max(interval, backoff), until_outage)
        return PollDecision(sleep=self._capped(seconds, now), note=note, is_trouble=True)

    def _may_be_corrected(self, error: PromptLayerError) -> bool:
        if not (self.doubts_connection and isinstance(error, PromptLayerConfigurationError)):
            return False
        self._unusable += 1
        return self._unusable < retries.READING_CONNECTION.attempts

    def _answers_again(self, now: float) -> str:
        lasted = 0.0 if self.outage_since is None else now - self.outage_since
        self.outage_since, self._failures = None, 0
        return f"PromptLayer answers again after {in_words(lasted)}."

    def _until_next(self, now: float, deadline: float) -> float:
        if now >= deadline:
            raise PromptLayerWaitTimeoutError(
                f"{self._job} {self.pending_phrase} within {in_words(deadline - self.began_at)} "
                f"(last seen: {self._last}). It {self.abandoned_phrase}."
            )
        return self._capped(self._interval(now), now)

    def _interval(self, now: float) -> float:
        schedule = self.schedule
        seed = "" if schedule.is_fixed else self._seed  # which takes as long as the rest of a poll
        return schedule.interval(now - self.began_at, seed=seed)

    def _capped(self, seconds: float, now: float) -> float:
        return max(0.0, min(seconds, self.last_deadline - now))

    @property
    def _seed(self) -> str:
        return f"{self.job}#{self.began_at}"

    @property
    def _place(self) -> float:
        """The place of this wait among those that began at the same moment, from 0 to 1."""
        return fraction(self._seed)

    @property
    def _job(self) -> str:
        return self.job[:1].upper() + self.job[1:]
