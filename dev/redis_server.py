# SPDX-License-Identifier: Apache-2.0
"""A private Redis server for as long as a `with` block lasts.

    with RedisServer() as server:
        env = {"AIRFLOW__CELERY__BROKER_URL": server.url}

It keeps its data in memory alone, as brokers often do: what was queued is lost with the process.
`python -m dev.redis_server` makes sure that the program is there: as root on a system with apt it
installs it, anywhere else it says what to do.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

from dev.debian import InstallError, add_package, can_install
from dev.debian import install as install_with_apt
from dev.processes import Components, free_port

START_SECONDS = 60.0
START_ATTEMPTS = 3


class RedisError(RuntimeError):
    """Redis is not installed or did not start; the first line says what to do."""


class RedisServer:
    """One server, on a loopback address, with a password."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host

    def __enter__(self) -> RedisServer:
        self._program = find_program()
        self._password = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="private-redis-"))
        self._components = Components({"PATH": os.defpath}, self._folder, self._folder)
        try:
            for attempt in range(1, START_ATTEMPTS + 1):
                # Another process may take the port in the moment before it is used.
                self._port = free_port(self._host)
                try:
                    self.start()
                    break
                except RedisError:
                    if attempt == START_ATTEMPTS:
                        raise
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._components.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """The URL of its database 0, the password in it."""
        return f"redis://:{self._password}@{self._host}:{self._port}/0"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._components["redis"].pid

    def kill(self) -> None:
        """SIGKILL it: what it holds is lost."""
        self._components.kill("redis")

    def start(self) -> None:
        """Start it after `kill`, empty, on the same port; return once it answers.

        :raises RedisError: it did not start.
        """
        settings = {
            "bind": self._host,
            "port": str(self._port),
            "requirepass": self._password,
            "save": "",
            "appendonly": "no",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        redis = self._components.start("redis", [self._program, *words])
        deadline = time.monotonic() + START_SECONDS
        while redis.popen.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(0.05)
        self._components.kill("redis")
        raise RedisError(f"Redis did not start\n{redis.tail()}")

    def _answers(self) -> bool:
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
    raise RedisError(
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


def main() -> int:
    """Install Debian's package where that is possible and necessary; return the exit code."""
    try:
        if not shutil.which("redis-server") and can_install():
            install_with_apt("Redis", _add_package)
        find_program()
    except (InstallError, RedisError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
