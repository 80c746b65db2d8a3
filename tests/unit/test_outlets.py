# SPDX-License-Identifier: Apache-2.0
"""What a task puts into the events of the assets in its ``outlets``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias
from support.kinds import Serve, at, new_server, workflow
from support.modes import FakeTaskInstance, run_task
from support.starts import RUN_REPORT, RUN_SCORECARD, RUN_TABLE, RUN_WORKFLOW, Start

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerPromoteOperator,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt

try:
    from airflow.sdk.execution_time.context import OutletEventAccessors
except ImportError:  # Airflow 2
    from airflow.utils.context import OutletEventAccessors

ASSET = Asset("s3://bucket/judged")
VERSION = "1"
"""Of the sheet that a scorecard has judged, as PromptLayer writes it."""


def extra_of(make: Any, *, fate: str = "success") -> dict[str, Any]:
    """Run a task that has an asset and an alias as outlets; return the extra of the event."""
    events: Any = OutletEventAccessors()
    outlets = [ASSET, AssetAlias("alias")]
    assert run_task(lambda: make(outlets), FakeTaskInstance(), outlet_events=events).kind == fate
    extra: dict[str, Any] = events[ASSET].extra
    assert json.loads(json.dumps(extra)) == extra
    return extra


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (RUN_SCORECARD, {"score": 0.9, "verdict": "pass", "version": VERSION}),
        (RUN_REPORT, {"score": 90.0}),
    ],
    ids=["scorecard", "report"],
)
def test_of_an_evaluation(
    start: Start, expected: dict[str, Any], server: LocalPromptLayer, deferrable: bool
) -> None:
    extra = extra_of(lambda outlets: start.make("good", outlets=outlets, deferrable=deferrable))
    assert expected.items() <= extra.items()
    assert extra[start.kind.id_name] in start.started(server)
    assert not any(isinstance(value, (list, dict)) for value in extra.values())


def test_of_a_gate_that_fails(server: LocalPromptLayer) -> None:
    def make(outlets: Any) -> Any:
        return RUN_SCORECARD.make("bad", outlets=outlets, deferrable=False)

    assert extra_of(make, fate="failed for good") == {}


@pytest.mark.parametrize("start", [RUN_WORKFLOW, RUN_TABLE], ids=["workflow", "table"])
def test_of_outputs_and_of_counts_of_cells_nothing(start: Start, server: LocalPromptLayer) -> None:
    """An output of a node may be a secret, or long."""
    assert extra_of(lambda outlets: start.make("good", outlets=outlets, deferrable=False)) == {}


def test_of_a_promotion(serve: Serve) -> None:
    serve(LocalPromptLayer([workflow("good")], prompts=[Prompt("Reply", latest_version=3)]))
    extra = extra_of(
        lambda outlets: PromptLayerPromoteOperator(
            task_id="task", prompt="Reply", version=3, outlets=outlets
        )
    )
    assert extra == {"label": "prod", "version": 3, "previous_version": None}


def test_of_an_export(serve: Serve, tmp_path: Path) -> None:
    serve(new_server())
    file = tmp_path / "rows.jsonl"
    extra = extra_of(
        lambda outlets: PromptLayerExportSheetOperator(
            task_id="task", **at("good"), to=str(file), return_rows=True, outlets=outlets
        )
    )
    assert str(file) in map(str, extra.values())
    assert extra["sheet_id"] == at("good")["sheet_id"]
    assert "rows" not in extra or isinstance(extra["rows"], int)
