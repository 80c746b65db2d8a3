# SPDX-License-Identifier: Apache-2.0
"""What the functions and edges do of the example DAGs that promote and roll back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator, task
from support.kinds import Serve
from support.modes import run_task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerPromoteOperator
from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt
from airflow_provider_promptlayer.version_compat import HAS_ASSET_WATCHERS

ROOT = Path(__file__).parents[3]
PROMPT = "Support reply"


def names_of(file: str) -> dict[str, Any]:
    """Return the names that a DAG file defines."""
    path = ROOT / "example_dags" / file
    scope: dict[str, Any] = {"__name__": "example_dag", "__file__": str(path)}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), scope)
    return scope


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return names_of("promote_on_new_version.py")


@pytest.fixture(scope="module")
def roll_back() -> dict[str, Any]:
    return names_of("roll_back_on_drop.py")


def event(version: int, minute: int) -> Any:
    """Return an event as the asset watcher makes it."""
    when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    return SimpleNamespace(timestamp=when, extra={"payload": {"version": version}})


class Events:
    """Takes an asset as Airflow's own mapping does, also where it is no key of a dict (3.0)."""

    def __init__(self, asset: Any, events: list[Any]) -> None:
        self._by_uri = {asset.uri: events}

    def __getitem__(self, asset: Any) -> list[Any]:
        return self._by_uri[asset.uri]


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


def test_what_was_run_is_promoted(serve: Serve) -> None:
    """Not the version that the label staging leads to by then."""
    example = names_of("run_evaluate_promote.py")
    server = serve(LocalPromptLayer())
    assert (
        example["staged_version"].function()
        == server.labels(workflow=example["WORKFLOW"])["staging"]
    )
    for version in (example["run"].workflow_version_number, example["promote"].version):
        assert version.operator.task_id == "staged_version"


# The provider refuses a watcher there when the DAG is parsed: watchers/test_events.py.
@pytest.mark.skipif(not HAS_ASSET_WATCHERS, reason="Airflow 2 has no watchers")
def test_the_version_of_the_last_event_as_the_guide_reads_it() -> None:
    guide = (ROOT / "docs" / "guides" / "new-versions.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from airflow.sdk import DAG, Asset.*?)```", guide, re.S)
    scope: dict[str, Any] = {}
    exec(compile(code, "new-versions.md", "exec"), scope)

    assert scope["new_version"].function(Events(scope["asset"], UNSORTED)) == 9


PROMOTED = {"label": "prod", "version": 3, "previous_version": 2}


@pytest.fixture(scope="module")
def guide() -> dict[str, Any]:
    """Return what the rollback of the guide about promotions defines, below a gate."""
    page = (ROOT / "docs" / "guides" / "promote.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(promote = .*?)```", page, re.S)
    with DAG("guide", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
        scope = {
            "PromptLayerPromoteOperator": PromptLayerPromoteOperator,
            "check": BaseOperator(task_id="check"),
            "task": task,
        }
        exec(compile(code, "promote.md", "exec"), scope)
    dag.validate()
    return scope


@pytest.mark.parametrize(
    ("promotion", "is_taken_back"),
    [
        (PROMOTED, True),
        ({**PROMOTED, "previous_version": 3}, False),
        ({**PROMOTED, "previous_version": None}, False),
        (None, False),
    ],
    ids=["moved", "was there already", "a new label", "not reached"],
)
def test_what_the_rollback_of_the_guide_takes_back(
    promotion: dict[str, Any] | None, is_taken_back: bool, guide: dict[str, Any]
) -> None:
    ti = SimpleNamespace(xcom_pull={"promote": promotion}.__getitem__)
    assert guide["was_moved"].function(ti) is is_taken_back


def test_the_tasks_of_the_rollback_of_the_guide(guide: dict[str, Any]) -> None:
    was_moved, roll_back = guide["moved"].operator, guide["roll_back"]
    assert (was_moved.trigger_rule, roll_back.trigger_rule) == ("one_failed", "all_success")
    assert was_moved.upstream_task_ids == {"check"}
    assert roll_back.upstream_task_ids == {"was_moved"}
    released = roll_back.dag.get_task("released")
    assert released.upstream_task_ids == {"check"}
    assert not released.downstream_task_ids


class Gate:
    """The task instance that pulls what the gate has found."""

    def __init__(self, score: float | None = None, verdict: str | None = None) -> None:
        self._found = {"promptlayer_score": score, "promptlayer_verdict": verdict}

    def xcom_pull(self, *, task_ids: str, key: str) -> Any:
        assert task_ids == "gate"
        return self._found[key]


@pytest.mark.parametrize("verdict", ["fail", "pass"])
def test_a_score_takes_the_promotion_back(verdict: str, roll_back: dict[str, Any]) -> None:
    undo = roll_back["undo"].function
    assert undo(PROMOTED, Gate(0.0, verdict)) == PROMOTED
    task = roll_back["roll_back"]
    assert (task.version.key, task.expected_version.key) == ("previous_version", "version")
    assert {task.version.operator.task_id, *task.upstream_task_ids} == {"undo"}


@pytest.mark.parametrize(
    ("promotion", "gate", "says"),
    [
        (PROMOTED, Gate(), "no score"),
        (PROMOTED, Gate(0.0, "error"), "no score"),
        ({}, Gate(0.5, "fail"), "No promotion is known"),
    ],
    ids=["an outage", "what judges is out of order", "nothing was promoted"],
)
def test_what_takes_nothing_back(
    promotion: dict[str, Any], gate: Gate, says: str, roll_back: dict[str, Any]
) -> None:
    with pytest.raises(AirflowFailException, match=says):
        roll_back["undo"].function(promotion, gate)


def test_the_last_promotion_is_known_before_the_evaluation(roll_back: dict[str, Any]) -> None:
    asset = roll_back["PRODUCTION"]
    older = SimpleNamespace(extra={**PROMOTED, "version": 1})
    read = roll_back["last_promotion"].function
    assert read(Events(asset, [older, SimpleNamespace(extra=PROMOTED)])) == PROMOTED
    assert read(Events(asset, [])) == {}
    there = SimpleNamespace(extra={**PROMOTED, "previous_version": PROMOTED["version"]})
    assert read(Events(asset, [older, SimpleNamespace(extra=PROMOTED), there])) == PROMOTED
    assert read(Events(asset, [there])) == {}
    assert roll_back["recalculate"].upstream_task_ids == {"last_promotion"}


def test_a_night_that_fails_the_gate_is_a_failed_dag_run(roll_back: dict[str, Any]) -> None:
    """A task at the end of the DAG that did not run makes it one: the snapshot."""
    snapshot = roll_back["snapshot"]
    assert snapshot.upstream_task_ids == {"gate"}
    assert not snapshot.downstream_task_ids


def test_the_asset_of_the_promotion_is_that_of_the_rollback(
    example: dict[str, Any], roll_back: dict[str, Any]
) -> None:
    (outlet,) = example["promote"].outlets
    assert outlet == roll_back["PRODUCTION"]
