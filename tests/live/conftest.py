# SPDX-License-Identifier: Apache-2.0
"""One local PromptLayer and one real Airflow for all the live tests of a session.

The DAGs folder holds the example DAGs and, where there are any, those of tests/live/dags. Airflow's
home is in pytest's temporary directory, which keeps the logs of the last three sessions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from live import etl, loop
from live.runs import ObjectStorage, Run
from support.hostile import names_body, values_body
from support.needs import HAS_TASK_STATE
from support.raw_server import RawPromptLayer

from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Node,
    Prompt,
    Scorecard,
    Sheet,
    Table,
    Workflow,
    builtin_evaluations,
    builtin_workflows,
)
from airflow_provider_promptlayer.version_compat import HAS_ASSET_WATCHERS
from dev.airflow_stack import AirflowStack
from dev.postgres import PostgresServer
from dev.s3_server import S3Server
from dev.warehouse import Warehouse

HERE = Path(__file__).parent
DAG_SOURCES = {"examples": HERE.parent.parent / "example_dags", "live": HERE / "dags"}


STARTED_EARLY: dict[str, Mapping[str, Mapping[str, Any]]] = {
    "test_crashes.py": {"live_crashes": {}},
    "test_etl.py": etl.RUNS,
}
"""Test module → its DAGs with their conf. They wait for minutes, and no other test can interfere.

A run of each begins as soon as Airflow is up, and is checked after all other tests.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests whose servers are not there, and move those to the end that wait longest."""
    for item in items:
        # `make live` needs no PostgreSQL; `make test-live`, also in `.ci/run`, runs these tests.
        if "lake" in getattr(item, "fixturenames", ()) and not etl.has_lake(config):
            reason = "needs --postgres, and dev/requirements/etl.txt: `make test-live` has both"
            item.add_marker(pytest.mark.skip(reason=reason))
    items.sort(key=lambda item: item.path.name in STARTED_EARLY or "last" in item.keywords)


@pytest.fixture(scope="session")
def promptlayer() -> Iterator[LocalPromptLayer]:
    """The PromptLayer that `promptlayer_default` leads to in `stack`."""
    good = Workflow("Good", [Node("Only", "done", is_output_node=True)])
    bad = Workflow(
        "Bad",
        [Node("Only", is_output_node=True, status="FAILED", error_message="too tired")],
    )
    never = Workflow("Never", [Node("Only", duration=math.inf, is_output_node=True)])
    endless = Sheet(
        "Endless",
        [Column("Answer", cell_duration=math.inf)],
        id="5c0a1e00-0000-4000-8000-0000000000e1",
        scorecard=Scorecard("Endless", duration=math.inf),
    )
    table = Table("Endless", [endless], id="5c0a1e00-0000-4000-8000-0000000000e0")
    many = [
        Sheet(
            f"Many {number}",
            [Column("Answer", cell_duration=math.inf)],
            id=f"5c0a1e00-0000-4000-8000-0000000001{number:02x}",
        )
        for number in range(30)
    ]
    many_sheets = Table("Many", many, id="5c0a1e00-0000-4000-8000-0000000000d0")
    brief = Workflow(
        "Brief wait",
        [Node("Only", lambda inputs, _: inputs["ticket"], duration=15.0, is_output_node=True)],
    )
    tables = [*builtin_evaluations().tables, table, many_sheets, etl.support_cases()]
    workflows = [*builtin_workflows(), good, bad, never, brief]
    prompts = [*builtin_evaluations().prompts, Prompt("Watched", labels={"prod": 1})]
    with LocalPromptLayer(workflows, tables=tables, prompts=prompts) as server:
        yield server


@pytest.fixture(scope="session")
def raw_promptlayer() -> Iterator[RawPromptLayer]:
    """The PromptLayer that `promptlayer_raw` leads to, with answers that no workflow gives."""
    with RawPromptLayer({"names": names_body(), "values": values_body()}) as server:
        yield server


@pytest.fixture(scope="session")
def lake() -> Iterator[S3Server]:
    """The S3 server that the connection ``lake`` leads to."""
    with S3Server() as server:
        server.filesystem.create_dir(etl.BUCKET)
        yield server


@pytest.fixture(scope="session")
def warehouse(postgres: PostgresServer) -> Warehouse:
    """The database that the connection ``warehouse`` leads to."""
    warehouse = Warehouse(postgres.new_database("warehouse"))
    for topic, questions in etl.CASES.items():
        warehouse.add_cases(topic, *questions)
    return warehouse


@pytest.fixture(scope="session")
def dags_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test may put a DAG file of its own; Airflow finds it within seconds."""
    folder = tmp_path_factory.mktemp("dags")
    for name, source in DAG_SOURCES.items():
        if source.is_dir():
            (folder / name).symlink_to(source, target_is_directory=True)
    return folder


