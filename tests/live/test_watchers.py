# SPDX-License-Identifier: Apache-2.0
"""What waits in a triggerer that is killed, or that another one takes over from."""

from __future__ import annotations

from itertools import pairwise

import pytest
from live.runs import SECONDS, Run
from sqlalchemy import create_engine, text
from support.needs import HAS_TASK_STATE, needs_task_state

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_stack import AirflowStack

RUNNING = "promptlayer_run_and_use_output"
WATCHED = "live_watched"
"""The DAG, and the asset that starts it."""


def moves(stack: AirflowStack) -> list[tuple[int, int]]:
    """Return (previous version, version) of each event so far."""
    payloads = [event["payload"] for event in stack.db.asset_events(WATCHED)]
    return [(each["previous_version"], each["version"]) for each in payloads]


def move(promptlayer: LocalPromptLayer) -> int:
    """Move the watched label to a new version."""
    version = promptlayer.add_version(prompt="Watched")
    promptlayer.move_label("prod", version, prompt="Watched")
    return version


def wait_until_reported(stack: AirflowStack, version: int) -> None:
    """Wait until the watcher has noted that Airflow has stored the event."""

    def is_noted() -> bool:
        kept = stack.db.asset_states(WATCHED)
        return [(each["reported"], each["claimed"]) for each in kept] == [(version, None)]

    stack.wait_for(is_noted, SECONDS, f"version {version} to be reported")


def hand_over(stack: AirflowStack, triggerer: int) -> None:
    """Give the watcher to a triggerer, as Airflow does when another one seems to be dead."""
    engine = create_engine(stack.database_url)
    update = (
        "UPDATE trigger SET triggerer_id = :id WHERE id IN (SELECT trigger_id FROM asset_watcher"
        " WHERE asset_id IN (SELECT id FROM asset WHERE name = :name))"
    )
    with engine.begin() as connection:
        connection.execute(text(update), {"id": triggerer, "name": WATCHED})
    engine.dispose()


@pytest.fixture(scope="module")
def after_a_kill(stack: AirflowStack, promptlayer: LocalPromptLayer) -> tuple[Run, list[int]]:
    """A run that waited in the triggerer, and the versions to which a watched label led.

    The watcher has reported the first and the second, and it was dead while ten more came.
    """
    run = Run(stack, RUNNING, stack.trigger_dag(RUNNING))
    versions = [1, 2]
    if HAS_TASK_STATE:
        wait_until_reported(stack, versions[0])
        assert move(promptlayer) == versions[1]
        wait_until_reported(stack, versions[1])
    stack.wait_for(
        lambda: run.poll() or "deferred" in run.seen["write_article", -1], SECONDS, "a deferral"
    )
    (name,) = [one.name for one in stack.components.running() if "triggerer" in one.name]
    stack.kill(name)
    versions += [move(promptlayer) for _ in range(10)]
    stack.start_triggerer()
    stack.wait_for(run.poll, SECONDS, "the run to end")
    return run, versions


def test_killed_triggerer_loses_no_wait(
    promptlayer: LocalPromptLayer, after_a_kill: tuple[Run, list[int]]
) -> None:
    run, _ = after_a_kill
    assert run.state == "success"
    assert "deferred" in run.seen["write_article", -1]
    started = [
        execution
        for execution in promptlayer.executions.values()
        if (execution.metadata or {}).get("airflow_run_id") == run.run_id
    ]
    assert len(started) == 1


@needs_task_state
def test_killed_triggerer_loses_no_event_and_repeats_none(
    stack: AirflowStack, promptlayer: LocalPromptLayer, after_a_kill: tuple[Run, list[int]]
) -> None:
    """Ten moves come about while no watcher runs: the last one is reported, once."""
    _, versions = after_a_kill
    wait_until_reported(stack, versions[-1])
    last = move(promptlayer)
    wait_until_reported(stack, last)
    assert moves(stack) == [(1, 2), (2, versions[-1]), (versions[-1], last)]


@needs_task_state
def test_two_triggerers_that_hold_a_watcher_for_a_moment_report_no_event_twice(
    stack: AirflowStack, promptlayer: LocalPromptLayer
) -> None:
    """A label moves right when the watcher is handed over, there and back."""
    before = moves(stack)
    one = stack.db.newest_job("TriggererJob")
    added = stack.start_triggerer()
    other = stack.db.newest_job("TriggererJob")
    versions = [promptlayer.labels(prompt="Watched")["prod"]]
    wait_until_reported(stack, versions[0])
    for triggerer in (other, one):
        hand_over(stack, triggerer)
        versions.append(move(promptlayer))
        stack.wait_for(lambda: moves(stack)[-1:] == [(*versions[-2:],)], SECONDS, "the event")
    wait_until_reported(stack, versions[-1])
    stack.kill(added.name)
    assert moves(stack)[len(before) :] == list(pairwise(versions))
