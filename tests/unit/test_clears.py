# SPDX-License-Identifier: Apache-2.0
"""What Airflow itself changes of a task instance when it is cleared, tried again, or left alone.

On a metadata database of its own, with Airflow's own functions: what a worker is told afterwards
has to tell a clear from a retry, whatever else happens in the DAG run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.modes import FakeTaskInstance
from support.needs import needs_task_state

from airflow_provider_promptlayer import version_compat

pytestmark = needs_task_state


class Database:
    """A metadata database with one DAG of two tasks, ``ours`` and ``other``, and one DAG run."""

    def __init__(self) -> None:
        from airflow import models, settings
        from airflow.models.base import Base
        from airflow.models.dag import DagModel
        from airflow.models.dagbundle import DagBundleModel
        from airflow.models.dagrun import DagRun
        from airflow.sdk import timezone
        from airflow.utils.db import synchronize_log_template
        from airflow.utils.state import DagRunState
        from airflow.utils.types import DagRunTriggeredByType, DagRunType

        models.import_all_models()
        Base.metadata.create_all(settings.engine)
        synchronize_log_template()
        self.session: Any = settings.Session()  # type: ignore[misc]  # set by now
        self.tries = 0
        self.session.add(DagBundleModel(name="bundle"))
        self.session.flush()
        self.session.add(DagModel(dag_id="dag", bundle_name="bundle", fileloc="dag.py"))
        self.session.flush()
        dag = self.publish(retries=2)
        self.dag_run: DagRun = dag.create_dagrun(
            run_id="run",
            run_after=timezone.utcnow(),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=self.session,
        )
        self.session.flush()

    def publish(self, *, retries: int) -> Any:
        """Let the tasks of the DAG have so many retries from now on."""
        from airflow.models.serialized_dag import SerializedDagModel
        from airflow.sdk import DAG, BaseOperator
        from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG

        with DAG("dag", schedule=None) as dag:
            for task_id in ("ours", "other"):
                BaseOperator(task_id=task_id, retries=retries)
        SerializedDagModel.write_dag(
            LazyDeserializedDAG.from_dag(dag), bundle_name="bundle", session=self.session
        )
        self.session.flush()
        return DagSerialization.from_dict(DagSerialization.to_dict(dag))

    def task_instance(self, task_id: str = "ours") -> Any:
        """Return the task instance as it is now."""
        self.session.expire_all()
        return self.dag_run.get_task_instance(task_id, session=self.session)

    def run(self, state: str) -> str:
        """Let our task come as far as a state in its next try; return the epoch that it sees."""
        from airflow.executors.workloads import ExecuteTask

        ti = self.task_instance()
        if ti.state is None:
            ti.try_number = max(ti.try_number, self.tries + 1)
        self.tries = ti.try_number
        ti.state = state
        self.session.flush()
        # What an executor hands to the worker, and what the API server adds there.
        told = ExecuteTask.make(ti).ti.model_dump(mode="json")
        return version_compat.clear_epoch(_Worker(told, ti.max_tries))

    def retry(self) -> None:
        """Do what the API server does when a try has failed."""
        ti = self.task_instance()
        ti.prepare_db_for_next_try(self.session)
        self.session.flush()
        self.task_instance().state = None
        self.session.flush()

    def clear(self, task_id: str = "ours", **how: Any) -> None:
        """Clear a task."""
        from airflow.models.taskinstance import clear_task_instances

        how = {"run_on_latest_version": True, **how}
        clear_task_instances([self.task_instance(task_id)], self.session, **how)


class _Worker:
    def __init__(self, told: dict[str, Any], max_tries: int) -> None:
        from airflow.sdk.api.datamodels._generated import TaskInstance

        self.context_carrier = TaskInstance.model_validate(told).context_carrier
        self.max_tries = max_tries


@pytest.fixture(scope="module")
def _tables() -> Iterator[Database]:
    database = Database()
    yield database
    database.session.rollback()
    database.session.close()


@pytest.fixture
def database(_tables: Database) -> Iterator[Database]:
    with _tables.session.begin_nested() as savepoint:
        _tables.tries = 0
        yield _tables
        savepoint.rollback()


def test_a_retry_changes_nothing(database: Database) -> None:
    first = database.run("running")
    database.retry()
    assert database.run("running") == first


@pytest.mark.parametrize("reset", [True, False])
def test_a_clear_of_another_task_changes_nothing(database: Database, reset: bool) -> None:
    first = database.run("running")
    database.clear("other", **({} if reset else {"dag_run_state": False}))
    assert database.run("running") == first
    database.retry()
    assert database.run("running") == first


@pytest.mark.parametrize("state", ["success", "failed", "running", "deferred", "up_for_retry"])
@pytest.mark.parametrize("retries", [2, 1, 0])
def test_a_clear_changes_it(database: Database, state: str, retries: int) -> None:
    """With ``retries=1``, ``max_tries`` is after the first try what it was before."""
    first = database.run(state)
    database.publish(retries=retries)
    database.clear()
    assert database.run("running") != first


def test_a_clear_that_leaves_the_dag_run_as_it_is_changes_it(database: Database) -> None:
    first = database.run("success")
    database.clear(dag_run_state=False)
    assert database.run("running") != first


def test_a_retry_with_another_trace_before_airflow_3_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the executor makes a new one for each try, where traces are on."""
    monkeypatch.setattr(version_compat, "HAS_TASK_STATE", False)
    tries = [
        version_compat.clear_epoch(
            FakeTaskInstance(max_tries=2, context_carrier={"traceparent": str(number)})
        )
        for number in (1, 2)
    ]
    assert tries[0] == tries[1]
