# SPDX-License-Identifier: Apache-2.0
"""Read Airflow's metadata database without Airflow, by SELECTs.

They use only columns that 2.11 and 3 share, and two tables that 3.4 has changed.

Importing Airflow's models would tie the reader to one AIRFLOW_HOME for the life of the process,
and the REST API of Airflow 2 differs from that of Airflow 3.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from dev.airflow_config import AIRFLOW_VERSION

TaskStates = dict[tuple[str, int], str | None]

TASKS, _XCOMS = "task_instance", "xcom"
"""The tables to select from: one row for each task, and one for each XCom of a task."""
if AIRFLOW_VERSION >= (3, 4):
    # Each try of a task has a row of its own, to which its XComs belong; one row is at work.
    TASKS = (
        "(SELECT id, dag_id, run_id, task_id, region_index AS map_index, state, try_number,"
        " pool_slots, trigger_id FROM task_instance WHERE working_set)"
    )
    _XCOMS = (
        "(SELECT t.dag_id, t.run_id, t.task_id, t.region_index AS map_index, x.key, x.value"
        " FROM xcom_v2 x JOIN task_instance t ON t.id = x.task_instance_id WHERE t.working_set)"
    )


class MetadataDb:
    """Each query has a short connection of its own, to keep no writer of SQLite waiting."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            url = f"sqlite:///file:{parsed.database}?mode=ro&timeout=30&uri=true"
        # psycopg hands out a JSON column as Python values, sqlite3 as text. Airflow 2 has bytes.
        self._json_is_text = parsed.get_backend_name() == "sqlite"
        self._engine = create_engine(url, poolclass=NullPool)

    def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """Return what a SELECT finds, its parameters written as `:name`."""
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(sql), parameters).mappings()]

    def newest_job(self, job_type: str) -> int:
        """Return the id of the newest job of this type, 0 when there never was one."""
        found = self.rows(
            "SELECT max(id) AS id FROM job WHERE job_type = :job_type", job_type=job_type
        )
        return int(found[0]["id"] or 0)

    def knows_dag(self, dag_id: str) -> bool:
        """Return whether a DAG of this name has been parsed."""
        return bool(
            self.rows("SELECT 1 AS one FROM serialized_dag WHERE dag_id = :dag_id", dag_id=dag_id)
        )

    def dag_ids(self) -> set[str]:
        """Return the DAGs that have been parsed."""
        return {row["dag_id"] for row in self.rows("SELECT dag_id FROM serialized_dag")}

    def import_errors(self) -> dict[str, str]:
        """Return DAG file → traceback."""
        found = self.rows("SELECT filename, stacktrace FROM import_error")
        return {row["filename"]: row["stacktrace"] for row in found}

    def dag_run_state(self, dag_id: str, run_id: str) -> str | None:
        """Return the state of a run, None when there is no such run."""
        found = self.rows(
            "SELECT state FROM dag_run WHERE dag_id = :dag_id AND run_id = :run_id",
            dag_id=dag_id,
            run_id=run_id,
        )
        return found[0]["state"] if found else None

    def run_ids(self, dag_id: str) -> list[str]:
        """Return the runs of a DAG, oldest first."""
        found = self.rows(
            "SELECT run_id FROM dag_run WHERE dag_id = :dag_id ORDER BY id", dag_id=dag_id
        )
        return [row["run_id"] for row in found]

    def asset_events(self, name: str) -> list[dict[str, Any]]:
        """Return the ``extra`` of each event of an asset, oldest first; Airflow 3 alone."""
        found = self.rows(
            "SELECT extra FROM asset_event WHERE asset_id IN (SELECT id FROM asset"
            " WHERE name = :name) ORDER BY id",
            name=name,
        )
        return [self._decoded(row["extra"]) for row in found]

    def asset_states(self, name: str) -> list[Any]:
        """Return the values that Airflow 3.3 and later keep for an asset."""
        found = self.rows(
            "SELECT value FROM asset_state_store WHERE asset_id IN (SELECT id FROM asset"
            " WHERE name = :name)",
            name=name,
        )
        return [json.loads(row["value"]) for row in found]

    def task_states(self, dag_id: str, run_id: str) -> TaskStates:
        """Return (task_id, map_index) → state, map_index being -1 for what is not mapped."""
        found = self.rows(
            f"SELECT task_id, map_index, state FROM {TASKS} AS task"  # noqa: S608
            " WHERE dag_id = :dag_id AND run_id = :run_id ORDER BY task_id, map_index",
            dag_id=dag_id,
            run_id=run_id,
        )
        return {(row["task_id"], row["map_index"]): row["state"] for row in found}

    def task_events(self, dag_id: str, run_id: str, task_id: str) -> list[dict[str, Any]]:
        """Return what Airflow's audit log has about a task: `map_index`, `event`, `dttm`.

        Since Airflow 3, the API server writes one event `running` for each process that reports
        itself at work on the task, and one with the new state when that reports how it ended.
        """
        return self.rows(
            "SELECT map_index, event, dttm FROM log WHERE dag_id = :dag_id AND run_id = :run_id"
            " AND task_id = :task_id ORDER BY id",
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
        )

    def occupied_slots(self) -> int:
        """Return how many pool slots are taken by tasks that a worker has or is about to get."""
        found = self.rows(
            f"SELECT sum(pool_slots) AS slots FROM {TASKS} AS task"  # noqa: S608
            " WHERE state IN ('queued', 'running')"
        )
        return int(found[0]["slots"] or 0)

    def xcoms(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> dict[str, Any]:
        """Return key → value of one task."""
        found = self.rows(
            f"SELECT key, value FROM {_XCOMS} AS xcom"  # noqa: S608
            " WHERE dag_id = :dag_id AND run_id = :run_id AND task_id = :task_id"
            " AND map_index = :map_index ORDER BY key",
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=map_index,
        )
        return {row["key"]: self._decoded(row["value"]) for row in found}

    def _decoded(self, value: Any) -> Any:
        """Undo exactly one layer of JSON: a string that itself holds JSON must stay a string.

        A number is one already: SQLite turns text into a number in a column declared as JSON.
        """
        if isinstance(value, (bytes, memoryview)):
            return json.loads(bytes(value))
        return json.loads(value) if self._json_is_text and isinstance(value, str) else value
