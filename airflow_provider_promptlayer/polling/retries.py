# SPDX-License-Identifier: Apache-2.0
"""Is it retried? For each situation: how soon, how often, for how long, and when not.

A policy is a value; :func:`.retried` and :class:`.Poller` apply it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerSheetChangedError,
    PromptLayerTransientError,
    PromptLayerUnreachableError,
)


def may_pass(error: Exception) -> bool:
    """Return whether an error says that the same request may succeed later."""
    return isinstance(error, PromptLayerTransientError)


def started_nothing(error: Exception) -> bool:
    """Return whether a request to start a job certainly did not arrive, and may succeed later.

    True if no connection was made, and for a 429 or a 503 that says so. An error that
    leaves open whether a job was started is not transient, see :mod:`.api.submit`.
    """
    arrived = isinstance(error, PromptLayerUnreachableError) and error.arrived
    return may_pass(error) and not arrived


def whatever_it_is(error: Exception) -> bool:  # noqa: ARG001
    """Return True: Airflow's errors while its server is away have no class of their own."""
    return True


def was_changed(error: Exception) -> bool:
    """Return whether a sheet was changed while it was read."""
    return isinstance(error, PromptLayerSheetChangedError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and when to give up.

    :meth:`next_pause` applies all of it. :class:`.Poller` asks :meth:`pause` alone, and gives up at
    its own deadline and ``max_outage``.

    :param first_pause: seconds after the first failure.
    :param factor: what each further failure in a row multiplies the pause by.
    :param longest_pause: seconds up to which the pause grows.
    :param jitter: the share of a pause that is left to chance, so that tasks which failed together
        are spread.
    :param attempts: how often to try, the first time included.
    :param give_up_after: seconds of trouble after which to give up.
    :param longest_retry_after: the largest ``Retry-After`` to wait for; a larger one gives up. None
        ignores the header.
    :param retries: returns whether to try again after an error.
    """

    first_pause: float = 2.0
    factor: float = 2.0
    longest_pause: float = 60.0
    jitter: float = 0.5
    attempts: float = math.inf
    give_up_after: float = math.inf
    longest_retry_after: float | None = math.inf
    retries: Callable[[Exception], bool] = may_pass

    def within(self, seconds: float) -> RetryPolicy:
        """Return the same policy for a caller that gives up after ``seconds`` at the latest."""
        return replace(self, give_up_after=min(self.give_up_after, seconds))

    def pause(
        self,
        failures: int,
        error: Exception | None = None,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> float:
        """Return the seconds to wait after so many failures in a row; applies no limit.

        :param error: the last failure. Its ``Retry-After`` is the least. The pause may grow beyond
            that, as all clients of a server that is short of capacity are asked for the same.
        :param jitter: returns numbers from 0 to 1.
        """
        growth = self.factor ** min(failures - 1, 10)
        longest = min(self.longest_pause, self.first_pause * growth)
        pause = longest * (1.0 - self.jitter + self.jitter * jitter())
        return max(pause, self._retry_after(error) or 0.0)

    def next_pause(
        self, failures: int, error: Exception | None = None, *, elapsed: float
    ) -> float | None:
        """Return the seconds after which to try again, or None to give up.

        :param failures: how many there were in a row, ``error`` included.
        :param elapsed: seconds since the first try.
        """
        if failures >= self.attempts or (error is not None and not self.retries(error)):
            return None
        asked = self._retry_after(error)
        if asked is not None and asked > (self.longest_retry_after or 0.0):
            return None
        seconds = self.pause(failures, error)
        return seconds if elapsed + seconds <= self.give_up_after else None

    def _retry_after(self, error: Exception | None) -> float | None:
        if self.longest_retry_after is None or not isinstance(error, PromptLayerTransientError):
            return None
        return error.retry_after


POLLING: Final = RetryPolicy()
"""A poll, or a request about a job that has ended. ``max_outage`` ends the retries."""

SUBMITTING: Final = RetryPolicy(
    first_pause=1.0, attempts=5, longest_retry_after=60.0, retries=started_nothing
)
"""To start a job, which costs money: retried only if certainly nothing was started.

If ``Retry-After`` asks for more than a minute, a retry of the task is cheaper than holding the
worker.
"""

SUBMITTING_TOGETHER: Final = replace(SUBMITTING, attempts=1)
"""To start one of several jobs: their sender retries as SUBMITTING says, and slows down for all."""

IMPORTING: Final = RetryPolicy(attempts=12, longest_retry_after=60.0)
"""To start an import, which has an idempotency key and is looked up before it is sent again.

Another import into the same sheet may take minutes, and PromptLayer refuses this one meanwhile. As
with SUBMITTING, a retry of the task is cheaper than a wait of hours.
"""

FINDING_IMPORT: Final = RetryPolicy(first_pause=1.0, attempts=6)
"""To look up an import after a lost answer: PromptLayer may still be reading the request."""

READING_CONNECTION: Final = RetryPolicy(attempts=5)
"""To read an Airflow connection in the triggerer that a worker could use before.

A user may be about to correct it, or Airflow may fail for a moment.
"""

CANCELLING_IN_TRIGGERER: Final = RetryPolicy(give_up_after=300.0)
"""To cancel a deferred task's job: no worker waits meanwhile, and the job costs money."""

CANCELLING_SUPERSEDED: Final = RetryPolicy(give_up_after=15.0)
"""To cancel the job that an earlier try started for other arguments, before the new start."""

CANCELLING_LATE: Final = RetryPolicy(give_up_after=60.0)
"""To cancel a job that did not end in time, before the task fails."""

SIGNAL_HANDLER: Final = RetryPolicy(
    first_pause=0.3, factor=1.0, jitter=0.0, give_up_after=3.0, longest_retry_after=None
)
"""To cancel from a signal handler: Airflow 3 gives a task five seconds to stop."""

WRITING_TASK_STATE: Final = RetryPolicy(
    first_pause=2.0, factor=1.0, jitter=0.0, give_up_after=60.0, retries=whatever_it_is
)
"""To write a record that spares a person a check. Airflow's own client retries for some 10 s."""

ASKING_AIRFLOW: Final = RetryPolicy(
    first_pause=1.0, longest_pause=30.0, jitter=0.0, give_up_after=300.0, retries=whatever_it_is
)
"""To ask for the state of a task whose trigger was cancelled, before its job is cancelled too."""

EXPLAINING: Final = RetryPolicy(give_up_after=60.0)
"""One request for the reasons why a gate failed, which only the error message needs."""

EXPLAINING_SECONDS: Final = 120.0
"""How long all these requests may take together."""

LOOKING_FOR_CREATED: Final = RetryPolicy(jitter=0.0, attempts=4)
"""To look, three times, for what a request may have created whose answer was lost."""

FINDING_SECONDS: Final = 300.0
"""How long all pages of a list of titles may take, besides an outage of ``max_outage``."""

FETCHING_ONE_OF_MANY: Final = RetryPolicy(give_up_after=60.0)
"""To fetch the results of one run of a batch, after those of another could not be fetched."""

FETCHING_EARLIER: Final = RetryPolicy(give_up_after=60.0)
"""To fetch how the job of an earlier try ended: whether this try starts another depends on it."""

FETCHING_LATE: Final = RetryPolicy(first_pause=1.0, factor=1.0, jitter=0.0, give_up_after=30.0)
"""To fetch the results of runs that have ended, for a batch whose time is up."""

READING_SHEET: Final = RetryPolicy(first_pause=5.0, attempts=5, retries=was_changed)
"""To read a whole sheet, from its first page on, after one that was changed between two pages."""
