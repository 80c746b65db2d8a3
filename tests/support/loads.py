# SPDX-License-Identifier: Apache-2.0
"""A sheet to load rows into, a task that does so, and what is in the sheet then."""

from __future__ import annotations

from typing import Any

import requests

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerLoadSheetOperator
from airflow_provider_promptlayer.testing import Column, LocalPromptLayer, Sheet, Table
from support.clocks import timed_by_polls
from support.modes import Ending, FakeTaskInstance, run_task

CASES = Sheet("Cases", [Column("Question", type="TEXT")], rows=[{"Question": "Who?"}])
TABLE = Table("Answers", [CASES])
ROWS = [{"Question": "What?"}, {"Question": "When?"}]
OPERATIONS = f"/api/public/v2/tables/{TABLE.id}/sheets/operations/"

LOST: dict[str, Any] = {"method": "POST", "acted_on": True}
"""PromptLayer acts on the request, and the answer is lost."""


def new_server(**how: Any) -> LocalPromptLayer:
    """Return a server at which a second passes with each poll."""
    return timed_by_polls([], **{"tables": [TABLE], "import_duration": 2.0, **how})


def load(number: int = 1, *, max_tries: int = 2, **arguments: Any) -> Ending:
    """Run a try of a task that loads rows."""
    given = {"table": "Answers", "sheet": "Cases", "rows": ROWS, **arguments}
    return run_task(
        lambda: PromptLayerLoadSheetOperator(
            task_id="task", poke_interval=0.02, retries=2, **given
        ),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
    )


def questions(server: LocalPromptLayer, sheet_id: str = CASES.id) -> list[Any]:
    """Return what is in the column of a sheet."""
    path = f"/api/public/v2/tables/{TABLE.id}/sheets/{sheet_id}/rows"
    answer = requests.get(
        server.url + path, headers={"X-API-KEY": server.api_key}, timeout=60
    ).json()
    (column,) = [each["id"] for each in answer["columns"] if each["title"] == "Question"]
    return [row["cells"][column]["value"] for row in answer["data"]]
