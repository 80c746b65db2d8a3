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
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from dev.debian import InstallError, add_package, can_install
from dev.debian import install as install_with_apt
from dev.processes import Components, free_port

START_SECONDS = 180.0
STOP_SECONDS = 10.0
START_ATTEMPTS = 3

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


class PostgresError(RuntimeError):
    """PostgreSQL is not installed or did not start; the first line says what to do."""


class PostgresServer:
    """One server. As root it runs as another user, because PostgreSQL refuses root.

    :param host: the loopback address that it listens on.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host

    def __enter__(self) -> PostgresServer:
        self._programs = find_programs()
        self._password = secrets.token_hex(16)
        self._user = _unprivileged_user()
        # Not below pytest's folder, which only its owner may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="private-postgres-"))
        self._components = Components({"PATH": os.defpath, "LC_ALL": "C"}, self.folder, self.folder)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        # SIGINT is its "fast" shutdown; after SIGTERM it would wait for its clients.
        running = [one.name for one in self._components.running()]
        self._components.stop(running, grace=STOP_SECONDS, number=signal.SIGINT)
        self._components.close()
        shutil.rmtree(self.folder, ignore_errors=True)

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

    def _start(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self._password)
        if self._user:
            shutil.chown(self.folder, self._user)
            shutil.chown(password_file, self._user)
        data = self.folder / "data"
        self._initdb(data, password_file)
        password_file.unlink()
        # initdb allows 127.0.0.1 alone, and a machine of dev.network has another address.
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        for attempt in range(1, START_ATTEMPTS + 1):
            # Another process may take the port in the moment before it is used.
            self._port = free_port(self._host)
            try:
                self.start()
                return
            except PostgresError:
                if attempt == START_ATTEMPTS:
                    raise

    def kill(self) -> None:
        """SIGKILL the server and all its processes, as a crash does."""
        # Each has a session of its own, and would finish what it does.
        children = psutil.Process(self._components["postgres"].pid).children(recursive=True)
        self._components.kill("postgres")
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def start(self) -> None:
        """Start it after `kill`, on the same port with the same data; return once it answers.

        :raises PostgresError: it did not start.
        """
        settings = {**_SETTINGS, "listen_addresses": self._host, "port": str(self._port)}
        postgres = self._components.start(
            "postgres",
            [
                str(self._programs / "postgres"),
                "-D",
                str(self.folder / "data"),
                *(f"--{name}={value}" for name, value in settings.items()),
            ],
            user=self._user,
        )
        if not self._answers(lambda: postgres.popen.poll() is None):
            self._components.kill("postgres")
            raise PostgresError(f"PostgreSQL did not start\n{postgres.tail()}")

    def _initdb(self, data: Path, password_file: Path) -> None:
        done = subprocess.run(
            [
                self._programs / "initdb",
                f"--pgdata={data}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ],
            cwd=self.folder,
            user=self._user,
            group=_group_of(self._user),
            extra_groups=[] if self._user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise PostgresError(f"initdb failed:\n{done.stdout.decode(errors='replace')}")

    def _answers(self, is_alive: Callable[[], bool]) -> bool:
        engine = create_engine(self._url("postgres"), poolclass=NullPool)
        deadline = time.monotonic() + START_SECONDS
        while is_alive() and time.monotonic() < deadline:
            with contextlib.suppress(OperationalError), engine.connect():
                return True
            time.sleep(0.1)
        return False


def find_programs() -> Path:
    """Return the folder that holds initdb and postgres, of the newest version there is."""
    folders = [path for pattern in _FOLDERS for path in Path("/").glob(pattern)]
    folders.sort(key=lambda path: [int(number) for number in re.findall(r"\d+", str(path))])
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    for folder in reversed(folders):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise PostgresError(
        "PostgreSQL is not installed, which these tests need: "
        "install your system's package (Debian: apt-get install postgresql) and try again"
    )


def install() -> None:
    """Install Debian's package where this is possible and necessary."""
    with contextlib.suppress(PostgresError):
        find_programs()
        return
    if not can_install():
        find_programs()
    install_with_apt("PostgreSQL", _add_packages)
    find_programs()


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


def main() -> int:
    """Return the exit code; one line says what is missing."""
    try:
        install()
    except (InstallError, PostgresError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
