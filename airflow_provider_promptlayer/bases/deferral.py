# SPDX-License-Identifier: Apache-2.0
"""How a deferral is timed, so that Airflow neither overtakes it nor ends it too early."""

from __future__ import annotations

import datetime

SETTLE_SECONDS = 10.0
"""Seconds after a deferral in which the trigger does not poll, and so cannot fire.

A task that comes back before the scheduler has read the executor's report on its first leg is
taken for one that was killed, and failed or retried (apache/airflow issues 66374, 67287, 72716; up
to 3.3.2 at least). A retry would start, and bill, a second run. Schedulers have been seen to take
five seconds on a busy machine.
"""

TIMEOUT_GRACE = datetime.timedelta(minutes=1)
"""How long after the deadline Airflow ends a wait whose triggerer does not."""

LONGEST_DEFERRAL = datetime.timedelta(days=3650)
"""Airflow adds the time-out of a deferral to the time, and neither may be beyond the year 9999."""


def airflow_timeout(seconds: float) -> datetime.timedelta:
    """Return the time-out of Airflow for a deferral that ends by itself after ``seconds``."""
    longest = LONGEST_DEFERRAL.total_seconds()
    return datetime.timedelta(seconds=min(seconds, longest)) + TIMEOUT_GRACE
