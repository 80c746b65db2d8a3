# SPDX-License-Identifier: Apache-2.0
"""Kill parts of a cluster by a plan, and start them again."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import psutil

from dev.cluster import Cluster
from dev.soak.plan import Kill


class Killer:
    """Carries out a plan on a cluster, and starts again what it has killed."""

    def __init__(self, cluster: Cluster, kills: Iterator[Kill]) -> None:
        self._cluster = cluster
        self._kills = kills
        self._next = next(kills)
        self._back_at = dict[str, float]()
        self.done = Counter[str]()
        """Victim → how often it was killed."""

    def step(self, elapsed: float) -> None:
        """Do what is due.

        :param elapsed: seconds since the beginning.
        """
        for name in [name for name, at in self._back_at.items() if at <= elapsed]:
            self._start(name)
        if self._next.at <= elapsed and self._kill(self._next, elapsed):
            self._next = next(self._kills)

    def end(self) -> None:
        """Start again what is away."""
        for name in list(self._back_at):
            self._start(name)

    def _start(self, name: str) -> None:
        self._cluster.start(name)
        del self._back_at[name]

    def _kill(self, kill: Kill, elapsed: float) -> bool:
        """Return whether there was such a thing to kill; else it is tried again."""
        if kill.victim == "task":
            tasks = self._cluster.task_processes()
            if not tasks:
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                kill.choose(tasks).kill()
                self.done["task"] += 1
            return True
        there = [
            name
            for name in self._cluster.names
            if name.rstrip("-0123456789") == kill.victim and name not in self._back_at
        ]
        if not there:
            return False
        name = kill.choose(there)
        self._cluster.kill(name)
        self._back_at[name] = elapsed + kill.away
        self.done[kill.victim] += 1
        return True
