# SPDX-License-Identifier: Apache-2.0
"""A network for the length of a `with` block: servers, machines, and a cable between any two.

    with Network(components, servers={"redis": "127.0.1.3"}, machines=["machine-1"]) as network:
        components.start("worker", [*network.on("machine-1"), "celery", "worker"])
        with network.cut("machine-1", "redis"):
            ...

The calling thread, the threads that it starts and their programs move to a network namespace of
their own, where the servers are to listen. Each machine is another one, with a name of its own and
a cable (a veth pair) to each server. So nothing here can be reached from outside, two of these do
not get in each other's way, and the kernel removes each network with the last process in it.

The servers' addresses are of the loopback, which a machine reaches over its cables
(`route_localnet`): programs that listen on the loopback alone, such as the local PromptLayer, need
no change, and the addresses are the same where no namespaces can be made. That takes root, on
Linux; elsewhere `why_not` says so, all programs share the loopback, and no cable can be cut.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.processes import Components

_CLONE_NEWNET = 0x40000000
_HOLD_SECONDS = "86400"
_START_SECONDS = 60.0


class Network:
    """The machines and cables.

    :param components: which start the programs; each machine is one of them, by its name.
    :param servers: name → address in 127.0.1.0/24.
    """

    def __init__(
        self, components: Components, servers: Mapping[str, str], machines: Sequence[str]
    ) -> None:
        self._components = components
        self._servers = dict(servers)
        self._machines = list(machines)
        self.why_not = ""
        """Why there are no namespaces; "" if there are."""

    def __enter__(self) -> Network:
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY) if _is_linux() else -1
        self.why_not = _enter_new_namespace()
        if not self.why_not:
            try:
                _shell([], "ip link set lo up; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
                for number, machine in enumerate(self._machines, 1):
                    self._add_machine(number, machine)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self.why_not:
            _libc("setns", self._outside, _CLONE_NEWNET)
        if self._outside >= 0:
            os.close(self._outside)

    def on(self, machine: str) -> list[str]:
        """Return the words to put before a command that is to run on the machine."""
        if self.why_not:
            return []
        return ["nsenter", f"--target={self._components[machine].pid}", "--net", "--uts", "--"]

    @contextmanager
    def cut(self, machine: str, *servers: str) -> Iterator[None]:
        """Let no packet pass between the machine and the servers, for a `with` block.

        Open connections stay open, and neither side is told; new ones get no answer, or "no route".
        Without servers, all of them.
        """
        if self.why_not:
            raise RuntimeError(f"no cable can be cut: {self.why_not}")
        number = self._machines.index(machine) + 1
        cables = [self._cable(number, server) for server in servers or self._servers]
        for cable in cables:
            _shell([], f"ip link set {cable} down")
        try:
            yield
        finally:
            for cable in cables:
                _shell([], f"ip link set {cable} up; {self._way_back(number, cable)}")

    def _add_machine(self, number: int, machine: str) -> None:
        # What holds the namespace, whatever else ends on the machine.
        holder = self._components.start(
            machine, ["unshare", "--net", "--uts", "sleep", _HOLD_SECONDS]
        )
        _wait_for_namespace(holder.pid)
        inside = [
            f"echo {machine} > /proc/sys/kernel/hostname",
            "ip link set lo up",
            "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet",
            # Its own loopback is 127.0.0.1 alone, so that the servers' addresses lead elsewhere.
            "ip route del table local local 127.0.0.0/8 dev lo",
        ]
        for server, address in self._servers.items():
            cable, own = self._cable(number, server), self._address(number, server)
            _shell(
                [],
                f"ip link add {cable} type veth peer name {server} netns {holder.pid};"
                f"ip link set {cable} up; {self._way_back(number, cable)}",
            )
            inside += [
                f"ip addr add {own}/32 dev {server}",
                f"ip link set {server} up",
                f"ip route add {address}/32 dev {server} src {own}",
            ]
        _shell(self.on(machine), "; ".join(inside))

    def _cable(self, number: int, server: str) -> str:
        return f"m{number}-{server}"

    def _address(self, number: int, server: str) -> str:
        """Return the machine's address at the end of its cable to the server."""
        return f"10.78.{list(self._servers).index(server) + 1}.{number}"

    def _way_back(self, number: int, cable: str) -> str:
        # The kernel forgets the route when the link goes down.
        address = self._address(number, cable.split("-", 1)[1])
        return f"ip route replace {address}/32 dev {cable}"


def _is_linux() -> bool:
    return Path("/proc/thread-self/ns/net").exists()


def _enter_new_namespace() -> str:
    """Return why it could not be done, or ""."""
    if not _is_linux():
        return "only Linux has network namespaces"
    for program in ("ip", "nsenter", "unshare"):
        if not shutil.which(program):
            return f"there is no program {program}"
    try:
        _libc("unshare", _CLONE_NEWNET)
    except OSError as error:
        return f"network namespaces cannot be made here ({error.strerror}); root may"
    return ""


def _libc(function: str, *arguments: int) -> None:
    """Call unshare or setns, which Python has from 3.12 on."""
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _wait_for_namespace(pid: int) -> None:
    """Wait until the process has left the namespace that it was started in."""
    ours = Path("/proc/thread-self/ns/net").readlink()
    deadline = time.monotonic() + _START_SECONDS
    while Path(f"/proc/{pid}/ns/net").readlink() == ours:
        if time.monotonic() > deadline:
            raise RuntimeError("unshare made no network namespace")
        time.sleep(0.02)


def _shell(enter: Sequence[str], script: str) -> None:
    done = subprocess.run(
        [*enter, "sh", "-ec", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stdout.decode(errors='replace')}")
