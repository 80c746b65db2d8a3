# SPDX-License-Identifier: Apache-2.0
"""Batches in a real Airflow: how often a worker was needed, and what a killed one leaves."""

from __future__ import annotations

from collections import Counter

import pytest
from live.runs import Run, finish
from support.needs import needs_task_state

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_config import AIRFLOW_VERSION
from dev.airflow_stack import AirflowStack

DAG_ID = "live_batches"
SIZE = 20


@pytest.fixture(scope="module")
def ended(stack: AirflowStack) -> Run:
    return finish(stack, {DAG_ID: {}})[DAG_ID]


@pytest.fixture(scope="module")
def starts(ended: Run, promptlayer: LocalPromptLayer) -> dict[str, list[int]]:
    """Task → how often each of its inputs was started."""
    counts = Counter(
        (execution.metadata["airflow_task_id"], int(execution.metadata["airflow_batch_index"]))
        for execution in promptlayer.executions.values()
        if execution.metadata.get("airflow_run_id") == ended.run_id
    )
    sizes = {task: index + 1 for task, index in sorted(counts)}
    return {task: [counts[task, index] for index in range(size)] for task, size in sizes.items()}


def test_results_are_in_the_order_of_the_inputs(ended: Run, starts: dict[str, list[int]]) -> None:
    assert ended.final["plain", -1] == "success"
    xcoms = ended.xcoms("plain")
    assert xcoms["return_value"] == [{"Only": f"ticket {number}"} for number in range(SIZE)]
    assert xcoms["promptlayer_errors"] == [None] * SIZE
    assert len(set(xcoms["promptlayer_execution_ids"])) == SIZE
    assert starts["plain"] == [1] * SIZE


def test_one_deferral_for_all(ended: Run) -> None:
    """A worker starts it, the triggerer waits, and a worker fetches the results."""
    log = ended.log("plain")
    assert log.count(f"of {SIZE} runs have ended.") == 10, log
    if AIRFLOW_VERSION >= (3,):  # whose API server writes down each process that starts
        started = ended.stack.db.rows(
            "SELECT id FROM log WHERE run_id = :run_id AND task_id = 'plain' AND event = 'running'",
            run_id=ended.run_id,
        )
        assert len(started) == 2


def test_few_at_a_time(ended: Run, starts: dict[str, list[int]]) -> None:
    assert ended.final["few_at_a_time", -1] == "success"
    assert ended.xcoms("few_at_a_time")["return_value"] == [str(number) for number in range(6)]
    assert starts["few_at_a_time"] == [1] * 6


@needs_task_state
@pytest.mark.parametrize(("moment", "expected"), [("before", 0), ("after", 1)])
def test_killed_between_two_starts(
    ended: Run, starts: dict[str, list[int]], moment: str, expected: int
) -> None:
    """The next try goes on where the last one died; only an input with an uncertain start fails."""
    task = f"killed_{moment}"
    assert ended.final[task, -1] == "success"
    assert starts[task] == [1] * 7 + [expected] + [1] * 12
    xcoms = ended.xcoms(task)
    assert xcoms["return_value"] == [
        {"Only": str(number)} if number != 7 else None for number in range(SIZE)
    ]
    assert "airflow_batch_index=7" in xcoms["promptlayer_errors"][7]
