# SPDX-License-Identifier: Apache-2.0
"""A load that dies when PromptLayer has the rows, and an export that dies between two pages."""

from __future__ import annotations

import itertools
import os
import signal
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerLoadSheetOperator,
)

SHEET = {"table": "Support cases", "sheet": "Crashes"}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingLoad(PromptLayerLoadSheetOperator):
    def get_job(self, context: Any) -> Any:
        job = super().get_job(context)
        if context["ti"].try_number == 1:
            die()
        return job


class DyingExport(PromptLayerExportSheetOperator):
    def perform(self, context: Any) -> Any:
        if context["ti"].try_number == 1:
            hook, numbers = self.hook, itertools.count()
            call = hook.call

            def call_twice(*args: Any, **kwargs: Any) -> Any:
                if next(numbers) == 2:
                    die()
                return call(*args, **kwargs)

            hook.call = call_twice
            self.__dict__["hook"] = hook
        return super().perform(context)


with DAG(dag_id="live_etl", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    retries = {"retries": 2, "retry_delay": timedelta(seconds=1)}
    load = DyingLoad(
        task_id="load", **SHEET, rows=[{"Question": f"{n}?"} for n in range(500)], **retries
    )
    export = DyingExport(
        task_id="export", **SHEET, to="s3://lake@evaluations/crashes/rows.parquet", **retries
    )
    load >> export
