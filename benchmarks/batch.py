# SPDX-License-Identifier: Apache-2.0
"""What many runs cost a real Airflow: as one batch, and as a mapped task for each.

    python -m benchmarks.batch [--quick]

Both start runs of the same workflow on a local PromptLayer, whose own CPU time is not counted and
whose answers are 150 ms late, wait without a worker, and return the outputs. :mod:`.live` says what
is counted. The thousand mapped tasks take a quarter of an hour.

:mod:`.many_runs` measures the requests alone, which ``make bench BENCH="--only batch"`` does first.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Slow, Workflow
from benchmarks import many_runs
from benchmarks.alone import Bench, Say, run, say_nothing
from benchmarks.figures import Figure
from benchmarks.run_server import LATENCY_SECONDS
from dev.airflow_stack import AirflowStack, StackError

DAGS = Path(__file__).parent / "batch_dags"
PARALLELISM = 8
RUN_TIMEOUT = 2_400.0
AGAINST = "mapped run operators"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    runs: int
    run_seconds: float
    idle_seconds: float


FULL = Size(runs=1_000, run_seconds=30.0, idle_seconds=30.0)
QUICK = Size(runs=20, run_seconds=20.0, idle_seconds=10.0)


@dataclass(frozen=True)
class Work:
    """What one DAG run took from Airflow."""

    starts: int
    """Worker processes for the task, all indexes together."""
    cpu: float
    """CPU seconds of the whole Airflow during the DAG run, more than when idle."""
    seconds: float
    """How long the DAG run took."""


def measure() -> list[Figure]:
    """Return the figures of the requests, and those of a real Airflow."""
    return [*many_runs.measure(), *in_airflow()]


def in_airflow(*, quick: bool = False, say: Say = say_nothing) -> list[Figure]:
    """Start an Airflow, let it run a workflow many times in both ways, and compare.

    :param quick: few runs, to see whether the benchmark itself works.
    :param say: called with each line of progress.
    :raises StackError: if Airflow does not do what it should.
    """
    size = QUICK if quick else FULL
    some = Workflow("some", [Node("Only", "done", duration=size.run_seconds, is_output_node=True)])
    with LocalPromptLayer([some], tls="trusted") as promptlayer:
        promptlayer.script(Slow(LATENCY_SECONDS), times=None)
        env = {
            "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": promptlayer.airflow_connection_json,
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
        }
        with AirflowStack(DAGS, env=env) as stack:
            bench = _Bench(stack, promptlayer, say)
            idle = bench.idle_rate(size.idle_seconds)
            batch = bench.work("bench_batch", size.runs, idle)
            mapped = bench.work("bench_mapped", size.runs, idle)
    note = (
        f"runs of {size.run_seconds:.0f} s, each answer {LATENCY_SECONDS * 1000:.0f} ms late; at"
        f" most {PARALLELISM} workers at a time"
    )
    return [
        Figure.once(f"{name}, {size.runs} runs", unit, ours, AGAINST, against, note=note)
        for name, unit, ours, against in (
            ("workers started", "", batch.starts, mapped.starts),
            ("CPU seconds of the whole Airflow", "s", batch.cpu, mapped.cpu),
            ("seconds until the DAG run is over", "s", batch.seconds, mapped.seconds),
        )
    ]


class _Bench(Bench):
    def __init__(self, stack: AirflowStack, promptlayer: LocalPromptLayer, say: Say) -> None:
        super().__init__(stack, promptlayer, say)
        stack.wait_for_dag("bench_mapped")

    def work(self, dag_id: str, runs: int, idle: float) -> Work:
        """Return what a run of the DAG takes.

        :param runs: how many runs of the workflow it starts.
        :param idle: what :meth:`Bench.idle_rate` returned.
        """
        self.become_idle()
        posts = self._promptlayer.count("POST")
        before, start = self.cpu(), time.monotonic()
        run_id = self._stack.trigger_dag(dag_id, conf={"runs": runs})
        self.wait_for_success(dag_id, run_id, RUN_TIMEOUT)
        seconds = time.monotonic() - start
        self.become_idle()
        cpu = self.cpu() - before - idle * (time.monotonic() - start)
        if (started := self._promptlayer.count("POST") - posts) != runs:
            raise StackError(f"{dag_id} started {started} runs and not {runs}")
        events = self._stack.db.task_events(dag_id, run_id, "run")
        starts = sum(event["event"] == "running" for event in events)
        work = Work(starts, cpu, seconds)
        self._say(f"{dag_id}: {work}")
        return work


if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.batch", __doc__, in_airflow))
