# SPDX-License-Identifier: Apache-2.0
"""Start long-running programs, each in a session of its own, and end exactly those sessions."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.watchdog import members, signal_session

# Schedulers and triggerers of Airflow 3 take one to ten seconds for a clean end, which is not worth
# waiting for when the whole installation is thrown away.
CLOSE_SECONDS = 4.0


@dataclass(frozen=True)
class Component:
    """One program, its log, and everything it starts: they share its session."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    log_began_at: int = 0
    """Bytes that the log had from an earlier start."""

    @property
    def pid(self) -> int:
        """Also the id of its session and of its process group."""
        return self.popen.pid

    def output(self) -> str:
        """Return what it has written since its start."""
        return self.log.read_bytes()[self.log_began_at :].decode(errors="replace")

    def tail(self, lines: int = 25) -> str:
        """Return the end of the log, under a line that says where it is."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([f"--- last lines of {self.log}", *text])


class Components:
    """The running programs, and a watchdog that ends them if this process dies."""

    def __init__(self, env: Mapping[str, str], cwd: Path, logs: Path) -> None:
        self._env = dict(env)
        self._cwd = cwd
        self._logs = logs
        self._running: dict[str, Component] = {}
        watchdog = Path(__file__).with_name("watchdog.py")
        self._watchdog = subprocess.Popen(
            [sys.executable, str(watchdog)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __getitem__(self, name: str) -> Component:
        return self._running[name]

    def running(self) -> list[Component]:
        """Return those that were started and not ended through this class."""
        return list(self._running.values())

    def start(self, name: str, argv: Sequence[str], *, user: str | None = None) -> Component:
        """Start a program in a session of its own, as another user if root asks for that."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            began_at = output.tell()
            popen = subprocess.Popen(
                argv,
                env=self._env,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else [],
            )
        component = self._running[name] = Component(name, popen, log, began_at)
        self._tell_watchdog(f"+{component.pid}")
        return component

    def dead(self) -> list[Component]:
        """Return those that ended without being ended through this class."""
        return [one for one in self.running() if one.popen.poll() is not None]

    def kill(self, name: str) -> None:
        """SIGKILL without warning, as a machine that loses power would."""
        component = self._running.pop(name)
        signal_session(component.pid, signal.SIGKILL)
        component.popen.wait()
        self._tell_watchdog(f"-{component.pid}")

    def stop(
        self, names: Sequence[str], grace: float, *, number: signal.Signals = signal.SIGTERM
    ) -> None:
        """SIGTERM to all of them at once, and SIGKILL to what is left after `grace` seconds.

        Only the leader of each session gets the signal: it ends its children in its own order, and
        an Airflow 3 triggerer whose children were signalled too waits ten seconds for them.
        """
        stopping = [self._running.pop(name) for name in names]
        for component in stopping:
            with contextlib.suppress(ProcessLookupError):
                os.kill(component.pid, number)
        deadline = time.monotonic() + grace
        for component in stopping:
            with contextlib.suppress(subprocess.TimeoutExpired):
                component.popen.wait(max(0.0, deadline - time.monotonic()))
            # The leader is gone or stuck; the rest of its session has had time to end.
            while members(component.pid):
                signal_session(component.pid, signal.SIGKILL)
                time.sleep(0.05)
            component.popen.wait()
            self._tell_watchdog(f"-{component.pid}")

    def close(self) -> None:
        """End everything, the watchdog last."""
        self.stop(list(self._running), CLOSE_SECONDS)
        if self._watchdog.stdin:
            self._watchdog.stdin.close()
        self._watchdog.wait()

    def _tell_watchdog(self, line: str) -> None:
        if self._watchdog.stdin:
            self._watchdog.stdin.write(f"{line}\n".encode())
            self._watchdog.stdin.flush()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of this loopback address that no process has at this moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return int(listener.getsockname()[1])
