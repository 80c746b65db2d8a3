# SPDX-License-Identifier: Apache-2.0
"""What a wait costs a real Airflow: workers started, seconds that one is held, CPU.

    python -m benchmarks.live [--quick]

Compared with `HttpSensor` with a response check, over TLS, on a local PromptLayer whose own CPU
time is not counted. Worker starts are not sampled: Airflow's API server writes an event when a
process reports that it is at work on a task, and another when it reports the end. CPU seconds are
the kernel's, of all processes of all of Airflow's components, less those that an idle Airflow uses.

If the CPU cannot keep up, as two processors cannot with 200 waits every 30 s, `HttpSensor` polls
less often than its interval, and so costs less than it should: starts per wait tell how much.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow
from benchmarks.alone import Bench, Say, run, say_nothing
from benchmarks.figures import Figure
from dev.airflow_stack import AirflowStack

DAGS = Path(__file__).parent / "dags"
OUR_OPTIONS = {
    "promptlayer": "plain",
    "promptlayer_end": "end_from_trigger",
    "promptlayer_start_and_end": "start_from_trigger and end_from_trigger",
}
GOALS = {"promptlayer": 2, "promptlayer_end": 1, "promptlayer_start_and_end": 0}
AGAINST = "HttpSensor"
PARALLELISM = 8
RUN_TIMEOUT = 600.0
# A contender that would take the benchmark beyond this is left out: seconds.
BUDGET = 1500.0


@dataclass(frozen=True)
class Size:
    """How much is measured, in seconds and waits."""

    one_seconds: float
    few: int
    many: int
    many_seconds: float
    idle_seconds: float


FULL = Size(one_seconds=42.0, few=20, many=200, many_seconds=120.0, idle_seconds=40.0)
QUICK = Size(one_seconds=24.0, few=5, many=10, many_seconds=60.0, idle_seconds=20.0)


@dataclass(frozen=True)
class Work:
    """What the waits of one DAG run took from Airflow."""

    starts: float
    """Worker processes per wait."""
    held: float
    """Seconds per wait between a worker's report that it is at work and that it has left."""
    cpu: float = 0.0
    """CPU seconds of the whole Airflow during the DAG run, more than when idle."""
    seconds: float = 0.0
    """How long the DAG run took."""


def measure(*, quick: bool = False, say: Say = say_nothing) -> list[Figure]:
    """Start an Airflow, let it wait in all ways, and compare.

    :param quick: few waits and short runs, to see whether the benchmark itself works.
    :param say: called with each line of progress.
    :raises StackError: if Airflow does not do what it should.
    """
    size = QUICK if quick else FULL
    workflows = [
        Workflow(name, [Node("Only", "done", duration=seconds, is_output_node=True)])
        for name, seconds in (("one", size.one_seconds), ("many", size.many_seconds))
    ]
    with (
        LocalPromptLayer(workflows, tls="trusted") as promptlayer,
        AirflowStack(DAGS, env=_environment(promptlayer)) as stack,
    ):
        bench = _Bench(stack, promptlayer, size, say)
        return [*bench.worker_figures(), *bench.cpu_figures()]


def _environment(promptlayer: LocalPromptLayer) -> dict[str, str]:
    http = {
        "conn_type": "http",
        "host": promptlayer.url,
        "extra": {"X-API-KEY": promptlayer.api_key, "verify": promptlayer.ca_file},
    }
    return {
        "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": promptlayer.airflow_connection_json,
        "AIRFLOW_CONN_PROMPTLAYER_HTTP": json.dumps(http),
        "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
    }


