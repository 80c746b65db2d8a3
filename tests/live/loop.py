# SPDX-License-Identifier: Apache-2.0
"""The first half of promote_on_new_version.py and roll_back_on_drop.py, while other tests go on."""

from __future__ import annotations

from dataclasses import dataclass

from live.runs import SECONDS, Run

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_stack import AirflowStack

PROMOTE = "promptlayer_promote_on_new_version"
ROLL_BACK = "promptlayer_roll_back_on_drop"
PROMPT = "Support reply"
STAGING = "support_reply_staging"
PRODUCTION = "support_reply_prod"


@dataclass(frozen=True)
class Loop:
    """What has begun.

    :param version: to which the watched label was moved.
    :param in_production: the version in production before.
    :param night: a run of the DAG that rolls back, of which the scorecard passes.
    """

    version: int
    in_production: int
    night: Run


def begin(stack: AirflowStack, promptlayer: LocalPromptLayer) -> Loop:
    """Move the label, once its watcher has seen where it leads; let a night pass."""
    stack.start_watchers(PROMOTE)
    night = Run(stack, ROLL_BACK, stack.trigger_dag(ROLL_BACK))
    stack.wait_for(lambda: stack.db.asset_states(STAGING), SECONDS, "the first poll of the watcher")
    version = promptlayer.add_version(prompt=PROMPT)
    promptlayer.move_label("staging", version, prompt=PROMPT)
    return Loop(version, promptlayer.labels(prompt=PROMPT)["prod"], night)


def answer(run: Run, task_id: str, option: str) -> None:
    """Choose what a person chooses in a task of one of Airflow's human-in-the-loop operators.

    Only once the scheduler knows that the worker is gone which has asked: Airflow fails a task that
    is answered before, within a fraction of a second.
    """
    scheduler = run.stack.component("scheduler").log
    is_asked = f"task_id='{task_id}', run_id='{run.run_id}'"

    def worker_is_gone() -> bool:
        lines = scheduler.read_text(errors="replace").splitlines()
        return any("Received executor event" in line and is_asked in line for line in lines)

    run.stack.wait_for(
        lambda: run.poll() or ("awaiting_input" in run.seen[task_id, -1] and worker_is_gone()),
        SECONDS,
        f"task {task_id} to ask",
    )
    path = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task_id}/-1/hitlDetails"
    run.stack.api("PATCH", path, {"chosen_options": [option], "params_input": {}})
