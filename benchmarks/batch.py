# SPDX-License-Identifier: Apache-2.0
"""What many runs cost a real Airflow: as one batch, and as a mapped task for each.

    python -m benchmarks.batch [--quick]

Both start the same runs of the same workflow on a local PromptLayer, whose own CPU time is not
counted, wait without a worker, and return the outputs. :mod:`.live` says what is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow
from benchmarks.alone import run
from dev.airflow_stack import AirflowStack, StackError
from dev.occupancy import busy_workers
from dev.processor_time import seconds_used

DAGS = Path(__file__).parent / "batch_dags"
PARALLELISM = 8
RUN_TIMEOUT = 1_200.0
AGAINST = "mapped run operators"


class Figure(TypedDict):
    """One line of the table. `ratio` is ours / against."""

    name: str
    unit: str
    ours: float
    against: float
    against_name: str
    ratio: float
    goal: str
    note: str


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int
    run_seconds: float
    idle_seconds: float


FULL = Size(runs=100, run_seconds=30.0, idle_seconds=30.0)
QUICK = Size(runs=10, run_seconds=20.0, idle_seconds=10.0)


@dataclass(frozen=True)
class Work:
    """What one DAG run took from Airflow."""

    starts: int
    """Worker processes for the task, all indexes together."""
    cpu: float
    """CPU seconds of the whole Airflow during the DAG run, more than when idle."""
    seconds: float
    """How long the DAG run took."""


def _say_nothing(_: str) -> None:
    pass


def measure(*, quick: bool = False, say: Callable[[str], None] = _say_nothing) -> list[Figure]:
    """Start an Airflow, let it run a workflow many times in both ways, and compare.

    :param quick: few runs, to see whether the benchmark itself works.
    :param say: called with each line of progress.
    :raises StackError: if Airflow does not do what it should.
    """
    size = QUICK if quick else FULL
    some = Workflow("some", [Node("Only", "done", duration=size.run_seconds, is_output_node=True)])
    with LocalPromptLayer([some], tls="trusted") as promptlayer:
        env = {
            "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": promptlayer.airflow_connection_json,
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
        }
        with AirflowStack(DAGS, env=env) as stack:
            bench = _Bench(stack, promptlayer, size, say)
            idle = bench.idle_rate()
            batch, mapped = bench.work("bench_batch", idle), bench.work("bench_mapped", idle)
    note = f"runs of {size.run_seconds:.0f} s; at most {PARALLELISM} workers at a time"
    return [
        _figure(f"{name}, {size.runs} runs", unit, ours, against, note)
        for name, unit, ours, against in (
            ("workers started", "", batch.starts, mapped.starts),
            ("CPU seconds of the whole Airflow", "s", batch.cpu, mapped.cpu),
            ("seconds until the DAG run is over", "s", batch.seconds, mapped.seconds),
        )
    ]


def _figure(name: str, unit: str, ours: float, against: float, note: str) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        ours=ours,
        against=against,
        against_name=AGAINST,
        ratio=ours / against if against else float("nan"),
        goal="",
        note=note,
    )


class _Bench:
    def __init__(
        self,
        stack: AirflowStack,
        promptlayer: LocalPromptLayer,
        size: Size,
        say: Callable[[str], None],
    ) -> None:
        self._stack = stack
        self._promptlayer = promptlayer
        self._size = size
        self._say = say
        stack.wait_for_dag("bench_mapped")

    def idle_rate(self) -> float:
        """Return the CPU seconds per second that Airflow uses when it has nothing to do."""
        self._become_idle()
        before, start = self._cpu(), time.monotonic()
        over = start + self._size.idle_seconds
        self._stack.wait_for(
            lambda: time.monotonic() > over, self._size.idle_seconds + 10, "time to pass"
        )
        rate = (self._cpu() - before) / (time.monotonic() - start)
        self._say(f"idle: {rate:.3f} CPU seconds per second")
        return rate

    def work(self, dag_id: str, idle: float) -> Work:
        """Return what a run of the DAG takes.

        :param idle: what :meth:`idle_rate` returned.
        """
        self._become_idle()
        posts = self._promptlayer.count("POST")
        before, start = self._cpu(), time.monotonic()
        run_id = self._stack.trigger_dag(dag_id, conf={"runs": self._size.runs})
        state = self._stack.wait_for_dag_run(dag_id, run_id, RUN_TIMEOUT)
        seconds = time.monotonic() - start
        if state != "success":
            raise StackError(f"the run of {dag_id} ended as {state}")
        self._become_idle()
        cpu = self._cpu() - before - idle * (time.monotonic() - start)
        if (started := self._promptlayer.count("POST") - posts) != self._size.runs:
            raise StackError(f"{dag_id} started {started} runs and not {self._size.runs}")
        events = self._stack.db.task_events(dag_id, run_id, "run")
        starts = sum(event["event"] == "running" for event in events)
        work = Work(starts, cpu, seconds)
        self._say(f"{dag_id}: {work}")
        return work

    def _become_idle(self) -> None:
        self._stack.wait_for(lambda: busy_workers(self._stack) == 0, 60, "the workers to end")

    def _cpu(self) -> float:
        return seconds_used([one.pid for one in self._stack.components.running()])


if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.batch", __doc__, measure))