class _Bench(Bench):
    def __init__(
        self, stack: AirflowStack, promptlayer: LocalPromptLayer, size: Size, say: Say
    ) -> None:
        super().__init__(stack, promptlayer, say)
        self._size = size
        self._start = time.monotonic()
        stack.wait_for_dag("bench_many_http_reschedule")
        self._dags = stack.db.dag_ids()

    # --- one wait ---------------------------------------------------------------------------

    def worker_figures(self) -> list[Figure]:
        """Worker starts per wait, and seconds that it holds a worker."""
        names = sorted(dag.removeprefix("bench_one_") for dag in self._dags if "_one_" in dag)
        runs = {}
        for name in names:
            conf = {"run": self._promptlayer.start_execution("one")}
            runs[name] = self._stack.trigger_dag(f"bench_one_{name}", conf=conf)
        work = {}
        for name, run_id in runs.items():
            self.wait_for_success(f"bench_one_{name}", run_id, RUN_TIMEOUT)
            work[name] = self._work(f"bench_one_{name}", run_id)
            self._say(f"one wait, {name}: {work[name]}")
        poke, reschedule = work["http_poke"], work["http_reschedule"]
        figures = []
        for name, options in OUR_OPTIONS.items():
            if name in work:
                ours = work[name]
                note = (
                    f"one wait of {self._size.one_seconds:.0f} s, polled every 10 s;"
                    " HttpSensor in reschedule mode, in poke mode "
                )
                figures += [
                    Figure.once(
                        f"workers started per wait, {options}",
                        "",
                        ours.starts,
                        AGAINST,
                        reschedule.starts,
                        at_most=GOALS[name],
                        note=f"{note}{poke.starts:g}",
                    ),
                    Figure.once(
                        f"seconds that a wait holds a worker, {options}",
                        "s",
                        ours.held,
                        AGAINST,
                        reschedule.held,
                        note=f"{note}{poke.held:.1f}",
                    ),
                ]
        return figures

    # --- many waits -------------------------------------------------------------------------

    def cpu_figures(self) -> list[Figure]:
        """CPU seconds of a DAG run, with as many waits as the machine keeps up with, and more."""
        idle = self.idle_rate(self._size.idle_seconds)
        return [
            figure
            for count in (self._size.few, self._size.many)
            for figure in self._cpu_figures(count, idle)
        ]

    def _cpu_figures(self, count: int, idle: float) -> list[Figure]:
        against = self._mapped("http_reschedule", count, idle)
        figures = []
        for name, options in {
            "promptlayer": "plain",
            "promptlayer_end": "end_from_trigger",
        }.items():
            if f"bench_many_{name}" not in self._dags:
                continue
            if time.monotonic() - self._start + against.seconds > BUDGET:
                self._say(f"{name} is left out: there is no time for it on this machine")
                continue
            ours = self._mapped(name, count, idle)
            figures.append(
                Figure.once(
                    f"CPU seconds of {count} mapped waits, {options}, every 30 s",
                    "s",
                    ours.cpu,
                    AGAINST,
                    against.cpu,
                    note=f"runs of {self._size.many_seconds:.0f} s; HttpSensor in reschedule mode,"
                    f" at most every 30 s; worker starts per wait {ours.starts:.2f}, its"
                    f" {against.starts:.2f}; CPU seconds per start"
                    f" {ours.cpu / (ours.starts * count):.2f},"
                    f" its {against.cpu / (against.starts * count):.2f}; the DAG run took"
                    f" {ours.seconds:.0f} s, its {against.seconds:.0f} s",
                )
            )
        return figures

    def _mapped(self, name: str, count: int, idle: float) -> Work:
        dag_id = f"bench_many_{name}"
        self.become_idle()
        before, start = self.cpu(), time.monotonic()
        runs = [self._promptlayer.start_execution("many") for _ in range(count)]
        run_id = self._stack.trigger_dag(dag_id, conf={"runs": runs})
        self.wait_for_success(dag_id, run_id, RUN_TIMEOUT)
        seconds = time.monotonic() - start
        self.become_idle()
        cpu = self.cpu() - before - idle * (time.monotonic() - start)
        work = self._work(dag_id, run_id, cpu=cpu, seconds=seconds)
        self._say(f"{count} waits, {name}: {work}")
        return work

    # --- watching ---------------------------------------------------------------------------

    def _work(self, dag_id: str, run_id: str, cpu: float = 0.0, seconds: float = 0.0) -> Work:
        waits = sum(task == "wait" for task, _ in self._stack.task_states(dag_id, run_id))
        at_work = self.at_work(dag_id, run_id, "wait")
        held = sum(end - began for began, end in at_work)
        return Work(len(at_work) / waits, held / waits, cpu, seconds)


if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.live", __doc__, measure))
