# SPDX-License-Identifier: Apache-2.0
"""Run a real Airflow, of the version that this interpreter has, in a home of its own.

    with AirflowStack(Path("example_dags")) as stack:
        run_id = stack.trigger_dag("my_dag", conf={"workflow": "hello"})
        assert stack.wait_for_dag_run("my_dag", run_id, timeout=60) == "success"

Every component is a process with its own log under `home`. Every wait has a deadline, and one
that fails raises StackError with the end of the logs that explain it.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TypeVar

from dev.airflow_config import AIRFLOW_3, airflow_environment
from dev.metadata_db import MetadataDb, TaskStates
from dev.processes import Component, Components, free_port

T = TypeVar("T")

START_SECONDS = 600.0
POLL_SECONDS = 0.2


class StackError(RuntimeError):
    """A wait took too long, a call failed or a component ended; the message has the last lines."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came. A kind of Ctrl-C, since pytest takes a SystemExit for a failed test."""


class AirflowStack:
    """Scheduler, triggerers, DAG processor and API server (Airflow 3), or a chosen part of them.

    - `env` is added to the components' environment: settings (`AIRFLOW__SECTION__KEY`),
      connections (`AIRFLOW_CONN_…`), anything.
    - `home` is kept when it is given. A temporary one is removed, unless the block raised.
    - DAGs start paused, so that no schedule starts runs of its own; `trigger_dag` unpauses its DAG.
    - `database_url` empty means SQLite in `home`. Airflow 2 then has the SequentialExecutor, which
      runs one task at a time and holds up the scheduler meanwhile; all else has LocalExecutor.
    - `executor` other than those is started by the caller, as `dev.cluster` does.
    """

    def __init__(
        self,
        dags_folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        home: Path | None = None,
        database_url: str = "",
        triggerers: int = 1,
        host: str = "127.0.0.1",
        port: int = 0,
        executor: str = "",
    ) -> None:
        self._temporary_home = home is None
        self.home = home or Path(tempfile.mkdtemp(prefix="airflow-stack-"))
        self.logs = self.home / "component-logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        executor = executor or (
            "LocalExecutor" if AIRFLOW_3 or database_url else "SequentialExecutor"
        )
        self.database_url = database_url or f"sqlite:///{self.home / 'airflow.db'}"
        self._host = host
        self._port = port or free_port(host)
        self.url = f"http://{host}:{self._port}"
        self.env = airflow_environment(
            self.home, dags_folder.resolve(), self.database_url, host, self._port, executor
        )
        self.env.update(env or {})
        self.db = MetadataDb(self.database_url)
        self._initial_triggerers = triggerers
        self._triggerers_started = 0
        self.commands: dict[str, list[str]] = {}
        """Component → its command; a component that has ended is still here."""
        self._unpaused: set[str] = set()
        self._token: str | None = None
        self._old_sigterm: Any = None

    # --- start and end ----------------------------------------------------------------------

    def __enter__(self) -> AirflowStack:
        self._take_sigterm()
        self.components = Components(self.env, self.home, self.logs)
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.components.close()
        if self._old_sigterm is not None:
            signal.signal(signal.SIGTERM, self._old_sigterm)
        # The logs are kept for an error, not for an interruption.
        if self._temporary_home and not isinstance(error, Exception):
            shutil.rmtree(self.home, ignore_errors=True)

    def _take_sigterm(self) -> None:
        """Turn SIGTERM into an exception, so that it unwinds `with` blocks as Ctrl-C does."""

        def leave(_number: int, _frame: FrameType | None) -> None:
            raise Terminated

        if threading.current_thread() is threading.main_thread():
            self._old_sigterm = signal.signal(signal.SIGTERM, leave)

    def _start(self) -> None:
        self._migrate()
        # All at once: they spend their first seconds on imports, and need nothing of each other.
        if AIRFLOW_3:
            self.start_component(
                "api-server", "api-server", "--host", self._host, "--port", str(self._port)
            )
            self.start_component("dag-processor", "dag-processor")
        self._launch_scheduler()
        for _ in range(self._initial_triggerers):
            self._launch_triggerer()

        jobs = ["SchedulerJob", *(["DagProcessorJob"] if AIRFLOW_3 else [])]
        if self._initial_triggerers:
            jobs.append("TriggererJob")
        for job_type in jobs:
            self.wait_for(
                lambda job_type=job_type: self.db.newest_job(job_type) > 0,  # type: ignore[misc]
                START_SECONDS,
                f"a {job_type} to start",
            )
        if AIRFLOW_3:
            self.wait_for(self._server_answers, START_SECONDS, f"{self.url} to answer")

    def _migrate(self) -> None:
        done = subprocess.run(
            [*_AIRFLOW, "db", "migrate"],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=START_SECONDS,
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        (self.logs / "migrate.log").write_text(output)
        if done.returncode:
            raise StackError(f"airflow db migrate failed:\n{_last_lines(output)}")

    def start_component(self, name: str, *arguments: str, on: Sequence[str] = ()) -> Component:
        """Start `airflow ARGUMENTS` as a component; do not wait for it.

        :param on: words to put before the command, as `Network.on` returns them.
        """
        self.commands[name] = [*on, *_AIRFLOW, *arguments]
        return self.start_again(name)

    def start_again(self, name: str) -> Component:
        """Start a component that has ended, as it was started first; do not wait for it."""
        return self.components.start(name, self.commands[name])

    def _launch_scheduler(self) -> Component:
        return self.start_component("scheduler", "scheduler", "--skip-serve-logs")

    def start_scheduler(self) -> Component:
        """Start another scheduler after the last one has ended; return once it is at work."""
        return self._started("SchedulerJob", self._launch_scheduler)

    def _launch_triggerer(self) -> Component:
        self._triggerers_started += 1
        name = f"triggerer-{self._triggerers_started}"
        return self.start_component(name, "triggerer", "--skip-serve-logs")

    def start_triggerer(self) -> Component:
        """Start one more triggerer; return once it is registered in the database."""
        return self._started("TriggererJob", self._launch_triggerer)

    def _started(self, job_type: str, launch: Callable[[], Component]) -> Component:
        before = self.db.newest_job(job_type)
        component = launch()
        self.wait_for(
            lambda: self.db.newest_job(job_type) > before,
            START_SECONDS,
            f"{component.name} to start",
        )
        return component

    def component(self, name: str) -> Component:
        """Return a component by its name, such as `scheduler` or `triggerer-1`."""
        return self.components[name]

    def kill(self, name: str) -> None:
        """SIGKILL a component and all its processes, as a crash does."""
        self.components.kill(name)

    def stop(self, name: str) -> None:
        """SIGTERM a component, as a deployment would, and wait for its end."""
        self.components.stop([name], grace=120.0)

    # --- acting -----------------------------------------------------------------------------

    def trigger_dag(
        self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None
    ) -> str:
        """Wait until the DAG is parsed, unpause it, and start a run; return its id."""
        self._unpause(dag_id)
        run_id = run_id or f"stack__{uuid.uuid4().hex[:12]}"
        if AIRFLOW_3:
            body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
            self.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)
        else:
            self.airflow(
                "dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(conf or {})
            )
        return run_id

    def start_watchers(self, *dag_ids: str) -> None:
        """Start the watchers of the assets that start these DAGs; Airflow 2 has none.

        Airflow starts them when it parses the file of a DAG that is not paused, so that it takes up
        to ``min_file_process_interval`` after the DAG was unpaused.
        """
        files = set()
        for dag_id in dag_ids:
            self._unpause(dag_id)
            files.add(self.api("GET", f"/api/v2/dags/{dag_id}/details")["file_token"])
        for file in files:
            self.api("PUT", f"/api/v2/parseDagFile/{file}")

    def _unpause(self, dag_id: str) -> None:
        """Wait until the DAG is parsed, and unpause it."""
        self.wait_for_dag(dag_id)
        if dag_id not in self._unpaused:
            if AIRFLOW_3:
                self.api("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
            else:
                self.airflow("dags", "unpause", dag_id)
            self._unpaused.add(dag_id)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow 3's REST API as an admin.

        :raises StackError: it refused the call.
        :raises OSError: it did not answer.
        """
        if self._token is None:
            self._token = self._request("GET", "/auth/token", None)["access_token"]
        give_up_at = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._request(method, path, body)
            except StackError as error:
                # SQLite refuses to write while others do, and nothing has been written then.
                if "Database error" not in str(error) or time.monotonic() > give_up_at:
                    raise
                time.sleep(POLL_SECONDS)

    def airflow(self, *arguments: str) -> str:
        """Run an `airflow` command to its end, which takes seconds; return its output."""
        done = subprocess.run(
            [*_AIRFLOW, *arguments],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            # Not the arguments: a connection may be among them.
            raise StackError(
                f"airflow {arguments[0]} failed:\n{_last_lines(done.stdout + done.stderr)}"
            )
        return done.stdout

    # --- watching ---------------------------------------------------------------------------

    def wait_for(self, predicate: Callable[[], T], timeout: float, what: str) -> T:
        """Poll until `predicate` returns a true value, and return that."""
        deadline = time.monotonic() + timeout
        while True:
            self.check_alive()
            if result := predicate():
                return result
            if time.monotonic() > deadline:
                tails = "\n".join(one.tail(8) for one in self.components.running())
                raise StackError(f"waited {timeout:g} s for {what}\n{tails}")
            time.sleep(POLL_SECONDS)

    def check_alive(self) -> None:
        """Raise StackError if a component has ended that was not ended through this class."""
        for component in self.components.dead():
            raise StackError(
                f"{component.name} ended with exit code {component.popen.returncode}\n"
                + component.tail()
            )

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until the DAG can be triggered; a broken DAG file is reported when time is up."""
        try:
            self.wait_for(
                lambda: self.db.knows_dag(dag_id), START_SECONDS, f"DAG {dag_id} to be parsed"
            )
        except StackError as error:
            broken = [f"{file}:\n{trace}" for file, trace in self.db.import_errors().items()]
            raise StackError("\n".join([str(error), *broken])) from None

    def wait_for_dag_run(self, dag_id: str, run_id: str, timeout: float) -> str:
        """Wait until the run is final; return `success` or `failed`."""

        def final_state() -> str | None:
            state = self.db.dag_run_state(dag_id, run_id)
            return state if state in ("success", "failed") else None

        try:
            return self.wait_for(final_state, timeout, f"run {run_id} of {dag_id} to end") or ""
        except StackError as error:
            states = self.task_states(dag_id, run_id)
            raise StackError(f"{error}\ntask states: {states}") from None

    def task_states(self, dag_id: str, run_id: str) -> TaskStates:
        """Return (task_id, map_index) → state; map_index is -1 for a task that is not mapped."""
        return self.db.task_states(dag_id, run_id)

    def xcoms(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return key → value, as JSON; wrappers of Airflow's serialization stay."""
        return self.db.xcoms(dag_id, run_id, task_id, map_index)

    def task_log(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int = -1,
        try_number: int | None = None,
    ) -> str:
        """Return what worker and triggerer wrote about a try, by default its last; "" if none."""
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        files = sorted(folder.glob("attempt=*.log*"), key=lambda file: file.stat().st_mtime)
        attempts = {file: int(file.name.split("=")[1].split(".")[0]) for file in files}
        wanted = try_number or max(attempts.values(), default=0)
        return "".join(
            file.read_text(errors="replace") for file in files if attempts[file] == wanted
        )

    # --- HTTP -------------------------------------------------------------------------------

    def _server_answers(self) -> bool:
        try:
            self._request("GET", "/api/v2/version", None)
        except (OSError, StackError):
            return False
        return True

    def _request(self, method: str, path: str, body: Any) -> Any:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - it is ours
        request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.data = json.dumps(body).encode()
        try:
            with _DIRECT.open(request, timeout=120) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            raise StackError(f"{method} {path} answered {error.code}: {text[:500]}") from None


_AIRFLOW = [sys.executable, "-m", "airflow"]
# Past any proxy that the environment names.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _last_lines(text: str) -> str:
    return "\n".join(text.splitlines()[-25:])
