# SPDX-License-Identifier: Apache-2.0
"""Promotions that take long, or several tries: the label is read again before each request."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support.killing import Killed, kill_at
from support.kinds import Serve
from support.modes import FakeTaskInstance, Store, run_task
from support.promotions import (
    COPY,
    PROMPT,
    WORKFLOW,
    after_request,
    changes,
    make,
    moved_to,
    new_server,
    promote,
)

from airflow_provider_promptlayer.exceptions import (
    PromptLayerApprovalNeededError,
    PromptLayerLabelMovedError,
)
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("to", [1, None, 5], ids=["moved", "not moved", "moved there"])
def test_moved_while_a_request_was_refused(
    server: LocalPromptLayer, which: dict[str, Any], status: int, to: int | None
) -> None:
    """The label is read again before the request is sent again, however often."""
    server.script(Reply(status, "{}", {"Retry-After": "0"}), method="PATCH", times=2)
    if to is not None:
        after_request(server, lambda: server.move_label("prod", to, **which))
    ending = promote(expected_version=3, **which)
    if to == 1:
        assert isinstance(ending.error, PromptLayerLabelMovedError)
        assert "leads to version 1, so it was moved since this task has read it" in (ending.message)
        assert server.labels(**which)["prod"] == 1
        assert server.count("PATCH") == 1
    else:
        version = 5 if to == 5 else moved_to(which)
        assert ending.value == {"label": "prod", "version": version, "previous_version": 3}
        assert server.labels(**which)["prod"] == version
        assert server.count("PATCH") == (1 if to == 5 else 3)


def test_moved_while_the_task_state_was_written(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    class SlowStore(Store):
        def set(self, key: str, value: Any) -> None:
            super().set(key, value)
            server.move_label("prod", 1, **which)

    ending = promote(SlowStore(), **which)
    assert isinstance(ending.error, PromptLayerLabelMovedError)
    assert server.labels(**which)["prod"] == 1
    assert changes(server) == 0


def killed(
    server: LocalPromptLayer, store: Store, at: str, monkeypatch: pytest.MonkeyPatch, **task: Any
) -> None:
    """Run a first try whose worker dies: before or after a request, or when it has the result."""
    with monkeypatch.context() as patch, suppress(Killed):
        if at == "moved":
            patch.setattr(FakeTaskInstance, "xcom_push", die)
        else:
            # Read the label, the version, for a workflow what the label leads to, and the label.
            reads = 3 if "prompt" in task else 4
            kill_at(patch, reads + (2 if at == "answered" else 1), after=at == "sent")
        promote(store, from_label="staging", **task)
        raise AssertionError("the worker has not died")
    assert server.count("PATCH") == (at != "sending")


def die(*_: Any, **__: Any) -> None:
    raise Killed


@pytest.mark.parametrize("at", ["sending", "sent", "answered", "moved"])
def test_a_retry_keeps_to_the_version_of_the_first_try(
    server: LocalPromptLayer, which: dict[str, Any], at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    killed(server, store, at, monkeypatch, **which)
    server.move_label("staging", 6, **which)
    retried = promote(store, number=2, from_label="staging", **which)
    assert retried.value == {"label": "prod", "version": moved_to(which), "previous_version": 3}
    assert server.labels(**which)["prod"] == moved_to(which)
    assert server.count("PATCH") == 1


@pytest.mark.parametrize(
    ("at", "to", "says"),
    [
        ("moved", 3, "version 3, so it was moved after an earlier try of this task had moved it"),
        ("moved", 1, "version 1, so it was moved after an earlier try of this task had moved it"),
        ("answered", 1, "version 1, so it was moved after an earlier try of this task had read it"),
        ("sending", 1, "version 1, so it was moved after an earlier try of this task had read it"),
    ],
    ids=["rolled back", "moved elsewhere", "moved meanwhile", "moved before"],
)
def test_a_retry_undoes_no_move_of_a_person(
    server: LocalPromptLayer,
    which: dict[str, Any],
    at: str,
    to: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    killed(server, store, at, monkeypatch, **which)
    server.move_label("prod", to, **which)
    sent = changes(server)
    retried = promote(store, number=2, from_label="staging", **which)
    assert isinstance(retried.error, PromptLayerLabelMovedError)
    assert retried.kind == "failed for good"
    assert says in retried.message
    assert server.labels(**which)["prod"] == to
    assert changes(server) == sent


def test_another_version_is_another_promotion(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    """Where a template renders to another version, what the try before noted does not count."""
    store = Store()
    promote(store, version=5, **which)
    retried = promote(store, number=2, version=4, **which)
    assert retried.value["previous_version"] == moved_to(which)


def test_another_label_is_another_promotion(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    store = Store()
    promote(store, **which)
    retried = promote(store, number=2, release_label="eu", **which)
    assert retried.value == {
        "label": "eu",
        "version": 5 if which is PROMPT else COPY + 1,
        "previous_version": None,
    }


def test_a_version_that_a_person_has_promoted_before_a_clear(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    store = Store()
    promote(store, version=5, **which)
    server.move_label("prod", 4, **which)
    cleared = promote(store, number=2, max_tries=3, version=4, **which)
    assert cleared.value == {"label": "prod", "version": 4, "previous_version": 4}


def test_a_retry_asks_for_no_second_approval(
    server: LocalPromptLayer, which: dict[str, Any], store: Store | None
) -> None:
    """Before Airflow 3.3 that of a prompt does, as neither Airflow nor PromptLayer shows one."""
    for number in (1, 2):
        ending = promote(store, number=number, release_label="legal", on_protected="fail", **which)
        assert isinstance(ending.error, PromptLayerApprovalNeededError)
    assert server.count("PATCH") == (2 if store is None and which is PROMPT else 1)


def test_a_rollback_before_a_retry_without_task_state(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    """The retry cannot tell it from a request that never arrived, or that waits for approval."""
    promote(version=5, **which)
    server.move_label("prod", 3, **which)
    retried = promote(number=2, version=5, on_protected="fail", **which)
    if which is PROMPT:
        assert retried.value == {"label": "prod", "version": 5, "previous_version": 3}
    else:
        assert isinstance(retried.error, PromptLayerApprovalNeededError)
        assert server.labels(**which)["prod"] == 3
        assert server.count("PATCH") == 1


@pytest.mark.parametrize("kept", ["kept", "dropped", None], ids=str)
def test_where_the_label_led_before_a_clear(
    server: LocalPromptLayer, which: dict[str, Any], kept: str | None, log: Callable[[], str]
) -> None:
    """A clear drops the task's state on Airflow 3.4: then a rollback must not pass as done.

    The copy of a workflow tells it, whatever Airflow keeps.
    """
    store = None if kept is None else Store()
    first = promote(store, **which)
    if kept == "dropped":
        store = Store()
    cleared = promote(store, number=2, max_tries=3, **which)
    known = which is WORKFLOW or kept == "kept"
    assert cleared.value == {**first.value, "previous_version": 3 if known else None}
    assert ("previous_version is None" in log()) != known
    assert server.count("PATCH") == 1


def test_a_retry_takes_no_copy_of_another_dag_run(server: LocalPromptLayer) -> None:
    before = FakeTaskInstance(run_id="the night before", max_tries=2)
    run_task(lambda: make(**WORKFLOW), before)
    server.move_label("prod", 3, **WORKFLOW)
    assert promote(number=2, **WORKFLOW).value["version"] == COPY + 1


@pytest.mark.parametrize("at", ["sending", "sent"])
def test_a_retry_where_a_version_was_deleted_since(
    server: LocalPromptLayer, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the first try is looked for below that version, and made if there is none."""

    def deleted(request: Any) -> Reply | None:
        is_it = request.query.get("version") == str(COPY + 1)
        return Reply(404, '{"success": false, "message": "not found"}') if is_it else None

    killed(server, Store(), at, monkeypatch, **WORKFLOW)
    while server.add_version(**WORKFLOW) < COPY + 2:
        pass
    server.move_label("prod", 3, **WORKFLOW)
    server.script(deleted, method="GET", times=None)
    retried = promote(number=2, from_label="staging", on_protected="fail", **WORKFLOW)
    if at == "sent":
        assert isinstance(retried.error, PromptLayerApprovalNeededError)  # as after any rollback
    else:
        assert retried.value["previous_version"] == 3
    assert server.count("PATCH") == 1


