# SPDX-License-Identifier: Apache-2.0
"""Workers that die, and waits that Airflow would cut short.

How many runs PromptLayer saw, and how the task ended.
"""

from __future__ import annotations

from collections import Counter

import pytest
from support.needs import HAS_TASK_STATE

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_stack import AirflowStack

SECONDS = 900.0


@pytest.fixture(scope="module")
def ended(
    stack: AirflowStack, promptlayer: LocalPromptLayer, early_runs: dict[str, str]
) -> tuple[dict[str, str], Counter[str]]:
    """Return the final state of each task, and how many runs it started."""
    run_id = early_runs["live_crashes"]
    stack.wait_for_dag_run("live_crashes", run_id, SECONDS)
    states = {
        task: str(state) for (task, _), state in stack.task_states("live_crashes", run_id).items()
    }
    starts = Counter(
        execution.metadata["airflow_task_id"]
        for execution in promptlayer.executions.values()
        if execution.metadata and execution.metadata["airflow_run_id"] == run_id
    )
    return states, starts


def test_killed_before_the_id_was_noted(ended: tuple[dict[str, str], Counter[str]]) -> None:
    """It is uncertain whether the start arrived, so it is not sent again; before 3.3 it is."""
    states, starts = ended
    assert (states["sent"], starts["sent"]) == (("failed", 1) if HAS_TASK_STATE else ("success", 2))


@pytest.mark.parametrize("moment", ["noted", "resuming"])
def test_killed_after_the_id_was_noted(
    ended: tuple[dict[str, str], Counter[str]], moment: str
) -> None:
    """The next try waits for the same run."""
    states, starts = ended
    assert (states[moment], starts[moment]) == ("success", 1 if HAS_TASK_STATE else 2)


def test_execution_timeout_starts_no_second_run(
    ended: tuple[dict[str, str], Counter[str]],
) -> None:
    """On Airflow 2 it counts while a task is deferred; the wait ends before it, without a retry."""
    states, starts = ended
    assert (states["overdue"], starts["overdue"]) == ("failed", 1)
