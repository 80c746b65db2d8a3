# SPDX-License-Identifier: Apache-2.0
"""Saved versions of a sheet: saved once under a name, and the scores that later ones drop from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.arguments import AT_RUN_TIME
from support.kinds import SHEETS, TABLE, at
from support.modes import Ending, FakeTaskInstance, run_task
from support.starts import RUN_SCORECARD

from airflow_provider_promptlayer.exceptions import PromptLayerStartUncertainError
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerSnapshotSheetOperator
from airflow_provider_promptlayer.testing import (
    Close,
    Criterion,
    LocalPromptLayer,
    Reply,
    Scorecard,
)

Log = Callable[[], str]
WHERE = TABLE.id, SHEETS["good"].id


def task(name: Any = "monday", **arguments: Any) -> PromptLayerSnapshotSheetOperator:
    where = arguments or at("good")
    return PromptLayerSnapshotSheetOperator(
        task_id="task", retries=2, name=name, **where, **AT_RUN_TIME
    )


def save(name: Any = "monday", **arguments: Any) -> Ending:
    made = task("{{ params.name }}", **arguments)
    made.name = name  # as the template is rendered
    return run_task(lambda: made, FakeTaskInstance())


def saved() -> list[str | None]:
    """Return the names of all versions, the newest first."""
    hook = PromptLayerHook()
    try:
        return [version.name for version in hook.get_versions(*WHERE).items]
    finally:
        hook.close()


def test_a_version_is_saved_once_under_a_name(server: LocalPromptLayer) -> None:
    first = save()
    assert first.kind == "success"
    assert {**first.value, "version_id": "?"} == {
        "version_id": "?",
        "version_number": 1,
        "name": "monday",
        "score": None,
    }
    assert save("tuesday").value["version_number"] == 2
    assert save().value == first.value  # a retry, or a task that was cleared
    assert save("mon").value["version_number"] == 3
    assert save("Monday").value["version_number"] == 4
    assert saved() == ["Monday", "mon", "tuesday", "monday"]


def test_titles_of_table_and_sheet(server: LocalPromptLayer) -> None:
    assert save(20260131, table=TABLE.title, sheet="good").value["name"] == "20260131"
    assert saved() == ["20260131"]


def test_a_name_is_found_on_any_page(server: LocalPromptLayer) -> None:
    hook = PromptLayerHook()
    try:
        first = hook.save_version(*WHERE, "first")
        for number in range(100):
            hook.call(_another(number))
        assert hook.save_version(*WHERE, "first") == first
        assert hook.get_version(*WHERE, first.version_id or "") == first
    finally:
        hook.close()
    assert "first" not in saved()  # which is a page of a hundred


def _another(number: int) -> Any:
    from airflow_provider_promptlayer.api.tables import Sheet
    from airflow_provider_promptlayer.api.versions import create_version

    return create_version(Sheet(*WHERE), f"version {number}")


@pytest.mark.parametrize("acted_on", [True, False], ids=["arrived", "lost"])
@pytest.mark.parametrize("fault", [Close(), Reply(502, "<html>")], ids=["closed", "502"])
@pytest.mark.parametrize("is_async", [False, True], ids=["hook", "async hook"])
def test_a_lost_answer_saves_nothing_twice(
    server: LocalPromptLayer, acted_on: bool, fault: Any, is_async: bool
) -> None:
    server.script(fault, method="POST", acted_on=acted_on)
    hook = PromptLayerHook()
    try:
        if is_async:
            version = asyncio.run(hook.asave_version(*WHERE, "monday"))
        else:
            version = hook.save_version(*WHERE, "monday")
    finally:
        hook.close()
    assert (version.version_number, version.name) == (1, "monday")
    assert saved() == ["monday"]


def test_answers_that_are_lost_again_and_again(server: LocalPromptLayer) -> None:
    with server.script(Close(), method="POST", times=None):
        ending = save()
    assert isinstance(ending.error, PromptLayerStartUncertainError)
    assert saved() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": ""}, "name must be a text of 1 to 255 characters"),
        ({"name": None}, "name must be a text of 1 to 255 characters"),
        ({"name": "x" * 256}, "name must be a text of 1 to 255 characters"),
        ({"table": TABLE.title, "sheet": "god"}, "titled 'god'"),
        ({"table_id": TABLE.id, "sheet_id": TABLE.id}, "Sheet not found"),
    ],
    ids=str,
)
def test_what_is_refused(server: LocalPromptLayer, arguments: dict[str, Any], says: str) -> None:
    ending = save(**arguments)
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert not any(request.method == "POST" for request in server.requests)


def test_a_task_that_is_stopped_saves_nothing(server: LocalPromptLayer) -> None:
    stopped = task()
    stopped.on_kill()
    assert run_task(lambda: stopped, FakeTaskInstance()).kind == "failed"
    assert saved() == []


def card(score: float, *criteria: str) -> Scorecard:
    return Scorecard(
        "Quality", [Criterion(title) for title in criteria or ("Polite",)], score=score
    )


def judge(server: LocalPromptLayer, scorecard: Scorecard, **arguments: Any) -> Ending:
    server.use_scorecard(*WHERE, scorecard)
    return RUN_SCORECARD.run(**{"max_drop": 0.02, **arguments})


def test_a_gate_compares_with_the_versions_that_were_saved(
    server: LocalPromptLayer, log: Log
) -> None:
    assert judge(server, card(0.95)).kind == "success"
    assert "There is no earlier score to compare with yet" in log()
    assert save("monday").value["score"] == 0.95
    ending = judge(server, card(0.9))
    assert "the score 0.9 is 0.05 below the 0.95 of version 1 'monday'" in ending.message
    # A failure is no score to compare with, as no version was saved after it.
    assert "of version 1 'monday'" in judge(server, card(0.9)).message
    assert judge(server, card(0.94)).kind == "success"
    save("tuesday")
    assert judge(server, card(0.925)).kind == "success"
    assert "The score 0.925 is 0.015 below the 0.94 of version 2 'tuesday'; max_drop is" in log()
    ending = judge(server, card(0.925), baseline="monday")
    assert "0.025 below the 0.95 of version 1 'monday'" in ending.message


def test_scores_of_another_configuration_are_not_compared(
    server: LocalPromptLayer, log: Log
) -> None:
    judge(server, card(0.95))
    save("monday")
    assert judge(server, card(0.1, "Polite", "Cites a source")).kind == "success"
    assert "was not compared with the 0.95 of version 1 'monday', because the scorecard" in log()
    assert judge(server, card(0.1)).kind == "failed for good"


def test_without_a_version_the_calculation_before_counts(server: LocalPromptLayer) -> None:
    judge(server, card(0.95))
    (before,) = server.calculations
    ending = judge(server, card(0.9))
    assert f"0.05 below the 0.95 of calculation {before}" in ending.message