def test_the_label_leads_to_a_version_that_was_deleted(server: LocalPromptLayer) -> None:
    deleted = Reply(404, '{"success": false, "message": "not found"}')
    server.move_label("prod", 6, **WORKFLOW)
    server.script(
        lambda request: deleted if request.query.get("version") == "6" else None,
        method="GET",
        times=None,
    )
    assert promote(**WORKFLOW).value == {"label": "prod", "version": COPY, "previous_version": 6}


def test_a_label_that_was_there_before_a_retry(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    """Whether the first try moved it is known of a workflow alone, which would have a copy."""
    retried = promote(number=2, version=3, **which)
    previous = None if which is PROMPT else 3
    assert retried.value == {"label": "prod", "version": 3, "previous_version": previous}
    assert changes(server) == 0


def test_the_connection_is_corrected_between_two_tries(
    server: LocalPromptLayer,
    serve: Serve,
    which: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the first try has read at another PromptLayer counts for nothing here."""
    store = Store()
    killed(server, store, "sending", monkeypatch, **which)
    here = serve(new_server())
    here.move_label("staging", 6, **which)
    retried = promote(store, number=2, from_label="staging", **which)
    version = 6 if which is PROMPT else COPY
    assert retried.value == {"label": "prod", "version": version, "previous_version": 3}


def test_a_lost_answer_while_from_label_is_moved(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    """The task has moved its label itself, to what from_label led to when it began."""
    server.script(Close(), method="PATCH", acted_on=True)
    after_request(server, lambda: server.move_label("staging", 6, **which))
    ending = promote(from_label="staging", **which)
    assert ending.value == {"label": "prod", "version": moved_to(which), "previous_version": 3}
    assert server.count("PATCH") == 1
