# SPDX-License-Identifier: Apache-2.0
"""Times as people read them, and dates as servers write them, with pendulum.

The code itself computes with floats: seconds, and seconds since the epoch.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pendulum


def in_words(seconds: float) -> str:
    """Return a duration for a message: ``"1 hour 30 minutes"``, ``"0.4 seconds"``."""
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.2g} seconds"
    try:
        duration = pendulum.duration(seconds=round(seconds))
    except OverflowError:  # infinite, or more days than a duration holds
        return f"{seconds:g} seconds"
    return duration.in_words(locale="en") if duration else "0 seconds"


def moment(timestamp: float) -> str:
    """Return a point in time for a message: ``"2026-01-31 23:59:00 UTC"``."""
    return f"{pendulum.from_timestamp(timestamp).to_datetime_string()} UTC"


def seconds_until(date: str, *, now: float) -> float | None:
    """Return the seconds until an HTTP date, negative for one in the past; None for other text.

    :param date: in one of the three forms of RFC 9110; without a zone it is UTC.
    :param now: the time in seconds since the epoch.
    """
    try:
        return pendulum.instance(parsedate_to_datetime(date)).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def timestamp(text: Any) -> float | None:
    """Return a time of PromptLayer's in seconds since the epoch; None for what is no time.

    :param text: in ISO 8601; without a zone it is UTC.
    """
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def seconds_between(began: Any, ended: Any) -> float | None:
    """Return the seconds from one time of PromptLayer's to a later one; None where one is none."""
    first, last = timestamp(began), timestamp(ended)
    return last - first if first is not None and last is not None and last >= first else None


def is_after(date: Any, other: Any) -> bool:
    """Return whether one time of PromptLayer's is later than another; False if one is none."""
    at, before = timestamp(date), timestamp(other)
    return at is not None and before is not None and at > before
