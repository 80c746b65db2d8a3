# SPDX-License-Identifier: Apache-2.0
"""An Airflow on several machines: CeleryExecutor, Redis and PostgreSQL.

    promptlayer = LocalPromptLayer(workflows, host=PROMPTLAYER_HOST)  # the cluster starts it
    with Cluster(Path("dags"), promptlayer) as cluster:
        run_id = cluster.stack.trigger_dag("my_dag", conf={"workflow": "hello"})
        cluster.kill("worker-1")  # SIGKILL
        cluster.start("worker-1")
        with cluster.network.cut("machine-2", "redis"):  # while this lasts, no packet passes
            ...
        assert cluster.stack.wait_for_dag_run("my_dag", run_id, timeout=300) == "success"

`cluster.stack` has the rest: `wait_for`, `api`, `task_states`, `xcoms`, `task_log`, and `db`, which
reads Airflow's metadata in PostgreSQL. Each wait there also plays the supervisor, as systemd and
Kubernetes do: what has ended by itself, as a scheduler does without its database, is started again
and counted in `cluster.restarts`; so a wait may go on while PostgreSQL is away.

The servers share a network with this process; each machine is a network namespace of its own, see
`dev.network`. Where none can be made, all is on the loopback, and `cluster.network.why_not` says
why. Linux only: the loopback of others is one address. dev/requirements/celery.txt is needed, and
`python -m dev.redis_server` and `dev.postgres`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy.exc import OperationalError

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_stack import AirflowStack, StackError
from dev.network import Network
from dev.postgres import PostgresServer
from dev.processes import Components
from dev.redis_server import RedisServer
from dev.watchdog import members

T = TypeVar("T")

PROMPTLAYER_HOST = "127.0.1.4"
SERVERS = {
    "airflow": "127.0.1.1",
    "postgres": "127.0.1.2",
    "redis": "127.0.1.3",
    "promptlayer": PROMPTLAYER_HOST,
}
"""The ends of the cables; `airflow` is the API server. The scheduler has no cable."""
START_SECONDS = 600.0
RESTART_SECONDS = 2.0

_SETTINGS = {
    # So that what a crash has left behind is noticed within a minute, not within five or ten.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    # Airflow's defaults, of which it warns where they are not written out.
    "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
}


class Cluster:
    """The servers, and machines called `machine-1`, `machine-2` and so on.

    `machine-N` runs `worker-N` and `triggerer-N`, and is the host name that their rows in the
    database have. The worker takes tasks of the queues `default` and `machine-N`, so
    `queue="machine-1"` in a DAG sends a task there.

    :param dags_folder: of the DAGs, which start paused; `stack.trigger_dag` unpauses them.
    :param promptlayer: not started yet, and with ``host=PROMPTLAYER_HOST``. The connection
        `promptlayer_default` leads there.
    :param env: added to the environment of each component: settings, connections.
    :param home: Airflow's home, kept when given. A temporary one is removed, unless the block
        raised. The task logs of all machines are below it.
    :param machines: how many.
    :param slots: how many tasks each worker runs at a time.
    :param most_restarts: how often a component may end by itself; then the next wait raises.
    """

    def __init__(
        self,
        dags_folder: Path,
        promptlayer: LocalPromptLayer,
        *,
        env: Mapping[str, str] | None = None,
        home: Path | None = None,
        machines: int = 2,
        slots: int = 2,
        most_restarts: int = 20,
    ) -> None:
        self._dags_folder = dags_folder
        self._env = dict(env or {})
        self._temporary_home = home is None
        self.home = home or Path(tempfile.mkdtemp(prefix="airflow-cluster-"))
        self._slots = slots
        self._most_restarts = most_restarts
        self.machines = [f"machine-{number}" for number in range(1, machines + 1)]
        self.promptlayer = promptlayer
        self.restarts: Counter[str] = Counter()
        """Component → how often it ended by itself, and was started again."""

    def __enter__(self) -> Cluster:
        self._ends = ExitStack()
        try:
            self._start(self._ends)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._ends.__exit__(kind, error, traceback)
        if self._temporary_home and not isinstance(error, Exception):
            shutil.rmtree(self.home, ignore_errors=True)

    def _start(self, ends: ExitStack) -> None:
        logs = self.home / "component-logs"
        logs.mkdir(parents=True, exist_ok=True)
        holders = Components({"PATH": os.environ.get("PATH", os.defpath)}, self.home, logs)
        ends.callback(holders.close)
        self.network = ends.enter_context(Network(holders, SERVERS, self.machines))
        ends.enter_context(self.promptlayer)
        self.postgres = ends.enter_context(PostgresServer(SERVERS["postgres"]))
        self.redis = ends.enter_context(RedisServer(SERVERS["redis"]))
        env = {
            **_SETTINGS,
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "AIRFLOW__CORE__PARALLELISM": str(self._slots * len(self.machines)),
            "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": self.promptlayer.airflow_connection_json,
            # No proxy of this environment knows these networks.
            "no_proxy": "*",
            "NO_PROXY": "*",
            **self._env,
        }
        self.stack = ends.enter_context(
            _SupervisedStack(
                self._dags_folder,
                env=env,
                home=self.home,
                database_url=self.postgres.new_database("airflow"),
                triggerers=0,
                host=SERVERS["airflow"],
                executor="CeleryExecutor",
                restarts=self.restarts,
                most_restarts=self._most_restarts,
            )
        )
        for number, machine in enumerate(self.machines, 1):
            self._start_machine(number, machine)
        self.wait_until_at_work()

    def _start_machine(self, number: int, machine: str) -> None:
        on = self.network.on(machine)
        self.stack.start_component(
            f"worker-{number}",
            "celery",
            "worker",
            f"--celery-hostname=worker-{number}",
            f"--queues=default,{machine}",
            f"--concurrency={self._slots}",
            "--skip-serve-logs",
            # A pidfile of its own: the default one is that of all workers of a home.
            f"--pid={self.home / f'worker-{number}.pid'}",
            on=on,
        )
        self.stack.start_component(f"triggerer-{number}", "triggerer", "--skip-serve-logs", on=on)

    @property
    def names(self) -> list[str]:
        """What can be killed: `redis`, `postgres`, and the components of Airflow."""
        return ["redis", "postgres", *self.stack.commands]

    def kill(self, name: str) -> None:
        """SIGKILL all processes of a component, as a crash does; it stays away until `start`.

        Redis loses what it holds, PostgreSQL does not. With a worker, its tasks die.
        """
        if name == "redis":
            self.redis.kill()
        elif name == "postgres":
            self.postgres.kill()
        else:
            self.stack.kill(name)

    def start(self, name: str) -> None:
        """Start it again after `kill`. Return at once; Redis and PostgreSQL answer by then."""
        if name == "redis":
            self.redis.start()
        elif name == "postgres":
            self.postgres.start()
        else:
            self.stack.start_again(name)

    def task_processes(self) -> list[psutil.Process]:
        """Return the processes at this moment that run the code of a task, on all machines."""
        return [process for name in self._workers for process in self._tasks_of(name)]

    def wait_until_at_work(self) -> None:
        """Wait until the scheduler, the triggerers and the workers are at work."""
        count = len(self.machines)
        self.stack.wait_for(
            lambda: (
                self._alive("SchedulerJob")
                and self._alive("TriggererJob") >= count
                and all(map(self._is_ready, self._workers))
            ),
            START_SECONDS,
            "the scheduler, the triggerers and the workers to be at work",
        )

    @property
    def _workers(self) -> list[str]:
        return [name for name in self.stack.commands if name.startswith("worker-")]

    def _is_ready(self, worker: str) -> bool:
        return f"celery@{worker} ready" in self.stack.component(worker).output()

    def _alive(self, job_type: str) -> int:
        """Return how many jobs of the type have told the database lately that they live."""
        found = self.stack.db.rows(
            "SELECT count(*) AS alive FROM job WHERE job_type = :job_type AND state = 'running'"
            " AND latest_heartbeat > now() - interval '10 seconds'",
            job_type=job_type,
        )
        return int(found[0]["alive"])

    def _tasks_of(self, worker: str) -> list[psutil.Process]:
        """Return the processes of a worker's tasks: the children of the pool's processes."""
        leader = self.stack.component(worker).pid
        return [
            process
            for process in members(leader)
            if process.pid != leader and process.ppid() != leader
        ]


class _SupervisedStack(AirflowStack):
    """Starts again what has ended by itself, and waits on while the database is away."""

    def __init__(
        self, dags_folder: Path, *, restarts: Counter[str], most_restarts: int, **options: Any
    ) -> None:
        super().__init__(dags_folder, **options)
        self._restarts = restarts
        self._most_restarts = most_restarts
        self._started_at: dict[str, float] = {}

    def check_alive(self) -> None:
        """Start again what has ended; raise StackError if that has happened too often."""
        for component in self.components.dead():
            name = component.name
            if self._restarts[name] >= self._most_restarts:
                super().check_alive()
            if time.monotonic() - self._started_at.get(name, 0.0) > RESTART_SECONDS:
                self._restarts[name] += 1
                self._started_at[name] = time.monotonic()
                self.components.kill(name)  # what is left of it
                self.start_again(name)

    def wait_for(self, predicate: Callable[[], T], timeout: float, what: str) -> T:
        """Poll until `predicate` returns a true value; it does not while PostgreSQL is away."""

        def result() -> T | None:
            try:
                return predicate()
            except OperationalError:
                return None

        found = super().wait_for(result, timeout, what)
        if found is None:
            raise StackError(f"no {what}")
        return found
