# SPDX-License-Identifier: Apache-2.0
"""Run the soak; `make soak` does. The exit code is 0 if nothing was doubled, lost, false or stuck.

A failure keeps Airflow's home, with all logs, and says where it is.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from sqlalchemy.exc import OperationalError

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.cluster import PROMPTLAYER_HOST, Cluster
from dev.soak.accounting import Verdict, judge
from dev.soak.faults import Faults
from dev.soak.kills import Killer
from dev.soak.load import DAG_ID, markers, new_server, rounds
from dev.soak.plan import EVERY_SECONDS, plan
from dev.soak.records import read_starts, read_tasks
from dev.soak.report import report

AT_ONCE: Final = 6
"""How many rounds go on at a time."""
GRACE_SECONDS: Final = 900.0
"""How long the rounds may go on after the last kill."""
PROGRESS_SECONDS: Final = 60.0
TICK_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 5.0


class SoakError(Exception):
    """The package has not kept its word; raised within the cluster, so that the logs are kept."""


class Soak:
    """One soak on a cluster that is up.

    :param round_ids: of the rounds, in their order.
    :param seconds: after so long no other round is begun.
    """

    def __init__(
        self, cluster: Cluster, killer: Killer, round_ids: Sequence[str], seconds: float
    ) -> None:
        self._cluster = cluster
        self._killer = killer
        self._left = list(round_ids)
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1)  # a request may hang while a server is away
        self._beginning: Future[str] | None = None
        self._ended = set[str]()
        self.begun: list[str] = []

    def run(self) -> float:
        """Run all rounds to their end, or the time out; return how many seconds were killed in."""
        self._begin_next()
        self._cluster.stack.wait_for(lambda: self._has_begun(), 600.0, "the first round")
        began_at = time.monotonic()
        look_at = progress_at = 0.0
        while self._goes_on(elapsed := time.monotonic() - began_at):
            self._killer.step(elapsed)
            self._cluster.stack.check_alive()
            if elapsed >= look_at:
                look_at = elapsed + LOOK_SECONDS
                self._look()
            if self._has_begun() and len(self.begun) - len(self._ended) < AT_ONCE:
                self._begin_next()
            if elapsed >= progress_at:
                progress_at = elapsed + PROGRESS_SECONDS
                self._show(elapsed)
            time.sleep(TICK_SECONDS)
        return elapsed

    def settle(self) -> None:
        """Start what is away, and wait until all rounds have ended, or the grace is over."""
        self._killer.end()
        over_at = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < over_at:
            self._cluster.stack.check_alive()
            self._look()
            if self._has_begun() and len(self._ended) == len(self.begun):
                break
            time.sleep(LOOK_SECONDS)
        self._thread.shutdown(cancel_futures=True)

    def _goes_on(self, elapsed: float) -> bool:
        if elapsed >= self._seconds:
            self._left.clear()
        return bool(self._left or self._beginning or len(self._ended) < len(self.begun))

    def _begin_next(self) -> None:
        if self._left:
            self._beginning = self._thread.submit(
                self._cluster.stack.trigger_dag, DAG_ID, run_id=self._left[0]
            )

    def _has_begun(self) -> bool:
        """Return whether no round is being begun; one that could not be is tried again."""
        if self._beginning is None or not self._beginning.done():
            return self._beginning is None
        error = self._beginning.exception()
        self._beginning = None
        # 409: the answer to an earlier request was lost.
        if error is None or " 409" in str(error):
            self.begun.append(self._left.pop(0))
        return True

    def _look(self) -> None:
        try:
            found = self._cluster.stack.db.rows(
                "SELECT run_id FROM dag_run WHERE dag_id = :dag_id"
                " AND state IN ('success', 'failed')",
                dag_id=DAG_ID,
            )
        except OperationalError:
            return
        self._ended = {row["run_id"] for row in found} & set(self.begun)

    def _show(self, elapsed: float) -> None:
        starts, kills = len(self._cluster.promptlayer.executions), self._killer.done.total()
        print(
            f"{elapsed / 60:4.0f} min: {len(self._ended)} rounds ended, "
            f"{len(self.begun) - len(self._ended)} go on, {len(self._left)} left; "
            f"{starts} runs, {kills} kills",
            flush=True,
        )


def soak(runs: int, seed: int, seconds: float, every: float) -> Verdict:
    """Run a soak and print what came of it.

    :param runs: how many billed starts there are to be.
    :param seconds: after so long no other round is begun.
    :param every: seconds from one kill to the next.

    :raises SoakError: if the package has not kept its word.
    """
    round_ids = rounds(runs, seed)
    server = new_server(round_ids, time.time, host=PROMPTLAYER_HOST, max_requests=1000)
    faults = Faults(seed)
    server.script(faults, times=None)
    dags = Path(__file__).with_name("dags")
    # What cannot live without PostgreSQL ends whenever that is killed.
    with Cluster(dags, server, slots=3, most_restarts=runs) as cluster:
        print(f"seed {seed}; Airflow's home is {cluster.home}", flush=True)
        killer = Killer(cluster, plan(seed, every))
        going = Soak(cluster, killer, round_ids, seconds)
        took = going.run()
        going.settle()
        verdict = account(server, faults, cluster, going.begun)
        print(report(verdict, seed, took, killer.done, cluster.restarts, faults), flush=True)
        if not verdict.holds:
            raise SoakError(f"see {cluster.home}; repeat with --seed {seed}")
    return verdict


def account(
    server: LocalPromptLayer, faults: Faults, cluster: Cluster, round_ids: Sequence[str]
) -> Verdict:
    """Hold the local PromptLayer's record against Airflow's."""
    logs = cluster.home / "logs"
    return judge(
        [marker for each in round_ids for marker in markers(each)],
        read_starts(server, faults.writes, round_ids),
        [task for each in round_ids for task in read_tasks(cluster.stack.db, logs, each)],
    )


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="billed starts, in rounds of 25")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="to repeat one")  # noqa: S311
    parser.add_argument("--minutes", type=float, default=180.0, help="no round begins after that")
    parser.add_argument("--every", type=float, default=EVERY_SECONDS, help="seconds between kills")
    given = parser.parse_args()
    try:
        soak(given.runs, given.seed, given.minutes * 60, given.every)
    except SoakError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
