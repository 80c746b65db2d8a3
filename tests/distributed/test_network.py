# SPDX-License-Identifier: Apache-2.0
"""The cables of dev.network: what a cut one lets through, and what it leaves alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dev.network import Network
from dev.processes import Components

SERVERS = {"one": "127.0.1.1", "other": "127.0.1.2"}
MACHINES = ("machine-1", "machine-2")


def test_a_cut_cable_parts_one_machine_from_one_server(tmp_path: Path) -> None:
    with closing(Components({"PATH": os.environ["PATH"]}, tmp_path, tmp_path)) as components:
        before = Path("/proc/thread-self/ns/net").readlink()
        with Network(components, SERVERS, MACHINES) as network:
            if network.why_not:
                pytest.skip(network.why_not)
            with (
                socket.create_server((SERVERS["one"], 0)) as one,
                socket.create_server((SERVERS["other"], 0)) as other,
            ):
                addresses = one.getsockname(), other.getsockname()

                def reached() -> dict[tuple[str, str], bool]:
                    return {
                        (machine, name): connects(network, machine, address)
                        for machine in MACHINES
                        for name, address in zip(SERVERS, addresses, strict=True)
                    }

                everything = reached()
                with network.cut("machine-1", "one"):
                    meanwhile = reached()
                afterwards = reached()
        assert Path("/proc/thread-self/ns/net").readlink() == before
    assert set(everything.values()) == {True}
    assert {who for who, can in meanwhile.items() if not can} == {("machine-1", "one")}
    assert afterwards == everything


def connects(network: Network, machine: str, address: tuple[str, int]) -> bool:
    """Return whether a program on the machine can connect to the address."""
    code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)"
    host, port = address
    command = [*network.on(machine), sys.executable, "-c", code, host, str(port)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0 or "OSError" in done.stderr or "TimeoutError" in done.stderr
    return done.returncode == 0
