# SPDX-License-Identifier: Apache-2.0
"""How a deferral is timed, so that Airflow neither loses the task nor ends the wait too early."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.times import in_words

SETTLE_SECONDS = 10.0
"""How long the trigger does not poll after a deferral, so that it cannot fire.

If a task comes back before the scheduler has read the executor's report on its first worker, the
scheduler assumes that the task was killed, and fails or retries it. A retry would start, and bill,
a second run. Schedulers have been seen to take five seconds on a busy machine; there, in Airflow
3.3.2, triggers that fired at once lost 48 of 120 tasks.

What saves a task differs. Airflow 3.2.2 to 3.3.2 let a scheduled one pass (apache/airflow PR
66431), 3.4.0b2 a queued one too (PR 68741); one that runs, none does (issue 72716). Airflow 2 fails
a queued one alone: an executor that has not seen the first worker end holds the task back for ten
seconds, and then drops it, still queued (``BaseExecutor.trigger_tasks``). When the scheduler reads
the report on a task that is still deferred it changes nothing in the database, so no task or
trigger can tell.
"""

DEFER_AFTER = SETTLE_SECONDS
"""How long a task polls in its worker before it defers, where neither it nor the site says so.

As long as a deferral makes every wait. So a wait that has just been deferred when its job ends
takes at most twice as long as the job, and none holds a worker for longer than that.
"""

CANCELLATION_SECONDS = 60.0
"""How long a try waits until the triggerer has cancelled the job of the try before.

After a clear, the next try may start within a second, before the triggerer has sent the
cancellation; a triggerer that had not asked Airflow anything before took up to 33 s.
"""

CANCELLATION_PAUSE = 2.0
"""Seconds between two polls of that job."""

TIMEOUT_GRACE = datetime.timedelta(minutes=1)
"""How long after the deadline Airflow ends a wait that the triggerer has not ended."""

ENDED_BY_AIRFLOW = "__fail__"
"""The method that Airflow resumes when a trigger crashed or took too long."""

LONGEST_DEFERRAL = datetime.timedelta(days=3650)
"""Airflow adds a deferral's time-out to the current time, and the sum must be before year 10000."""


def settle_seconds() -> float:
    """Return how long the trigger must not poll after a deferral of the running task."""
    return 0.0 if version_compat.runs_without_scheduler() else SETTLE_SECONDS


def defer_at(
    defer_after: float, execution_timeout: datetime.timedelta | None, began_at: float
) -> float:
    """Return until when a task polls in its worker before it defers, in seconds since the epoch.

    :param defer_after: for how long it polls there.
    :param execution_timeout: of the task: it fails one that has not deferred by then.
    :param began_at: when the task began, which may have taken long to start its job.
    """
    until = time.time() + defer_after
    if execution_timeout is None:
        return until
    return min(until, began_at + execution_timeout.total_seconds() / 4)


def airflow_timeout(seconds: float) -> datetime.timedelta:
    """Return Airflow's time-out for a deferral that the triggerer ends after so many seconds."""
    longest = LONGEST_DEFERRAL.total_seconds()
    return datetime.timedelta(seconds=min(seconds, longest)) + TIMEOUT_GRACE


def ended_by_airflow(
    next_kwargs: Mapping[str, Any] | None, timeout: float, left: str, log: Any
) -> PromptLayerError:
    """Return the error for a deferral that Airflow has ended, and no triggerer.

    :param next_kwargs: what Airflow says, which tells a time-out from a crash by its text alone.
    :param timeout: of the wait, in seconds.
    :param left: a sentence on the job.
    :param log: gets the traceback of a crash.
    """
    said = next_kwargs or {}
    reason = str(said.get("error", "unknown"))
    for line in said.get("traceback") or []:
        log.error("%s", line.rstrip())
    if "timeout" in reason.lower():
        return PromptLayerWaitTimeoutError(
            f"The wait did not end within {in_words(timeout)}, and no triggerer ended it. {left}"
        )
    return PromptLayerEventError(f"The wait in the triggerer broke off ({reason}). {left}")
