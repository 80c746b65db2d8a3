# SPDX-License-Identifier: Apache-2.0
"""Run an example DAG in a real Airflow, and show its XComs and what it cost.

By default against a local PromptLayer. With PROMPTLAYER_API_KEY and WORKFLOW (and perhaps
INPUT_VARIABLES, a JSON object) in the environment, against PromptLayer itself, where it starts
one run. The key goes to Airflow through the environment or the loopback API and is never printed.
With --etl, the DAG that takes cases from PostgreSQL through a sheet to S3 and back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_config import AIRFLOW_VERSION
from dev.airflow_stack import AirflowStack, StackError, Terminated
from dev.occupancy import Occupancy, Watch
from dev.postgres import PostgresServer
from dev.s3_server import S3Server
from dev.warehouse import Warehouse

ROOT = Path(__file__).resolve().parent.parent
CONNECTION_ID = "promptlayer_default"
RUN_SECONDS = 900.0
UI_PORT = 8080
NEXT_STEPS = """
Next:
  docs/quickstart.md     write a DAG of your own
  make ui                see the same in a browser
  make demo DEMO=etl     from PostgreSQL through an evaluation to S3 and back
  PROMPTLAYER_API_KEY=… WORKFLOW="name of a workflow" make demo
                         run a workflow of yours, at PromptLayer itself"""


class DemoError(Exception):
    """One line that says why there is nothing to show."""


@dataclass(frozen=True)
class Service:
    """The PromptLayer that is used, and what its run is given."""

    name: str
    connection: Mapping[str, Any]
    conf: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)


def main() -> int:
    """Return the exit code: 0, 1 for a failure, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--ui", action="store_true", help="keep the web UI up until Ctrl-C")
    parser.add_argument("--etl", action="store_true", help="from PostgreSQL to S3 and back")
    parser.add_argument("--dag", default="promptlayer_run_and_use_output")
    parser.add_argument("--task", default="write_article", help="whose outputs to show")
    options = parser.parse_args()
    try:
        with contextlib.ExitStack() as parts:
            service = parts.enter_context(_service())
            if options.etl:
                service, warehouse = parts.enter_context(_warehouse_and_lake(service))
                _demo(service, "promptlayer_evaluation_etl", "export", ui=options.ui)
                _say("The answers in the warehouse")
                _table([[_short(part) for part in row] for row in warehouse.answers()])
            else:
                _demo(service, options.dag, options.task, ui=options.ui)
            _say(NEXT_STEPS)
    except KeyboardInterrupt as stop:
        _say("\nstopped")
        return 143 if isinstance(stop, Terminated) else 130
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _service() -> Iterator[Service]:
    # Taken out, so that of all the processes only those that need the key are given it.
    key = os.environ.pop("PROMPTLAYER_API_KEY", "")
    workflow = os.environ.get("WORKFLOW", "")
    conf: dict[str, Any] = {"workflow": workflow} if workflow else {}
    if variables := os.environ.get("INPUT_VARIABLES", ""):
        try:
            conf["input_variables"] = json.loads(variables)
        except ValueError as error:
            raise DemoError(f"INPUT_VARIABLES is not JSON: {error}") from None
    if not key:
        with LocalPromptLayer() as local:
            connection = json.loads(local.airflow_connection_json)
            yield Service(f"a local PromptLayer on {local.url}", connection, conf)
        return
    if not workflow:
        raise DemoError("PROMPTLAYER_API_KEY is set: name the workflow to run with WORKFLOW=…")
    conf.setdefault("input_variables", {})
    url = "https://api.promptlayer.com"
    yield Service(url, {"conn_type": "promptlayer", "host": url, "password": key}, conf)


@contextlib.contextmanager
def _warehouse_and_lake(service: Service) -> Iterator[tuple[Service, Warehouse]]:
    with S3Server() as lake, PostgresServer() as postgres:
        lake.filesystem.create_dir("evaluations")
        warehouse = Warehouse(postgres.new_database("warehouse"))
        warehouse.add_cases("Regression set", "Can I pay by card?", "Where is my order?")
        env = {
            "AIRFLOW_CONN_LAKE": lake.airflow_connection_json,
            "AIRFLOW_CONN_WAREHOUSE": warehouse.airflow_connection_json,
        }
        name = f"{service.name}, a PostgreSQL and an S3 server"
        yield replace(service, name=name, env=env), warehouse


