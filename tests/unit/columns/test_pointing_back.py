# SPDX-License-Identifier: Apache-2.0
"""Columns that a task has pointed at other versions, when the task is ended while deferred."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.columns import config
from support.kinds import Serve
from support.modes import Store, rebuilt
from support.needs import needs_on_kill
from support.starts import deferred
from support.triggerer import TriggererTaskInstance

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunTableOperator
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.testing import Column, LocalPromptLayer, Reply, Sheet, Table

pytestmark = needs_on_kill

Log = Callable[[], str]
CONFIG = {"template": {"name": "Reply", "label": "prod"}}
STAGING = {"template": {"name": "Reply", "label": "staging"}}
ANSWER = Column("Answer", config=CONFIG, is_stale=False, cell_duration=0.02)
OTHER = Column("Other", cell_duration=3600.0)
SHEET = Sheet("Answers", [OTHER, ANSWER], row_count=3)
TABLE = Table("Support", [SHEET])


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(LocalPromptLayer([], tables=[TABLE]))


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Airflow says of the task: a state, or an error."""
    says: list[Any] = ["failed"]

    def states_of(tis: list[Any]) -> list[str]:
        if isinstance(says[0], Exception):
            raise says[0]
        return says * len(tis)

    monkeypatch.setattr(version_compat, "ON_KILL_IS_AMBIGUOUS", True)
    monkeypatch.setattr(version_compat, "states_of", states_of)
    policy = replace(retries.ASKING_AIRFLOW, give_up_after=0.9)
    monkeypatch.setattr(retries, "ASKING_AIRFLOW", policy)
    return says


def waiting(**arguments: Any) -> Any:
    """Return the trigger of a task that has pointed the column, in a triggerer."""
    task = PromptLayerRunTableOperator(
        task_id="task",
        table="Support",
        sheet="Answers",
        column_versions={"Answer": {"label": "staging"}},
        restore=True,
        poke_interval=0.02,
        **arguments,
    )
    trigger = rebuilt(deferred(task, Store()).trigger)
    trigger.task_instance = TriggererTaskInstance()
    return trigger


def waiting_for_others(server: LocalPromptLayer) -> Any:
    """Return the trigger of a task that has nothing to start, and waits for another's cells."""
    server.start_operation(TABLE.id, SHEET.id, column_ids=[OTHER.id])
    trigger = waiting(statuses=["FAILED"])
    assert len(server.operations) == 1
    assert config(server) == STAGING
    return trigger


def is_cancelled(server: LocalPromptLayer) -> bool:
    return any(each.cancelled_at is not None for each in server.operations.values())


def test_before_the_job_is_cancelled(server: LocalPromptLayer, states: list[Any]) -> None:
    """The sheet is busy until then, and a try after a clear waits for that."""
    asyncio.run(waiting().on_kill())
    assert config(server) == CONFIG
    sent = [each.method for each in server.requests if each.method in ("PATCH", "DELETE")]
    assert sent == ["PATCH", "PATCH", "DELETE"]
    assert is_cancelled(server)


def test_trouble_with_the_columns_does_not_keep_the_job(
    server: LocalPromptLayer, states: list[Any], log: Log
) -> None:
    trigger = waiting()
    server.script(Reply(400), method="PATCH")
    asyncio.run(trigger.on_kill())
    assert config(server) == STAGING
    assert is_cancelled(server)
    assert "Could not point these columns back: column 'Answer'" in log()


def test_where_nothing_can_be_cancelled(server: LocalPromptLayer, states: list[Any]) -> None:
    asyncio.run(waiting_for_others(server).on_kill())
    assert config(server) == CONFIG
    assert not is_cancelled(server)


def test_when_the_time_is_up(server: LocalPromptLayer, states: list[Any]) -> None:
    trigger = waiting()
    trigger._state = replace(trigger.state, deadline=0.0)
    asyncio.run(trigger.on_kill())
    assert config(server) == CONFIG
    assert not is_cancelled(server)


@pytest.mark.parametrize("state", ["deferred", "running", RuntimeError("away")], ids=str)
@pytest.mark.parametrize("is_own", [True, False])
def test_not_while_another_try_may_wait(
    server: LocalPromptLayer, states: list[Any], state: Any, is_own: bool, log: Log
) -> None:
    states[:] = [state]
    trigger = waiting() if is_own else waiting_for_others(server)
    asyncio.run(trigger.on_kill())
    assert config(server) == STAGING
    assert not is_cancelled(server)
    by_hand = "cancel it in PromptLayer and point these back: column 'Answer'"
    assert (by_hand in log()) == isinstance(state, Exception)
