# SPDX-License-Identifier: Apache-2.0
"""One Airflow on two machines for all tests of a session, and one local PromptLayer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed.everything import TABLE, held
from support.clocks import Clock

from airflow_provider_promptlayer.testing import (
    LocalPromptLayer,
    builtin_evaluations,
    builtin_workflows,
)
from dev.cluster import PROMPTLAYER_HOST, Cluster

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def promptlayer(clock: Clock) -> LocalPromptLayer:
    """Not started yet: the cluster does that."""
    return LocalPromptLayer(
        [*builtin_workflows(), held()],
        tables=[*builtin_evaluations().tables, TABLE],
        host=PROMPTLAYER_HOST,
        clock=clock,
        max_requests=100_000,
    )


@pytest.fixture(scope="session")
def cluster(
    promptlayer: LocalPromptLayer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    dags = tmp_path_factory.mktemp("dags")
    (dags / "examples").symlink_to(HERE.parents[1] / "example_dags", target_is_directory=True)
    (dags / "distributed").symlink_to(HERE / "dags", target_is_directory=True)
    env = {
        # Of the example DAGs: on a busy machine, the API server may not answer in time.
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "5",
        # Half a minute without the API server is to end tries.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "10",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "2",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "2",
    }
    home = tmp_path_factory.mktemp("airflow")
    with Cluster(dags, promptlayer, env=env, home=home, slots=3) as running:
        yield running
