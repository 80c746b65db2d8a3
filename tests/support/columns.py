# SPDX-License-Identifier: Apache-2.0
"""A sheet with a column that uses a prompt, and a task that points it at another version."""

from __future__ import annotations

from typing import Any

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunTableOperator
from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Sheet,
    Table,
)
from support.modes import Ending, FakeTaskInstance, Store, run_task

CONFIG = {
    "template": {"name": "Reply", "label": "prod", "workspace": 1},
    "prompt_template_variable_mappings": {"q": "Question"},
    "engine": {"model": "gpt-4o"},
}
STAGED: dict[str, Any] = {"name": "Reply", "workspace": 1, "label": "staging"}
STAGING = {**CONFIG, "template": STAGED}
DEV = {**CONFIG, "template": {"name": "Reply", "workspace": 1, "label": "dev"}}
COLUMNS = [
    Column("Question", type="TEXT"),
    Column("Answer", config=CONFIG, is_stale=False, cell_duration=0.5),
    Column("Is good", type="LLM_ASSERTION", is_stale=False),
]
SHEET = Sheet("Answers", COLUMNS, row_count=3)
TABLE = Table("Support", [SHEET])
PUT_BACK: dict[str, Any] = {"restore": True}


def make(**arguments: Any) -> PromptLayerRunTableOperator:
    given = {"column_versions": {"Answer": {"label": "staging"}}, **arguments}
    return PromptLayerRunTableOperator(
        task_id="task", retries=2, table="Support", sheet="Answers", poke_interval=0.02, **given
    )


def run(
    store: Store | None = None, number: int = 1, max_tries: int = 2, **arguments: Any
) -> Ending:
    return run_task(
        lambda: make(**arguments),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
        **({} if store is None else {"task_state_store": store}),
    )


def config(server: LocalPromptLayer) -> Any:
    """Return the configuration of the column now."""
    return server.tables[0].sheets[0].columns[1].config
