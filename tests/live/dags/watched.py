# SPDX-License-Identifier: Apache-2.0
"""A DAG that starts when a label moves, and then has nothing to do."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

from airflow_provider_promptlayer.version_compat import HAS_ASSET_WATCHERS

if HAS_ASSET_WATCHERS:
    from airflow.sdk import Asset, AssetWatcher

    from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerVersionEventTrigger

    moves = PromptLayerVersionEventTrigger(
        prompt="Watched", release_label="prod", poke_interval=1.0
    )
    watched = Asset("live_watched", watchers=[AssetWatcher(name="moves", trigger=moves)])

    with DAG(
        dag_id="live_watched", schedule=[watched], start_date=datetime(2026, 1, 1), catchup=False
    ):
        EmptyOperator(task_id="nothing")
