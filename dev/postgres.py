# SPDX-License-Identifier: Apache-2.0
"""A private PostgreSQL server for as long as a `with` block lasts.

    with PostgresServer() as server:
        url = server.new_database("airflow")

The programs are those of the machine's own package. `python -m dev.postgres` makes sure that they
are there: as root on a system with apt it installs them, anywhere else it says what to do.
Everything is in one temporary folder, and listens on the loopback alone, with a password.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from dev.debian import add_package
from dev.private_server import PrivateServer, ServerError, ensure_installed

STOP_SECONDS = 10.0

# initdb and postgres are not on the PATH in Debian's and Red Hat's packages.
_FOLDERS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
_SETTINGS = {
    "unix_socket_directories": "",
    "max_connections": "200",
    # A crash of the machine may lose everything: it is thrown away anyway. A kill of the server
    # must lose nothing, so synchronous_commit stays on.
    "fsync": "off",
    "full_page_writes": "off",
    # In the folder, where it goes away with the rest: /dev/shm would keep it after a SIGKILL.
    "dynamic_shared_memory_type": "mmap",
}


class PostgresServer(PrivateServer):
    """One server. As root it runs as another user, because PostgreSQL refuses root."""

    name = "PostgreSQL"
    start_seconds = 180.0

    def prepare(self) -> None:
        """Make an empty database cluster."""
        self._programs = find_programs()
        self._password = secrets.token_hex(16)
        self.user = _unprivileged_user()
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        if self.user:
            shutil.chown(self._folder, self.user)
            shutil.chown(password_file, self.user)
        self._data = self._folder / "data"
        self._initdb(password_file)
        password_file.unlink()
        # initdb allows 127.0.0.1 alone, and a machine of dev.network has another address.
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")

    def __exit__(self, *exception: object) -> None:
        # SIGINT is its "fast" shutdown; after SIGTERM it would wait for its clients.
        running = [one.name for one in self._components.running()]
        self._components.stop(running, grace=STOP_SECONDS, number=signal.SIGINT)
        super().__exit__(*exception)

    def new_database(self, name: str) -> str:
        """Create an empty database; return its URL, the password in it."""
        engine = create_engine(self._url("postgres"), poolclass=NullPool)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        return self._url(name)

    def _url(self, database: str) -> str:
        # By its name, since SQLAlchemy 2.0 and 2.1 have different defaults for the driver.
        place = f"{self._host}:{self._port}"
        return f"postgresql+psycopg://postgres:{self._password}@{place}/{database}"

    def kill(self) -> None:
        """SIGKILL the server and all its processes, as a crash does."""
        # Each has a session of its own, and would finish what it does.
        children = psutil.Process(self._components[self._component].pid).children(recursive=True)
        super().kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def command(self) -> list[str]:
        """Return the command, with all settings."""
        settings = {**_SETTINGS, "listen_addresses": self._host, "port": str(self._port)}
        words = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self._programs / "postgres"), "-D", str(self._data), *words]

    def answers(self) -> bool:
        """Return whether it takes a connection."""
        engine = create_engine(self._url("postgres"), poolclass=NullPool)
        with contextlib.suppress(OperationalError), engine.connect():
            return True
        return False

    def _initdb(self, password_file: Path) -> None:
        done = subprocess.run(
            [
                self._programs / "initdb",
                f"--pgdata={self._data}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            cwd=self._folder,
            user=self.user,
            group=_group_of(self.user),
            extra_groups=[] if self.user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self.start_seconds,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"initdb failed:\n{done.stdout.decode(errors='replace')}")


def find_programs() -> Path:
    """Return the folder that holds initdb and postgres, of the newest version there is."""
    folders = [path for pattern in _FOLDERS for path in Path("/").glob(pattern)]
    folders.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))])
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    for folder in reversed(folders):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ServerError(
        "PostgreSQL is not installed, which these tests need: "
        "install your system's package (Debian: apt-get install postgresql) and try again"
    )


def _add_packages() -> None:
    """Install the newest version, but without a cluster for the whole machine.

    That would listen on port 5432 for ever.
    """
    add_package("postgresql-common")
    config = Path("/etc/postgresql-common/createcluster.d/no-main-cluster.conf")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("create_main_cluster = false\n")
    try:
        add_package("postgresql")
    finally:
        config.unlink()


def _unprivileged_user() -> str | None:
    """Return the user to run as, None for the present one."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _group_of(user: str | None) -> int | None:
    return pwd.getpwnam(user).pw_gid if user else None


if __name__ == "__main__":
    sys.exit(ensure_installed("PostgreSQL", find_programs, _add_packages))
