# SPDX-License-Identifier: Apache-2.0
"""Make `.venv/airflow-VERSION` from its pins, and this package installed for editing.

Needs nothing but Python's own library and pip. The stamp is written last and holds a digest of
what the environment was made from: an interrupted or outdated environment is made anew, and
an up-to-date one costs milliseconds, however often and from however many shells this runs.
Run as a script: `python dev/make_venv.py VERSION [--tools] [--docs] [--bench] [--etl] [--celery]`.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "dev" / "requirements"


def main() -> int:
    """Return the exit code; print a line for each step that is needed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("airflow_version")
    parser.add_argument("--tools", action="store_true", help="also the linters and type checkers")
    parser.add_argument("--docs", action="store_true", help="also Sphinx and its theme")
    parser.add_argument("--bench", action="store_true", help="also what benchmarks compare with")
    parser.add_argument("--etl", action="store_true", help="also what evaluation_etl.py needs")
    parser.add_argument("--celery", action="store_true", help="also Celery and its provider")
    options = parser.parse_args()

    pins = REQUIREMENTS / f"airflow-{options.airflow_version}.txt"
    if not pins.is_file():
        known = ", ".join(sorted(path.stem for path in REQUIREMENTS.glob("airflow-*.txt")))
        print(f"error: there are no such pins; there are {known}", file=sys.stderr)
        return 1
    complaint = unsupported_python(pins.read_text())
    if complaint:
        print(f"error: {complaint}", file=sys.stderr)
        return 1

    home = ROOT / ".venv" / f"airflow-{options.airflow_version}"
    home.parent.mkdir(exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        _wait_for(lock.fileno(), home)
        pip = Pip(home, lock.fileno())
        try:
            _environment(pip, pins)
            _package(pip)
            if options.tools:
                _extra(pip, "tools", "ruff, mypy, pyright, import-linter and coverage")
            if options.docs:
                _extra(pip, "docs", "Sphinx and its theme")
            if options.bench:
                _extra(pip, "bench", "what is compared with")
                library = Pip(home.with_name("promptlayer"), lock.fileno())
                _environment(library, REQUIREMENTS / "promptlayer.txt")
            if options.etl:
                _extra(pip, "etl", "the providers of S3 and PostgreSQL, and an S3 server")
            if options.celery:
                _extra(pip, "celery", "Celery and its provider")
        except subprocess.CalledProcessError as error:
            output = error.output or b""
            print(output.decode() if isinstance(output, bytes) else output, file=sys.stderr)
            print(f"error: {home} could not be made; the reason is above", file=sys.stderr)
            return 1
    return 0


def unsupported_python(pins: str) -> str:
    """Return a sentence when this Python is none of those that the head of the pins names."""
    found = re.search(r"^# Python: 3\.(\d+) to 3\.(\d+)$", pins, re.MULTILINE)
    if not found:
        raise ValueError("the pins do not say which Python they are for")
    oldest, newest = (int(minor) for minor in found.groups())
    if sys.version_info[0] == 3 and oldest <= sys.version_info[1] <= newest:
        return ""
    have = ".".join(str(part) for part in sys.version_info[:3])
    return (
        f"this Airflow needs Python 3.{oldest} to 3.{newest}, and {sys.executable} is {have};"
        f" choose another with PYTHON=python3.{newest}"
    )


def _wait_for(lock: int, home: Path) -> None:
    """Let one make at a time work on an environment; the next then finds everything done."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"waiting for another make that works on {home.relative_to(ROOT)}", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


class Pip:
    """The pip of an environment. Quiet, unless it fails: then the error holds its output."""

    def __init__(self, home: Path, lock: int) -> None:
        self.home = home
        self._lock = lock

    def __call__(self, *arguments: str) -> None:
        """Run `pip ARGUMENTS`."""
        subprocess.run(
            [self.home / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # pip may outlive us when we are killed, and must then keep the lock until it ends.
            pass_fds=[self._lock],
        )


def _environment(pip: Pip, pins: Path) -> None:
    """Make an environment from the pins of all that is in it."""
    home = pip.home
    # An environment holds the paths of itself and of its Python: it cannot be moved.
    stamp, digest = (
        home / "stamp-airflow",
        f"{_digest(pins)} {home} {sys.base_prefix} {sys.version}",
    )
    if _is_current(stamp, digest):
        return
    with _Step(f"making {home.relative_to(ROOT)} (about a minute, once)"):
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        # The pins are a full closure, so there is nothing for pip to resolve.
        pip("install", "--no-deps", "-r", str(pins))
        pip("check")
    stamp.write_text(digest)


def _package(pip: Pip) -> None:
    home = pip.home
    stamp, digest = home / "stamp-package", _digest(ROOT / "pyproject.toml")
    if _is_current(stamp, digest):
        return
    with _Step(f"installing this package into {home.relative_to(ROOT)}"):
        pip("install", "--no-deps", "-e", str(ROOT))
    stamp.write_text(digest)


def _extra(pip: Pip, name: str, what: str) -> None:
    """Install the pins of that name, on top of Airflow's."""
    home = pip.home
    pins = REQUIREMENTS / f"{name}.txt"
    stamp, digest = home / f"stamp-{name}", _digest(pins)
    if _is_current(stamp, digest):
        return
    with _Step(f"installing {what} into {home.relative_to(ROOT)}"):
        pip("install", "--no-deps", "-r", str(pins))
    stamp.write_text(digest)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_current(stamp: Path, digest: str) -> bool:
    return stamp.is_file() and stamp.read_text() == digest


class _Step:
    """One line of output: what is being done and, in the end, how long it took."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        print(f"{self._what} … ", end="", flush=True)
        self._start = time.monotonic()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        print("failed" if error else f"{time.monotonic() - self._start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
