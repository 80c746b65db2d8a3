# SPDX-License-Identifier: Apache-2.0
"""Every night: evaluate the prompt in production, and undo its promotion if the score has dropped.

The night is red then, as a DAG run is whose last task did not run: here that is the snapshot.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, task

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerPromoteOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerSnapshotSheetOperator,
)

PROMPT = "Support reply"  # give your own, and the column that uses it
COLUMN = "Answer"
# Not the sheet of promote_on_new_version.py, whose column leads to the version that comes next.
SHEET: dict[str, Any] = {"table": "Support answers", "sheet": "In production"}
PRODUCTION = Asset("support_reply_prod")  # an outlet of the task that promotes

with DAG(
    dag_id="promptlayer_roll_back_on_drop",
    schedule="0 3 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):

    @task(inlets=[PRODUCTION])
    def last_promotion(inlet_events: Any = None) -> dict[str, Any]:
        """Return what was promoted last, before the evaluation: version and previous_version."""
        for event in reversed(inlet_events[PRODUCTION]):
            # A promotion of what was in production already has moved nothing.
            if event.extra.get("previous_version") != event.extra.get("version"):
                return dict(event.extra)
        return {}

    recalculate = PromptLayerRunTableOperator(
        task_id="recalculate",
        **SHEET,
        column_versions={COLUMN: {"label": "prod"}},
        statuses="all",  # a label that has moved makes no cell stale
        fail_on="never",  # the scorecard says what a row without an answer is worth
    )

    gate = PromptLayerRunScorecardOperator(
        task_id="gate",
        **SHEET,
        max_drop=0.02,  # against the score of the last snapshot
    )

    # Only a night that passes is one to compare the next with.
    snapshot = PromptLayerSnapshotSheetOperator(task_id="snapshot", **SHEET, name="{{ run_id }}")

    @task(trigger_rule="one_failed", retries=0)
    def undo(promotion: dict[str, Any], ti: Any = None) -> dict[str, Any]:
        """Return the promotion, if a score has failed the gate: an outage takes nothing back."""
        score, verdict = (
            ti.xcom_pull(task_ids="gate", key=f"promptlayer_{name}")
            for name in ("score", "verdict")
        )
        if score is None or verdict == "error":  # that is no judgement either
            raise AirflowFailException("The gate has no score, so prod stays where it is.")
        if not promotion:
            raise AirflowFailException("No promotion is known, so prod stays where it is.")
        return promotion

    promotion: Any = last_promotion()
    undone: Any = undo(promotion)

    # Fails if prod does not lead to the promoted version any more.
    roll_back = PromptLayerPromoteOperator(
        task_id="roll_back",
        prompt=PROMPT,
        version=undone["previous_version"],
        release_label="prod",
        expected_version=undone["version"],
    )

    promotion >> recalculate >> gate >> [snapshot, undone]
