# SPDX-License-Identifier: Apache-2.0
"""DAGs that start when a label moves, each that of a prompt of its own, and then do nothing."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger

for number in range(20):
    name = f"bench_moves_{number}"
    trigger = PromptLayerVersionEventTrigger(prompt=name, release_label="prod")
    asset = Asset(name, watchers=[AssetWatcher(name="moves", trigger=trigger)])
    with DAG(dag_id=name, schedule=[asset], start_date=datetime(2026, 1, 1), catchup=False):
        EmptyOperator(task_id="nothing")
