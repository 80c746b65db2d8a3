# SPDX-License-Identifier: Apache-2.0
"""The base of tasks that start nothing to wait for, with the arguments that name a sheet."""

from __future__ import annotations

from typing import Any

import pytest
from support.arguments import AT_RUN_TIME
from support.kinds import at
from support.modes import FakeTaskInstance, run_task

from airflow_provider_promptlayer.api.cells import SheetCells
from airflow_provider_promptlayer.bases.caller import PromptLayerCaller
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS, SheetArguments
from airflow_provider_promptlayer.exceptions import PromptLayerTransientError
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply


class CountCells(SheetArguments, PromptLayerCaller):
    template_fields = SHEET_FIELDS

    def perform(self, context: Any) -> int:
        cells = self.on_sheet(SheetCells)
        return self.call(cells.fetch_call(), about=cells.name).total_cells


@pytest.mark.parametrize(
    ("change", "replies", "kind", "says"),
    [
        ({}, [], "success", ""),
        ({}, [Reply(503)] * 3, "success", ""),
        ({"max_outage": 0.0}, [Reply(503)], "failed", "has succeeded since"),
        ({"sheet_id": "x"}, [], "failed for good", "sheet_id must be a UUID"),
        ({"sheet_id": at("good")["table_id"]}, [], "failed for good", "HTTP 404"),
    ],
    ids=str,
)
def test_ends_as_airflow_expects(
    change: dict[str, Any], replies: list[Reply], kind: str, says: str, server: LocalPromptLayer
) -> None:
    for reply in replies:
        server.script(reply)
    ending = run_task(
        lambda: CountCells(task_id="count", **{**at("good"), **change}, **AT_RUN_TIME)
    )
    assert (ending.kind, ending.value) == (kind, 6 if kind == "success" else None), ending
    assert says in ending.message


def test_creates_nothing_once_it_is_being_stopped(server: LocalPromptLayer) -> None:
    class Recalculate(CountCells):
        def perform(self, context: Any) -> Any:
            self.on_kill()
            with pytest.raises(PromptLayerTransientError, match="being stopped"):
                self.hook.run_scorecard(**at("good"))

    context: Any = {"ti": FakeTaskInstance()}
    Recalculate(task_id="t", **at("good")).execute(context)
    assert server.count("POST") == 0
