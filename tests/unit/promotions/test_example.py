# SPDX-License-Identifier: Apache-2.0
"""What the functions and edges of the example DAG promote_on_new_version do."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from support.kinds import Serve
from support.modes import run_task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerPromoteOperator
from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt
from airflow_provider_promptlayer.version_compat import HAS_ASSET_WATCHERS

ROOT = Path(__file__).parents[3]
PROMPT = "Support reply"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the DAG file defines."""
    path = ROOT / "example_dags" / "promote_on_new_version.py"
    scope: dict[str, Any] = {"__name__": "example_dag", "__file__": str(path)}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), scope)
    return scope


def event(version: int, minute: int) -> Any:
    """Return an event as the asset watcher makes it."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    return SimpleNamespace(timestamp=when, extra={"payload": {"version": version}})


UNSORTED = [event(7, 1), event(9, 3), event(8, 2)]


def test_the_version_of_the_last_event(example: dict[str, Any]) -> None:
    """Also where the label was moved back: the last event counts, not the highest version."""
    new_version = example["new_version"].function
    assert new_version({"version": 1}, {"staging": UNSORTED}) == 9
    assert new_version({"version": 1}, {"staging": [event(2, 5), *UNSORTED]}) == 2


def test_a_person_who_triggers_the_dag_has_to_give_a_version(example: dict[str, Any]) -> None:
    new_version, dag = example["new_version"].function, example["promote"].dag
    assert dag.params["version"] is None
    dag.params.validate()
    assert new_version({"version": 4}) == 4
    with pytest.raises(AirflowFailException, match="Give a version in the params"):
        new_version({"version": None})


def test_a_label_that_a_person_moves_meanwhile_stays(example: dict[str, Any], serve: Serve) -> None:
    """The version in production is read before the evaluation, and promote expects that one."""
    promote = example["promote"]
    read_first = example["version_in_production"].function
    labels = {"prod": 2}
    server = serve(LocalPromptLayer(prompts=[Prompt(PROMPT, latest_version=4, labels=labels)]))
    before = read_first()
    assert promote.expected_version.operator.task_id == "version_in_production"
    assert "version_in_production" in promote.dag.get_task("evaluate").upstream_task_ids
    server.move_label("prod", 1, prompt=PROMPT)

    def task() -> Any:
        return PromptLayerPromoteOperator(
            task_id="task", prompt=PROMPT, version=4, expected_version=before
        )

    ending = run_task(task)
    assert ending.kind == "failed for good", ending
    assert server.labels(prompt=PROMPT) == {"prod": 1}


def test_without_a_label_in_production(example: dict[str, Any], serve: Serve) -> None:
    serve(LocalPromptLayer(prompts=[Prompt(PROMPT, latest_version=4, labels={})]))
    with pytest.raises(AirflowFailException, match="has no label prod"):
        example["version_in_production"].function()


# The provider refuses a watcher there when the DAG is parsed: test_version_events.py.
@pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 2 has no watchers")
def test_the_version_of_the_last_event_as_the_guide_reads_it() -> None:
    guide = (ROOT / "docs" / "guides" / "new-versions.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from airflow.sdk import DAG, Asset.*?)```", guide, re.S)
    scope: dict[str, Any] = {}
    exec(compile(code, "new-versions.md", "exec"), scope)

    class Events:
        """Takes an asset as Airflow's own mapping does, also where it is no key of a dict (3.0)."""

        def __getitem__(self, asset: Any) -> list[Any]:
            return {scope["asset"].name: UNSORTED}[asset.name]

    assert scope["new_version"].function(Events()) == 9
