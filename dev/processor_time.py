# SPDX-License-Identifier: Apache-2.0
"""CPU seconds of whole sessions, ended children included, as the kernel counts them.

When a parent waits for a process that has ended, the kernel adds the time of that process to its
parent. So the living members' own time, and what was added to it, is all the session ever used.
Linux only: elsewhere psutil does not have the time that was added.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

import psutil


def seconds_used(sessions: Collection[int]) -> float:
    """Return the CPU seconds, user and system, that these sessions have used so far.

    :raises RuntimeError: if the system does not count that.
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
