# SPDX-License-Identifier: Apache-2.0
"""When the staging label moves: evaluate that version, have it approved, and promote it.

A version that scores less than `min_score` is not promoted: what follows its gate is skipped.
Triggered by hand, the DAG takes the `version` of its params.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    Asset,
    Param,
    task,
)

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerPromoteOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
)

PROMPT = "Support reply"  # give your own, and the column that uses it
COLUMN = "Answer"
SHEET: dict[str, Any] = {"table": "Support answers", "sheet": "Regression set"}

try:
    from airflow.sdk import AssetWatcher
except ImportError:  # Airflow 2 has no watchers: trigger the DAG with the version
    schedule = None
else:
    from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger

    moves = PromptLayerVersionEventTrigger(prompt=PROMPT, release_label="staging")
    staging = Asset("support_reply_staging", watchers=[AssetWatcher(name="moves", trigger=moves)])
    schedule = [staging]

ApprovalOperator: Any = None  # there is none before Airflow 3.1
with suppress(ImportError, AirflowException):
    from airflow.providers.standard.operators.hitl import ApprovalOperator

PARAMS: Any = {"version": Param(None, type=["null", "integer"], minimum=1), "min_score": 0.8}

with DAG(
    dag_id="promptlayer_promote_on_new_version",
    schedule=schedule,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # one version after the other
    params=PARAMS,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):

    @task
    def new_version(params: Any = None, triggering_asset_events: Any = None) -> int:
        """Return the version of the last event; that of the params where a person has triggered."""
        events = [event for found in (triggering_asset_events or {}).values() for event in found]
        if not events and params["version"] is None:
            raise AirflowFailException("Give a version in the params of the DAG run.")
        if not events:
            return int(params["version"])
        # A DAG run that had to wait for another one has several events, in no order.
        return int(max(events, key=lambda event: event.timestamp).extra["payload"]["version"])

    @task
    def version_in_production() -> int:
        """Return the version that the label prod leads to before anything is evaluated."""
        labels = PromptLayerHook().get_labels(prompt=PROMPT)
        if "prod" not in labels:
            raise AirflowFailException(f"{PROMPT} has no label prod: create it in PromptLayer.")
        return labels["prod"]

    version = new_version()
    in_production = version_in_production()

    evaluate = PromptLayerRunTableOperator(
        task_id="evaluate",
        **SHEET,
        column_versions={COLUMN: {"version": version}},
        statuses="all",  # a new version of the prompt makes no cell stale
        fail_on="never",  # the scorecard says what a row without an answer is worth
    )

    # What does not pass is no failure here: everything downstream is skipped.
    gate = PromptLayerRunScorecardOperator(
        task_id="gate", **SHEET, min_score="{{ params.min_score }}", soft_fail=True
    )

    # Fails if somebody has moved the label while this DAG run evaluated and waited for approval.
    promote = PromptLayerPromoteOperator(
        task_id="promote",
        prompt=PROMPT,
        version=version,
        release_label="prod",
        expected_version=in_production,
        outlets=[Asset("support_reply_prod")],  # roll_back_on_drop.py reads its last event
    )

    in_production >> evaluate >> gate
    if ApprovalOperator is None:
        gate >> promote
    else:
        approve = ApprovalOperator(
            task_id="approve",
            subject=f"Promote {PROMPT} to production?",
            body="Version {{ ti.xcom_pull(task_ids='new_version') }} scored "
            "{{ ti.xcom_pull(task_ids='gate', key='promptlayer_score') }}.",
        )
        gate >> approve >> promote
