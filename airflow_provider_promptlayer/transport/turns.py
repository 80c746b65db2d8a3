# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: how many requests one pool of connections has under way at a time."""

from __future__ import annotations

import asyncio
from typing import Final

FEW: Final = 20
"""Requests that may be under way from the beginning."""

MOST: Final = 100
"""Requests that may be under way when answers are slow; further ones queue."""

_PATIENCE: Final = 0.5
"""Seconds for which requests may go on queueing before more of them may be under way.

What comes at once when the loop was held up is seen to within that time.
"""


class Turns:
    """Hands out turns, first come, first served: ``async with`` one.

    Thousands of looks that come at once, after the loop was held up, say, need no hundred
    connections: where answers come fast a few of them see to all, and each costs memory (asyncio
    gives a TLS connection 256 kB to read into) and a handshake. So there are more turns only when
    requests have queued for a while without a break, as they do where answers are slow.
    """

    def __init__(self, few: int = FEW, most: int = MOST) -> None:
        self._total = min(few, most)
        self._most = most
        self._free = asyncio.Semaphore(self._total)
        self._queueing = 0
        self._patience: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        if not self._free.locked():
            await self._free.acquire()  # at once
            return
        self._queueing += 1
        self._be_patient()
        try:
            await self._free.acquire()
        finally:
            self._queueing -= 1
            if self._patience is not None and not self._queueing:
                self._patience.cancel()
                self._patience = None

    async def __aexit__(self, *_: object) -> None:
        self._free.release()

    def _be_patient(self) -> None:
        if self._patience is None and self._total < self._most:
            self._patience = asyncio.get_running_loop().call_later(_PATIENCE, self._widen)

    def _widen(self) -> None:
        more = min(self._total, self._most - self._total)
        self._total += more
        for _ in range(more):
            self._free.release()
        self._patience = None
        if self._queueing > more:
            self._be_patient()
