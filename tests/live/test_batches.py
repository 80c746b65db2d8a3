# SPDX-License-Identifier: Apache-2.0
"""Batches in a real Airflow: how often a worker was needed, and what a killed one leaves."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_config import AIRFLOW_VERSION
from dev.airflow_stack import AirflowStack

REMEMBERS = AIRFLOW_VERSION >= (3, 3)
SECONDS = 900.0
SIZE = 20


@dataclass
class Run:
    """One run of the DAG."""

    stack: AirflowStack
    run_id: str
    starts: Counter[tuple[str, int]]

    def state(self, task: str) -> str:
        return str(self.stack.task_states("live_batches", self.run_id)[task, -1])

    def xcoms(self, task: str) -> dict[str, Any]:
        return self.stack.xcoms("live_batches", self.run_id, task)

    def starts_of(self, task: str) -> list[int]:
        """Return how often each input of a task was started."""
        size = max(index for name, index in self.starts if name == task) + 1
        return [self.starts[task, index] for index in range(size)]


@pytest.fixture(scope="module")
def ended(stack: AirflowStack, promptlayer: LocalPromptLayer) -> Run:
    run_id = stack.trigger_dag("live_batches")
    stack.wait_for_dag_run("live_batches", run_id, SECONDS)
    starts = Counter(
        (execution.metadata["airflow_task_id"], int(execution.metadata["airflow_batch_index"]))
        for execution in promptlayer.executions.values()
        if execution.metadata.get("airflow_run_id") == run_id
    )
    return Run(stack, run_id, starts)


def test_results_are_in_the_order_of_the_inputs(ended: Run) -> None:
    assert ended.state("plain") == "success"
    xcoms = ended.xcoms("plain")
    assert xcoms["return_value"] == [{"Only": f"ticket {number}"} for number in range(SIZE)]
    assert xcoms["promptlayer_errors"] == [None] * SIZE
    assert len(set(xcoms["promptlayer_execution_ids"])) == SIZE
    assert ended.starts_of("plain") == [1] * SIZE


def test_one_deferral_for_all(ended: Run) -> None:
    """A worker starts it, the triggerer waits, and a worker fetches the results."""
    log = ended.stack.task_log("live_batches", ended.run_id, "plain")
    assert log.count(f"of {SIZE} runs have ended.") == 10, log
    if AIRFLOW_VERSION >= (3,):  # whose API server writes down each process that starts
        started = ended.stack.db.rows(
            "SELECT id FROM log WHERE run_id = :run_id AND task_id = 'plain' AND event = 'running'",
            run_id=ended.run_id,
        )
        assert len(started) == 2


def test_few_at_a_time(ended: Run) -> None:
    assert ended.state("few_at_a_time") == "success"
    assert ended.xcoms("few_at_a_time")["return_value"] == [str(number) for number in range(6)]
    assert ended.starts_of("few_at_a_time") == [1] * 6


@pytest.mark.skipif(not REMEMBERS, reason="there is no task state before Airflow 3.3")
@pytest.mark.parametrize(("moment", "starts"), [("before", 0), ("after", 1)])
def test_killed_between_two_starts(ended: Run, moment: str, starts: int) -> None:
    """The next try goes on where the last one died; only an input with an uncertain start fails."""
    task = f"killed_{moment}"
    assert ended.state(task) == "success"
    assert ended.starts_of(task) == [1] * 7 + [starts] + [1] * 12
    xcoms = ended.xcoms(task)
    assert xcoms["return_value"] == [
        {"Only": str(number)} if number != 7 else None for number in range(SIZE)
    ]
    assert "airflow_batch_index=7" in xcoms["promptlayer_errors"][7]
