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
    :param seconds: after so long no other round is begun, and nothing is killed any more.
    """

    def __init__(
        self, cluster: Cluster, killer: Killer, round_ids: Sequence[str], seconds: float
    ) -> None:
        self._cluster = cluster
        self._killer = killer
        self._round_ids = round_ids
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1)  # a request may hang while a server is away
        self._beginning: Future[str] | None = None
        self._ended = 0
        self.begun: list[str] = []

    def run(self) -> float:
        """Run all rounds to their end, or the time out; return the seconds in which was killed."""
        self._begin_one()
        self._cluster.stack.wait_for(self._look, 600.0, "a round to begin")
        began_at = time.monotonic()
        look_at = progress_at = 0.0
        while (elapsed := time.monotonic() - began_at) < self._seconds:
            self._killer.step(elapsed)
            self._cluster.stack.check_alive()
            if elapsed >= look_at:
                look_at = elapsed + LOOK_SECONDS
                self._look()
                self._begin_one()
                if self._ended == len(self._round_ids):
                    break
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
            is_beginning = self._is_beginning  # before the look
            self._look()
            if not is_beginning and self._ended == len(self.begun):
                break
            time.sleep(LOOK_SECONDS)
        self._thread.shutdown(cancel_futures=True)

    @property
    def _is_beginning(self) -> bool:
        return self._beginning is not None and not self._beginning.done()

    def _begin_one(self) -> None:
        """Begin a round if there is room; Airflow's database tells whether that was done."""
        left = [each for each in self._round_ids if each not in self.begun]
        if left and not self._is_beginning and len(self.begun) - self._ended < AT_ONCE:
            trigger = self._cluster.stack.trigger_dag
            self._beginning = self._thread.submit(trigger, DAG_ID, run_id=left[0])

    def _look(self) -> bool:
        """Ask Airflow which rounds have begun and ended; return whether any has begun."""
        try:
            states = self._cluster.stack.db.rows(
                "SELECT run_id, state FROM dag_run WHERE dag_id = :dag_id ORDER BY id",
                dag_id=DAG_ID,
            )
        except OperationalError:
            return False
        self.begun = [row["run_id"] for row in states]
        self._ended = sum(row["state"] in ("success", "failed") for row in states)
        return bool(self.begun)

    def _show(self, elapsed: float) -> None:
        starts, kills = len(self._cluster.promptlayer.executions), self._killer.done.total()
        print(
            f"{elapsed / 60:4.0f} min: {self._ended} of {len(self._round_ids)} rounds ended, "
            f"{len(self.begun) - self._ended} go on; "
            f"{starts} runs, {kills} kills",
            flush=True,
        )


def soak(runs: int, seed: int, seconds: float, every: float) -> Verdict:
    """Run a soak and print what came of it.

    :param runs: how many billed starts there are to be.
    :param seconds: after so long no other round is begun, and nothing is killed any more.
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
    parser.add_argument("--minutes", type=float, default=180.0, help="of kills, at most")
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
