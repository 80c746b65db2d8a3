# SPDX-License-Identifier: Apache-2.0
"""End the sessions named on standard input when its writer is gone, for whatever reason.

A SIGKILL cannot be caught, so the process that started Airflow cannot promise to stop it. When that
process is dead, the standard input of this one ends, on Linux and macOS alike.
Lines are `+SESSION` and `-SESSION`. Run as a script; `dev.processes` starts it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import psutil

GRACE_SECONDS = 10.0


def members(session: int) -> list[psutil.Process]:
    """Return what still runs of a session; Airflow's children change group, but not session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def signal_session(session: int, number: signal.Signals) -> None:
    """Send a signal to every process of a session."""
    for process in members(session):
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def main() -> None:
    """Keep the list until standard input ends, then end the sessions on it."""
    # A Ctrl-C or a SIGTERM meant for the writer must not end its last safeguard.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sessions: set[int] = set()
    for line in sys.stdin:
        change = sessions.add if line[0] == "+" else sessions.discard
        change(int(line[1:]))
    for session in sessions:
        signal_session(session, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(members, sessions)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for session in sessions:
        signal_session(session, signal.SIGKILL)


if __name__ == "__main__":
    main()
