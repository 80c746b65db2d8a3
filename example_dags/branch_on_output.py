# SPDX-License-Identifier: Apache-2.0
"""Every morning: classify the night's ticket, and branch on what the workflow found.

Give the `ticket` in the params.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator

PARAMS: Any = {"ticket": "My tea was cold."}

with DAG(
    dag_id="promptlayer_branch_on_output",
    schedule="0 6 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):
    # Nodes on the branch that the workflow itself did not take are skipped, which is no failure.
    triage = PromptLayerRunWorkflowOperator(
        task_id="triage",
        workflow_id_or_name="Triage ticket",
        workflow_label_name="production",
        input_variables={"ticket": "{{ params.ticket }}"},
        retries=2,
    )

    @task.branch
    def route(kind: str) -> str:
        return "apologise" if kind == "complaint" else "answer"

    @task
    def apologise(outputs: dict[str, str]) -> None:
        print(outputs["Draft apology"])

    @task
    def answer(outputs: dict[str, str]) -> None:
        print(outputs["Answer question"])

    route(triage.output["Classify"]) >> [apologise(triage.output), answer(triage.output)]
