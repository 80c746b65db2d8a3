# SPDX-License-Identifier: Apache-2.0
"""How soon a task is over after a short run, and what it takes from a real Airflow's workers.

    python -m benchmarks.short_runs [--quick]

A task starts a run and waits for it, in the ways of `short_runs_dags`. The other ways do so at a
server that does nothing but say how long ago a run was started: 404 until it has ended, as
`HttpSensor` takes it, and 200 afterwards.

*Noticed* is the first request that is answered "ended". *Over* is when a worker reports the end of
the task to Airflow, to which a deferred task has to come back first. The workers are those of
:mod:`.live`.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow
from benchmarks.alone import Bench, Say, run, say_nothing
from benchmarks.figures import Figure, Goal, Samples
from dev.airflow_stack import AirflowStack

DAGS = Path(__file__).parent / "short_runs_dags"
PARALLELISM = 8
BETWEEN_STARTS = 2.0
"""Seconds between the starts of two ways, so that their workers do not start at once."""

MAY_BE_LOST = 5
"""How often in a row a wait of the others may be lost; then that way is left out."""

OURS = "promptlayer"
OTHERS = {
    "promptlayer_at_once": "defer_after=0",
    "promptlayer_later": "defer_after=30",
    "promptlayer_poke": "deferrable=False",
    "http_poke": "HttpSensor, poke",
    "http_reschedule": "HttpSensor, reschedule",
    "http_deferrable": "HttpSensor, deferrable",
    "dbt_cloud": "one poll, then a deferral with a poll a minute",
}
AGAINST = "http_deferrable"


@dataclass(frozen=True)
class Size:
    """How much is measured: how long the runs take, in seconds, and how often each is repeated."""

    seconds: tuple[int, ...]
    rounds: int


FULL = Size(seconds=(1, 3, 8, 20, 60), rounds=3)
QUICK = Size(seconds=(1, 12), rounds=1)


@dataclass(frozen=True)
class Wait:
    """One wait for one run.

    :param noticed: seconds after the end of the run.
    :param over: seconds after the end of the run.
    :param starts: workers started.
    :param held: seconds for which workers were held.
    """

    noticed: float
    over: float
    starts: int
    held: float


def measure(*, quick: bool = False, say: Say = say_nothing) -> list[Figure]:
    """Start an Airflow, let it wait for short runs in all ways, and compare.

    :param quick: few runs, to see whether the benchmark itself works.
    :param say: called with each line of progress.
    :raises StackError: if Airflow does not do what it should.
    """
    size = QUICK if quick else FULL
    workflows = [
        Workflow(f"{seconds} s", [Node("Only", "done", duration=seconds, is_output_node=True)])
        for seconds in size.seconds
    ]
    with LocalPromptLayer(workflows, clock=time.time) as promptlayer, _OtherServer() as other:
        env = {
            "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": promptlayer.airflow_connection_json,
            "AIRFLOW_CONN_SHORT_RUNS": json.dumps({"conn_type": "http", "host": other.url}),
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            # The first worker would give up on an API server that has just started.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        }
        with AirflowStack(DAGS, env=env) as stack:
            bench = _Bench(stack, promptlayer, other, say)
            waits = {seconds: bench.waits(seconds, size.rounds) for seconds in size.seconds}
    return [figure for seconds in waits for figure in _figures(seconds, waits[seconds])]


def _figures(seconds: int, waits: Mapping[str, list[Wait]]) -> list[Figure]:
    named = {
        "noticed": (f"a run of {seconds} s: end noticed after", "s"),
        "over": (f"a run of {seconds} s: task over after the end of the run by", "s"),
        "starts": (f"a run of {seconds} s: workers started", ""),
        "held": (f"a run of {seconds} s: seconds that workers are held", "s"),
    }
    found = []
    for what, (name, unit) in named.items():
        samples = {
            way: Samples.of([getattr(wait, what) for wait in each])
            for way, each in waits.items()
            if each
        }
        others = [
            f"{title} {samples[way].median:.3g}" if way in samples else f"{title}: lost each time"
            for way, title in OTHERS.items()
        ]
        found.append(
            Figure(
                name,
                unit,
                samples[OURS],
                OTHERS[AGAINST],
                samples.get(AGAINST),
                Goal(max(1.5, seconds / 10), "ours") if what == "noticed" else None,
                note="; ".join(others),
                details={way: one.payload() for way, one in samples.items()},
            )
        )
    return found


def _dag_id(way: str) -> str:
    return f"bench_short_{way}"


class _Bench(Bench):
    def __init__(
        self, stack: AirflowStack, promptlayer: LocalPromptLayer, other: _OtherServer, say: Say
    ) -> None:
        super().__init__(stack, promptlayer, say)
        self._other = other
        stack.wait_for_dag(_dag_id(OURS))
        self._over("http_poke", self._begin("http_poke", 0), 0)  # the first is slower than the rest

    def waits(self, seconds: int, rounds: int) -> dict[str, list[Wait]]:
        """Return the waits for runs of so many seconds, by the name of the way."""
        found: dict[str, list[Wait]] = {way: [] for way in (OURS, *OTHERS)}
        ways = deque(found)
        for _ in range(rounds):
            self.become_idle()
            runs = {}
            ways.rotate()  # those that start later find a busier machine
            for way in ways:
                self._pause(BETWEEN_STARTS)
                runs[way] = self._begin(way, seconds)
            for way, begun_id in runs.items():
                if (run_id := self._over(way, begun_id, seconds)) is not None:
                    found[way].append(wait := self._wait(way, run_id, seconds))
                    self._say(f"run of {seconds} s, {way}: {wait}")
        return found

    def _begin(self, way: str, seconds: int) -> str:
        return self._stack.trigger_dag(_dag_id(way), conf={"seconds": seconds})

    def _over(self, way: str, run_id: str, seconds: int) -> str | None:
        """Wait until a DAG run has succeeded; return its id, or that of the one that was needed.

        Airflow may lose a task that comes back within seconds, as those of the others do. None if
        that has happened too often.
        """
        if way.startswith(OURS):
            self.wait_for_success(_dag_id(way), run_id, seconds + 300.0)
            return run_id
        for _ in range(MAY_BE_LOST):
            if self._stack.wait_for_dag_run(_dag_id(way), run_id, seconds + 300.0) == "success":
                return run_id
            self._say(f"run of {seconds} s, {way}: lost")
            run_id = self._begin(way, seconds)
        return None

    def _pause(self, seconds: float) -> None:
        over = time.monotonic() + seconds
        self._stack.wait_for(lambda: time.monotonic() > over, seconds + 10, "time to pass")

    def _wait(self, way: str, run_id: str, seconds: int) -> Wait:
        """Return what a DAG run that is over took."""
        at_work = self.at_work(_dag_id(way), run_id, "run")
        if way.startswith(OURS):
            ended_at, noticed_at = self._of_promptlayer(run_id, seconds)
        else:
            ended_at, noticed_at = self._other.ends[run_id], self._other.noticed[run_id]
        return Wait(
            noticed_at - ended_at,
            max(end for _, end in at_work) - ended_at,
            len(at_work),
            sum(end - begin for begin, end in at_work),
        )

    def _of_promptlayer(self, run_id: str, seconds: int) -> tuple[float, float]:
        ((its_id, execution),) = (
            (its_id, one)
            for its_id, one in self._promptlayer.executions.items()
            if one.metadata["airflow_run_id"] == run_id
        )
        noticed_at = min(
            request.arrived_at
            for request in self._promptlayer.requests
            if request.status == 200  # 202 until it has ended
            and request.query.get("workflow_version_execution_id") == str(its_id)
        )
        return execution.started_at + seconds, noticed_at


@dataclass
class _OtherServer:
    """Has runs that end by themselves: POST starts one, GET says whether it has ended."""

    ends: dict[str, float] = field(default_factory=dict)
    """When the run of each id ends, in seconds since the epoch."""
    noticed: dict[str, float] = field(default_factory=dict)
    """When that was said first."""

    def __enter__(self) -> _OtherServer:
        runs = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                url = urlsplit(self.path)
                seconds = float(parse_qs(url.query)["seconds"][0])
                runs.ends.setdefault(url.path.rpartition("/")[2], time.time() + seconds)
                self._answer(200)

            def do_GET(self) -> None:
                its_id, now = self.path.rpartition("/")[2], time.time()
                has_ended = now >= runs.ends[its_id]
                if has_ended:
                    runs.noticed.setdefault(its_id, now)
                self._answer(200 if has_ended else 404)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"


if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.short_runs", __doc__, measure))