@pytest.fixture(scope="session")
def early_runs() -> dict[str, str]:
    """DAG → its run that began as soon as Airflow was up: `stack` fills this."""
    return {}


@pytest.fixture(scope="session")
def early_loops() -> list[Future[loop.Loop]]:
    """The promotion that began as soon as Airflow was up: `stack` fills this."""
    return []


def linked(promptlayer: LocalPromptLayer) -> str:
    """Return a connection that knows where the web pages of sheets and runs are."""
    extra = {
        "dashboard_url": "https://dashboard.example.com",
        "run_url": "/runs/{workflow_version_execution_id}",
    }
    return json.dumps({**json.loads(promptlayer.airflow_connection_json), "extra": extra})


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest,
    early_runs: dict[str, str],
    early_loops: list[Future[loop.Loop]],
    promptlayer: LocalPromptLayer,
    raw_promptlayer: RawPromptLayer,
    dags_folder: Path,
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowStack]:
    """A real Airflow of the version that this environment has."""
    env = {
        "AIRFLOW_CONN_PROMPTLAYER_DEFAULT": promptlayer.airflow_connection_json,
        "AIRFLOW_CONN_PROMPTLAYER_LINKED": linked(promptlayer),
        "AIRFLOW_CONN_PROMPTLAYER_RAW": raw_promptlayer.airflow_connection_json,
        "AIRFLOW__PROMPTLAYER__DEFER_AFTER": "0",  # else short runs would meet no triggerer
    }
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    if "object_storage" in wanted:
        request.getfixturevalue("object_storage")  # begins at the same time
    modules = {
        item.path.name for item in request.session.items if not item.get_closest_marker("skip")
    }
    if "test_etl.py" in modules:
        for name in ("lake", "warehouse"):
            connection = request.getfixturevalue(name).airflow_connection_json
            env[f"AIRFLOW_CONN_{name.upper()}"] = connection
    home = tmp_path_factory.mktemp("airflow")
    (callbacks := home / "callbacks").touch()
    env["PROMPTLAYER_CALLBACKS"] = str(callbacks)
    with (
        AirflowStack(dags_folder, env=env, home=home, database_url=database_url) as running,
        ThreadPoolExecutor(1) as thread,
    ):
        for module, dags in STARTED_EARLY.items():
            if module in modules:
                early_runs.update({dag: running.trigger_dag(dag, dags[dag]) for dag in dags})
        if "test_watchers.py" in modules and HAS_ASSET_WATCHERS:
            running.start_watchers("live_watched")
        if "test_promotions.py" in modules and HAS_TASK_STATE:
            early_loops.append(thread.submit(loop.begin, running, promptlayer))
        yield running


@pytest.fixture(scope="session")
def object_storage(
    raw_promptlayer: RawPromptLayer,
    dags_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ObjectStorage]:
    """Start a second Airflow, whose XCom backend keeps large values in files, and go on."""
    folder, home = tmp_path_factory.mktemp("objects"), tmp_path_factory.mktemp("airflow-objects")
    env = {
        "AIRFLOW__CORE__XCOM_BACKEND": (
            "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
        ),
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{folder}",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "1000000",
    }
    with (
        RawPromptLayer(raw_promptlayer.results) as promptlayer,
        ExitStack() as ends,
        ThreadPoolExecutor(1) as thread,
    ):
        env["AIRFLOW_CONN_PROMPTLAYER_RAW"] = promptlayer.airflow_connection_json

        def begin(dag: str) -> Run:
            stack = ends.enter_context(AirflowStack(dags_folder, env=env, home=home, triggerers=0))
            return Run(stack, dag, stack.trigger_dag(dag))

        yield ObjectStorage(folder, thread.submit(begin, "live_hostile"))
