# SPDX-License-Identifier: Apache-2.0
"""A private Redis server for as long as a `with` block lasts.

    with RedisServer() as server:
        env = {"AIRFLOW__CELERY__BROKER_URL": server.url}

It keeps its data in memory alone, as brokers often do: what was queued is lost with the process.
`python -m dev.redis_server` makes sure that the program is there: as root on a system with apt it
installs it, anywhere else it says what to do.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import sys
from pathlib import Path

from dev.debian import add_package
from dev.private_server import PrivateServer, ServerError, ensure_installed


class RedisServer(PrivateServer):
    """One server, with a password; after `kill` it starts empty."""

    name = "Redis"

    def prepare(self) -> None:
        """Find the program, and make up a password."""
        self._program = find_program()
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """The URL of its database 0, the password in it."""
        return f"redis://:{self._password}@{self._host}:{self._port}/0"

    def command(self) -> list[str]:
        """Return the command, with all settings."""
        settings = {
            "bind": self._host,
            "port": str(self._port),
            "requirepass": self._password,
            "save": "",
            "appendonly": "no",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [self._program, *words]

    def answers(self) -> bool:
        """Return whether it takes the password."""
        try:
            with socket.create_connection((self._host, self._port), timeout=5) as connection:
                connection.sendall(f"AUTH {self._password}\r\n".encode())
                return connection.recv(100).startswith(b"+OK")
        except OSError:
            return False


def find_program() -> str:
    """Return the path of redis-server."""
    if found := shutil.which("redis-server"):
        return found
    raise ServerError(
        "Redis is not installed, which these tests need: "
        "install your system's package (Debian: apt-get install redis-server) and try again"
    )


def _add_package() -> None:
    """Install it, but start no server for the whole machine, which would run for ever."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():  # it is somebody else's, and decides
        add_package("redis-server")
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        add_package("redis-server")
    finally:
        policy.unlink()


if __name__ == "__main__":
    sys.exit(ensure_installed("Redis", find_program, _add_package))
