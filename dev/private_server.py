# SPDX-License-Identifier: Apache-2.0
"""What the private servers share: a folder, a port, a few attempts to start, and an end."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from dev.debian import InstallError, can_install, install
from dev.processes import Components, free_port

START_ATTEMPTS = 3


class ServerError(RuntimeError):
    """A server is not installed or did not start; the first line says what to do."""


class PrivateServer(ABC):
    """One server for as long as a `with` block lasts; its data are thrown away.

    :param host: the loopback address that it listens on.
    """

    name: ClassVar[str]
    """What messages call it; in lower case, its component."""

    start_seconds: ClassVar[float] = 60.0

    user: str | None = None
    """Whom it runs as; None for the present user."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self._component = self.name.lower()

    def __enter__(self) -> Self:
        # Not below pytest's folder, which only its owner may enter.
        self._folder = Path(tempfile.mkdtemp(prefix=f"private-{self._component}-"))
        environment = {"PATH": os.defpath, "LC_ALL": "C"}
        self._components = Components(environment, self._folder, self._folder)
        try:
            self.prepare()
            for attempt in range(1, START_ATTEMPTS + 1):
                # Another process may take the port in the moment before it is used.
                self._port = free_port(self._host)
                try:
                    self.start()
                    break
                except ServerError:
                    if attempt == START_ATTEMPTS:
                        raise
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._components.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL it, as a crash does."""
        self._components.kill(self._component)

    def start(self) -> None:
        """Start it after `kill`, on the same port; return once it answers.

        :raises ServerError: it did not start.
        """
        server = self._components.start(self._component, self.command(), user=self.user)
        deadline = time.monotonic() + self.start_seconds
        while server.popen.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return
            time.sleep(0.05)
        self._components.kill(self._component)
        raise ServerError(f"{self.name} did not start\n{server.tail()}")

    def prepare(self) -> None:  # noqa: B027  # not every server needs it
        """Make what `command` needs, in the folder."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that starts it on its port."""

    @abstractmethod
    def answers(self) -> bool:
        """Return whether it answers by now."""


def ensure_installed(name: str, find: Callable[[], object], add: Callable[[], None]) -> int:
    """Add the packages where that is necessary and possible; return the exit code.

    :param find: raises ServerError, which says what to do, if the programs are not there.
    """
    try:
        try:
            find()
        except ServerError:
            if not can_install():
                raise
            install(name, add)
            find()
    except (InstallError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
