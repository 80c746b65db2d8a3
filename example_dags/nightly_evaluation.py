# SPDX-License-Identifier: Apache-2.0
"""Every night: recalculate a sheet, judge it by its scorecard, report, and alert if it fails.

In the params, `table` and `sheet` are titles, `min_score` is what the night has to score, and
`reports` a folder for the pages. The page of a night is at `reports`, whether or not it passed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerEvaluationReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerSnapshotSheetOperator,
)

# Those of the local PromptLayer. Give your own.
PARAMS: Any = {
    "table": "Support answers",
    "sheet": "Regression set",
    "min_score": 0.8,
    "reports": "file:///tmp",  # or "s3://aws_default@bucket/reports"
}

with DAG(
    dag_id="promptlayer_nightly_evaluation",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):
    recalculate = PromptLayerRunTableOperator(
        task_id="recalculate",
        table="{{ params.table }}",
        sheet="{{ params.sheet }}",
        # Every cell, also those that have a value: a new version of the prompt or workflow behind a
        # column makes no cell stale. On an unchanged sheet, stale and failed cells alone would be
        # none, and the scorecard would judge the answers of the last change again.
        statuses="all",
        fail_on="never",  # the scorecard says what a row without an answer is worth
        timeout=timedelta(hours=4),
    )

    # The gate: neither an outage nor a crash, but the verdict alone, fails it for good.
    gate = PromptLayerRunScorecardOperator(
        task_id="gate",
        table="{{ params.table }}",
        sheet="{{ params.sheet }}",
        min_score="{{ params.min_score }}",
        max_drop=0.02,  # against the score of the last version that was saved
        timeout=timedelta(hours=1),
    )

    # Only a night that passes is one to compare the next with.
    snapshot = PromptLayerSnapshotSheetOperator(
        task_id="snapshot",
        table="{{ params.table }}",
        sheet="{{ params.sheet }}",
        name="{{ run_id }}",
    )

    # A page for people, of each night: also of one that fails, and of one that the gate does not
    # reach, which has no calculation.
    report = PromptLayerEvaluationReportOperator(
        task_id="report",
        table="{{ params.table }}",
        sheet="{{ params.sheet }}",
        to="{{ params.reports }}/promptlayer-{{ run_id }}.html",
        calculation_id=(
            "{{ ti.xcom_pull(task_ids='gate', key='promptlayer_calculation_id') or '' }}"
        ),
        min_score="{{ params.min_score }}",
        usage="{{ ti.xcom_pull(task_ids='recalculate', key='promptlayer_usage') | tojson }}",
        trigger_rule="all_done",
    )
    # Send it with a task after this one, such as an EmailOperator: the page is made to be the
    # html_content of an e-mail, and the XCom of this task has its path, the score and the verdict.

    # What the scorecard found is in XCom whether or not it passed; without it there is none.
    @task(trigger_rule="one_failed", retries=0)
    def alert(ti: Any = None) -> None:
        score, verdict, criteria = (
            ti.xcom_pull(task_ids="gate", key=f"promptlayer_{name}")
            for name in ("score", "verdict", "criterion_summaries")
        )
        if verdict is None:
            print("The nightly evaluation has no verdict: the log of the failed task says why.")
        else:
            # Unchanged: PromptLayer does not document their shape.
            print(f"The nightly evaluation scored {score} ({verdict}). Criteria: {criteria}")

    # The snapshot comes last, too: where it was not reached, Airflow calls the whole run failed.
    recalculate >> gate >> [snapshot, report, alert()]
