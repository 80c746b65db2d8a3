# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of a real Airflow share: how CPU time is counted, and a command for each.

The command prints progress on stderr, and figures on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from airflow_provider_promptlayer.testing import LocalPromptLayer
from benchmarks.figures import Figure
from dev.airflow_stack import AirflowStack, StackError, Terminated
from dev.occupancy import busy_workers
from dev.processor_time import seconds_used

Say = Callable[[str], None]


def say_nothing(_: str) -> None:
    """Report no progress."""


class Bench:
    """An Airflow whose CPU time is counted.

    :param say: called with each line of progress.
    """

    def __init__(self, stack: AirflowStack, promptlayer: LocalPromptLayer, say: Say) -> None:
        self._stack = stack
        self._promptlayer = promptlayer
        self._say = say

    def wait_for_success(self, dag_id: str, run_id: str, timeout: float) -> None:
        """Wait until a DAG run has succeeded.

        :raises StackError: if it fails, or takes longer than ``timeout`` seconds.
        """
        state = self._stack.wait_for_dag_run(dag_id, run_id, timeout)
        if state != "success":
            raise StackError(f"the run of {dag_id} ended as {state}")

    def become_idle(self) -> None:
        """Wait until no worker runs a task."""
        self._stack.wait_for(lambda: busy_workers(self._stack) == 0, 60, "the workers to end")

    def cpu(self) -> float:
        """Return the CPU seconds that all of Airflow has used so far."""
        return seconds_used([one.pid for one in self._stack.components.running()])

    def idle_rate(self, seconds: float) -> float:
        """Return the CPU seconds per second that Airflow uses when it has nothing to do."""
        self.become_idle()
        before, start = self.cpu(), time.monotonic()
        over = start + seconds
        self._stack.wait_for(lambda: time.monotonic() > over, seconds + 10, "time to pass")
        rate = (self.cpu() - before) / (time.monotonic() - start)
        self._say(f"idle: {rate:.3f} CPU seconds per second")
        return rate

    def at_work(self, dag_id: str, run_id: str, task_id: str) -> list[tuple[float, float]]:
        """Return when each worker began to work on a task, and left it, in seconds since the epoch.

        Those of all instances of a mapped task, in the order in which they began.
        """
        found: list[tuple[float, float]] = []
        began: dict[int, float] = {}
        for event in self._stack.db.task_events(dag_id, run_id, task_id):
            index, when = event["map_index"], datetime.fromisoformat(str(event["dttm"]))
            at = when.replace(tzinfo=when.tzinfo or UTC).timestamp()
            if event["event"] == "running":
                began[index] = at
            elif index in began:
                found.append((began.pop(index), at))
        return sorted(found)


class Measure(Protocol):
    """The ``measure`` of such a benchmark."""

    def __call__(self, *, quick: bool, say: Say) -> Sequence[Figure]:
        """Return the figures; report progress to ``say``."""


def run(prog: str, description: str | None, measure: Measure) -> int:
    """Print the figures as lines of JSON; return the exit code: 0, 1, or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--quick", action="store_true", help="a small one, to try")
    options = parser.parse_args()
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {text}", file=sys.stderr, flush=True)

    try:
        for figure in measure(quick=options.quick, say=say):
            print(json.dumps(figure.payload()), flush=True)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return 143 if isinstance(stop, Terminated) else 130
    return 0
