# SPDX-License-Identifier: Apache-2.0
"""CPU seconds of whole sessions, their ended children included, by the kernel's own books.

The kernel adds the time of a process that has ended to its parent when that takes note of the end.
So what the living members have used themselves, and what has been added to them, is all that the
session ever used. Linux only: elsewhere psutil knows nothing of what was added.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

import psutil


def seconds_used(sessions: Collection[int]) -> float:
    """Return the CPU seconds, user and system, that these sessions have used so far.

    :raises RuntimeError: if the system does not keep such books.
    """
    if not psutil.LINUX:
        raise RuntimeError("only Linux tells how much CPU time the ended children have used")
    while True:
        processes = _processes(sessions)
        total = 0.0
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in processes:
                used = process.cpu_times()
                total += used.user + used.system + used.children_user + used.children_system
            # An end in between moves time from one to another: it might be missed, or seen twice.
            if _processes(sessions) == processes:
                return total


def _processes(sessions: Collection[int]) -> list[psutil.Process]:
    """Return the members; those that have ended and still wait for their parent's notice too."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) in sessions:
                found.append(process)
    return found
