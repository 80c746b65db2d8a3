# SPDX-License-Identifier: Apache-2.0
"""A user ends many deferred evaluations at once: PromptLayer is asked to cancel each of them."""

from __future__ import annotations

import pytest
from live.runs import SECONDS, Run
from support.needs import needs_on_kill

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_stack import AirflowStack

DAG_ID = "live_many_operations"
MANY = 30

pytestmark = needs_on_kill


@pytest.fixture(scope="module")
def fresh_triggerer(stack: AirflowStack) -> None:
    """Put a triggerer that has asked Airflow nothing so far in place of the one that runs."""
    (name,) = [one.name for one in stack.components.running() if "triggerer" in one.name]
    stack.stop(name)
    stack.start_triggerer()


@pytest.mark.usefixtures("fresh_triggerer")
@pytest.mark.parametrize("triggerer", ["cold", "warm"])  # in this order
def test_ending_a_dag_run_cancels_all_of_its_operations(
    triggerer: str,
    stack: AirflowStack,
    promptlayer: LocalPromptLayer,
) -> None:
    before = set(promptlayer.operations)
    run = Run(stack, DAG_ID, stack.trigger_dag(DAG_ID))
    stack.wait_for(
        lambda: list(stack.task_states(DAG_ID, run.run_id).values()).count("deferred") == MANY,
        SECONDS,
        "all to be deferred",
    )
    stack.wait_for(  # else Airflow drops a trigger without calling on_kill
        lambda: all("starting" in run.log("cells", index) for index in range(MANY)),
        SECONDS,
        "the triggerer to take over all of them",
    )
    started = set(promptlayer.operations) - before
    assert len(started) == MANY

    stack.api("PATCH", f"/api/v2/dags/{DAG_ID}/dagRuns/{run.run_id}", {"state": "failed"})

    def left() -> list[str]:
        operations = promptlayer.operations
        return [each for each in started if operations[each].cancelled_at is None]

    stack.wait_for(lambda: not left(), SECONDS, f"{MANY} cancellations")