def _demo(service: Service, dag_id: str, task_id: str, *, ui: bool) -> None:
    env = {**service.env, **({"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"} if ui else {})}
    env["AIRFLOW__PROMPTLAYER__DEFER_AFTER"] = "0"  # else a short run would show no deferral
    if not ui:
        env[f"AIRFLOW_CONN_{CONNECTION_ID.upper()}"] = json.dumps(service.connection)
    version = ".".join(map(str, AIRFLOW_VERSION))
    _say(f"Starting Airflow {version} in a directory of its own, and {service.name}.")
    _say("It makes a database and starts four processes, which takes half a minute or more …")
    start = time.monotonic()
    stack = AirflowStack(ROOT / "example_dags", env=env, port=_port() if ui else 0)
    try:
        with stack:
            _say(f"Airflow is up after {time.monotonic() - start:.0f} s.\n")
            if ui:
                stack.api("POST", "/api/v2/connections", _row(service.connection))
                _say(f"Open it in a browser: {stack.url} (no password)\n")
            _run(stack, service, dag_id, task_id)
            if ui:
                _say(f"\nLook at the DAG run: {stack.url}/dags/{dag_id}")
                _stay_up(stack)
    except Exception as error:  # noqa: BLE001 - for any error, one line and where the rest is
        (stack.home / "demo-error.txt").write_text(traceback.format_exc())
        reason = str(error) if isinstance(error, (StackError, DemoError)) else repr(error)
        raise DemoError(f"{reason.splitlines()[0]}; logs are kept in {stack.home}") from None


def _row(connection: Mapping[str, Any]) -> dict[str, Any]:
    """Return the connection as a row of the database: the UI shows none from the environment.

    With a port of its own, because the Test button of Airflow 3.3.1 and 3.3.2 refuses a
    connection without one (apache/airflow pull request 73298).
    """
    url = urlsplit(connection["host"])
    return {
        **connection,
        "connection_id": CONNECTION_ID,
        "host": f"{url.scheme}://{url.hostname}",
        "port": url.port or 443,
    }


def _run(stack: AirflowStack, service: Service, dag_id: str, task_id: str) -> None:
    _say(f"Running the DAG {dag_id}, with a line for each change of a task's state.")
    _say("A deferred task waits in the triggerer until PromptLayer has finished.")
    run_id = stack.trigger_dag(dag_id, conf=service.conf)
    watch = Watch(stack, dag_id, run_id, _show_change)
    state = stack.wait_for(watch.sample, RUN_SECONDS, f"the run of {dag_id} to end")
    if state != "success":
        raise DemoError(_why_failed(stack, dag_id, run_id))
    _say(f"\nWhat {task_id} has put into XCom, for the tasks downstream:")
    _table([[key, _short(value)] for key, value in stack.xcoms(dag_id, run_id, task_id).items()])
    _show_occupancy(watch.seen)


def _stay_up(stack: AirflowStack) -> None:
    # Ctrl-C is the normal way to end this, so it is no failure.
    with contextlib.suppress(KeyboardInterrupt):
        _say(f"{stack.url} stays up until Ctrl-C")
        while True:
            stack.check_alive()
            time.sleep(1)
    _say("Stopping")


def _why_failed(stack: AirflowStack, dag_id: str, run_id: str) -> str:
    for (task_id, index), state in stack.task_states(dag_id, run_id).items():
        if state == "failed":
            reason = ""
            for line in stack.task_log(dag_id, run_id, task_id, index).splitlines():
                with contextlib.suppress(ValueError, LookupError, TypeError):
                    detail = json.loads(line)["error_detail"][0]
                    reason = f": {detail['exc_type']}: {detail['exc_value']}"
            return f"task {task_id} failed{reason}".splitlines()[0]
    return "the run failed"


def _show_change(seconds: float, task: str, state: str) -> None:
    if state:
        print(f"  {seconds:6.1f} s  {task:<16} {state}", flush=True)


def _show_occupancy(seen: Occupancy) -> None:
    _say("\nSeconds that each task spent in a state:")
    states = ["queued", "running", "deferred"]
    _table(
        [["task", *states]]
        + [
            [task, *(f"{seconds.get(state, 0.0):.1f}" for state in states)]
            for task, seconds in seen.seconds.items()
        ]
    )
    if not seen.deferred_samples:
        _say("\nPromptLayer was too quick for a look at Airflow while a task waited for it.")
        return
    waited = sum(seconds.get("deferred", 0.0) for seconds in seen.seconds.values())
    _say(f"\nWaiting for PromptLayer took {waited:.0f} s, and should hold no worker and no slot.")
    _say(f"{seen.deferred_samples} looks at Airflow's processes and database meanwhile have found:")
    workers = f"in {seen.deferred_with_worker} looks"
    if not seen.peak_workers:
        workers = "cannot be seen here"
    _table(
        [
            ["a worker that ran a task", workers],
            ["a pool slot that was taken", f"in {seen.deferred_with_slot} looks"],
        ]
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _table(rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip(), flush=True)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:89]}…"


def _port() -> int:
    """Return the usual port if it is free, else 0 for any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", UI_PORT))
        except OSError:
            return 0
    return UI_PORT


if __name__ == "__main__":
    sys.exit(main())
