# SPDX-License-Identifier: Apache-2.0
"""Install Debian's packages, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable


class InstallError(RuntimeError):
    """apt-get failed; the message has its output."""


def can_install() -> bool:
    """Return whether this is root on a system with apt."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(what: str, steps: Callable[[], None]) -> None:
    """Update the lists of packages, then take the steps; print a line about it."""
    print(f"installing {what} … ", end="", flush=True)
    start = time.monotonic()
    _apt_get("update", "-qq")
    steps()
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def add_package(name: str) -> None:
    """Install a package without those that it only recommends."""
    _apt_get("install", "-y", "-qq", "--no-install-recommends", name)


def _apt_get(*arguments: str) -> None:
    done = subprocess.run(
        ["apt-get", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise InstallError(f"apt-get {arguments[0]} failed\n{done.stdout.decode(errors='replace')}")
