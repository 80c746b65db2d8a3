# SPDX-License-Identifier: Apache-2.0
"""One brake for all waits that use the same connection.

When one of them is told that there are too many requests, all slow down, instead of each finding
out alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

_SPREAD: Final = 0.25


class Throttle:
    """Until when nothing is to be asked. Handed the time, as everything in here.

    Shared by the waits of one process; a plain attribute, so that threads may share it too.
    """

    def __init__(self, *, jitter: Callable[[], float] = random.random) -> None:
        self._since = 0.0
        self._until = 0.0
        self._jitter = jitter

    def hold_for(self, seconds: float, *, now: float) -> None:
        """Keep everybody from asking for so many seconds."""
        held = self._until if now >= self._since else 0.0  # else the clock was set back
        self._since, self._until = now, max(held, now + seconds)

    def delay(self, *, now: float) -> float:
        """Return the seconds for which to hold a look; 0 if there is no need to.

        Each caller gets some more than the others, so that they do not all come back at once.
        """
        if now < self._since:
            return 0.0  # the clock was set back: held until then, nobody would ask for as long
        remaining = self._until - now
        return remaining * (1.0 + _SPREAD * self._jitter()) if remaining > 0 else 0.0


class CurrentThrottle(Throttle):
    """The brake of the connection that is in use at the time: a wait may go on with another key.

    :param find: returns it.
    """

    def __init__(self, find: Callable[[], Throttle]) -> None:
        self._find = find

    def hold_for(self, seconds: float, *, now: float) -> None:
        """Keep everybody from asking for so many seconds."""
        self._find().hold_for(seconds, now=now)

    def delay(self, *, now: float) -> float:
        """Return the seconds for which to hold a poll; 0 if there is no need to."""
        return self._find().delay(now=now)
