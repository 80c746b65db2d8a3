# SPDX-License-Identifier: Apache-2.0
"""How long to pause between two polls."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


class Throttle:
    """Holds requests back for a while. The waits and the threads of one process share it."""

    __slots__ = ("_jitter", "_since", "_until")

    def __init__(self, *, jitter: Callable[[], float] = random.random) -> None:
        self._since = 0.0
        self._until = 0.0
        self._jitter = jitter

    def hold_for(self, seconds: float, *, now: float) -> None:
        """Keep every wait from polling for so many seconds."""
        held = 0.0 if self._was_set_back(now) else self._until
        self._since, self._until = now, max(held, now + seconds)

    def delay(self, *, now: float) -> float:
        """Return the seconds for which to put a poll off; 0 if there is no need to.

        Each caller gets up to twice what remains, by chance. Polls that came back together after a
        pause would be refused together again: ``benchmarks/fleet.py`` measures it.
        """
        remaining = self.remaining(now=now)
        return remaining * (1.0 + self._jitter()) if remaining else 0.0

    def remaining(self, *, now: float) -> float:
        """Return the seconds until requests are not held back any more."""
        return 0.0 if self._was_set_back(now) else max(0.0, self._until - now)

    def _was_set_back(self, now: float) -> bool:
        """Return whether the clock was set back: else it would hold every wait for as long."""
        return now < self._since - _SAME_MOMENT


_SAME_MOMENT: Final = 1.0
"""Seconds by which the times of two threads may be out of order."""

SHORTEST_INTERVAL: Final = 2.0
"""Seconds between two polls at the beginning, where no ``poke_interval`` is set."""

LONGEST_INTERVAL: Final = 60.0
"""The most seconds between two polls where neither ``poke_interval`` nor ``max_wait`` is set."""

SHARE_OF_ELAPSED: Final = 1 / 20
"""An interval's share of the time already waited, and so how late an end is noticed at most."""

AIRFLOWS_POKE_INTERVAL: Final = 60.0
"""The ``poke_interval`` of Airflow's sensors where none is set."""

_JITTER: Final = 0.2
_LONGEST_BACKOFF: Final = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The time between two polls.

    Without a ``poke_interval`` the interval is a twentieth of the time already waited, from 2 s to
    60 s, less up to a fifth of it so that waits which began together spread out.

    :param poke_interval: seconds between two polls, kept to exactly; None for an interval that
        grows with the wait, or for Airflow's own 60 s with ``exponential_backoff``.
    :param exponential_backoff: let the interval double from poll to poll, with jitter, as Airflow's
        sensors do.
    :param max_wait: longest interval in seconds; None or 0 for none. Ignored, as in Airflow, for a
        ``poke_interval`` without ``exponential_backoff``.
    """

    poke_interval: float | None = None
    exponential_backoff: bool = False
    max_wait: float | None = None

    @property
    def is_adaptive(self) -> bool:
        """Whether the interval is chosen here, and not by the user."""
        return self.poke_interval is None and not self.exponential_backoff

    @property
    def is_fixed(self) -> bool:
        """Whether every interval is the same."""
        return self.poke_interval is not None and not self.exponential_backoff

    def interval(self, elapsed: float, *, seed: str) -> float:
        """Return the seconds until the next poll.

        Computed from the time waited so far and not from a count of polls, so that a wait taken
        over by another process keeps its intervals.

        :param elapsed: seconds since the wait began.
        :param seed: tells waits apart; without a meaning where :attr:`is_fixed`.
        """
        if self.exponential_backoff:
            interval = self._backoff_after(elapsed, seed)
            return min(self.max_wait, interval) if self.max_wait else interval
        if self.poke_interval is not None:
            return self.poke_interval
        longest = self.max_wait or LONGEST_INTERVAL
        shortest = min(SHORTEST_INTERVAL, longest)
        interval = min(max(elapsed * SHARE_OF_ELAPSED, shortest), longest)
        return interval * (1 - _JITTER * fraction(f"{seed}#{elapsed:.1f}"))

    def _backoff_after(self, elapsed: float, seed: str) -> float:
        # The formula and its jitter are those of BaseSensorOperator.
        if self.poke_interval is not None and self.poke_interval <= 0:
            return 1.0  # 0 stays 0 when doubled, and Airflow's shortest interval is a second
        status, passed = 1, 0.0
        while (passed := passed + self._backoff(status, seed)) <= elapsed and (
            passed < _LONGEST_BACKOFF
        ):
            status += 1
        return self._backoff(status, seed)

    def _backoff(self, status: int, seed: str) -> float:
        first = AIRFLOWS_POKE_INTERVAL if self.poke_interval is None else self.poke_interval
        shortest = max(int(first * 2.0 ** (status - 2)), 1)
        return float(shortest + int(_digest(f"{seed}#{status}"), 16) % shortest)


def fraction(seed: str) -> float:
    """Return a number from 0 to 1 that is always the same for a text, and spread over texts."""
    return int(_digest(seed)[:13], 16) / float(0x10000000000000)


def _digest(seed: str) -> str:
    return hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
