# SPDX-License-Identifier: Apache-2.0
"""Waiting in one thread for what another one does.

The rule here: the predicate runs without a lock, so it may use the server in any way, and no
change between looking and waiting is missed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Changes:
    """Announces that something changed, and lets other threads wait for it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._number = 0

    def announce(self) -> None:
        """Wake everyone who waits."""
        with self._condition:
            self._number += 1
            self._condition.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> None:
        """Return once ``predicate()`` holds; ask at once and again after every change.

        Raises:
            TimeoutError: it did not hold within ``timeout`` seconds.

        """
        deadline = time.monotonic() + timeout
        while True:
            seen = self._number
            if predicate():
                return
            # Looked at in every turn: a predicate that sends requests is itself a change.
            if (remaining := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"what was waited for did not happen within {timeout} s")
            with self._condition:
                if self._number == seen:
                    self._condition.wait(remaining)
