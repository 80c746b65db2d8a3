# SPDX-License-Identifier: Apache-2.0
"""Promotions: a label is moved once or not at all, and no other move of it is overwritten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support.arguments import AT_RUN_TIME
from support.killing import Killed, kill_at
from support.kinds import Serve
from support.modes import FakeTaskInstance, Store, run_task
from support.promotions import (
    COPY,
    LABELS,
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
    PromptLayerInvalidInputError,
    PromptLayerLabelMovedError,
    PromptLayerStartUncertainError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerPromoteOperator
from airflow_provider_promptlayer.testing import (
    Close,
    LocalPromptLayer,
    Reply,
)

Log = Callable[[], str]


def versions() -> int:
    """Return the number of the workflow's latest version."""
    hook = PromptLayerHook()
    try:
        return hook.get_latest_version(**WORKFLOW)
    finally:
        hook.close()


def test_the_label_leads_to_the_version(
    server: LocalPromptLayer, which: dict[str, Any], log: Log
) -> None:
    ending = promote(**which)
    assert ending.kind == "success", ending
    assert ending.value == {"label": "prod", "version": moved_to(which), "previous_version": 3}
    assert ending.xcoms == {
        "promptlayer_version": moved_to(which),
        "promptlayer_previous_version": 3,
    }
    assert server.labels(**which) == {**LABELS, "prod": moved_to(which)}
    assert "led to version 3, and leads now to version" in log()
    assert ("a copy that PromptLayer has made" in log()) == (which is WORKFLOW)


def test_what_another_label_leads_to(server: LocalPromptLayer, which: dict[str, Any]) -> None:
    assert promote(from_label="staging", **which).value["version"] == moved_to(which)
    assert server.labels(**which)["staging"] == 5


def test_a_rollback_is_the_same_operator(server: LocalPromptLayer, which: dict[str, Any]) -> None:
    before = promote(**which).value["previous_version"]
    back = run_task(lambda: make(version=before, **which), FakeTaskInstance(task_id="back"))
    assert back.value["previous_version"] == moved_to(which)
    assert server.labels(**which)["prod"] == (3 if which is PROMPT else COPY + 1)


def test_a_new_label_is_created(server: LocalPromptLayer, which: dict[str, Any]) -> None:
    ending = promote(release_label="eu", **which)
    assert ending.value == {"label": "eu", "version": moved_to(which), "previous_version": None}
    assert server.labels(**which)["eu"] == moved_to(which)


def test_the_latest_version(server: LocalPromptLayer, which: dict[str, Any]) -> None:
    server.add_version(**which)
    hook = PromptLayerHook()
    try:
        assert hook.get_latest_version(**which) == 7
    finally:
        hook.close()
    assert asyncio.run(PromptLayerHook().aget_latest_version(**which)) == 7


def test_a_label_that_leads_there_is_left_alone(
    server: LocalPromptLayer, which: dict[str, Any], log: Log
) -> None:
    ending = promote(version="3", **which)
    assert ending.value == {"label": "prod", "version": 3, "previous_version": 3}
    assert changes(server) == 0
    assert "leads to version 3 already, and was not moved" in log()
    assert "WARNING" not in log()


def test_a_rollback_of_a_promotion_that_has_moved_nothing(
    server: LocalPromptLayer, which: dict[str, Any], log: Log
) -> None:
    moved = promote(version="3", **which).value
    assert "could be taken back" not in log()
    versions = {"version": moved["previous_version"], "expected_version": moved["version"]}
    back = run_task(lambda: make(**versions, **which), FakeTaskInstance(task_id="back"))
    assert back.kind == "success", back
    assert changes(server) == 0
    assert "has moved nothing that could be taken back" in log()


def test_the_other_form_of_a_workflow(serve: Serve) -> None:
    served = serve(new_server("libraries"))
    with served.script(Close(), method="PATCH", acted_on=True):
        assert promote(**WORKFLOW).value["version"] == COPY
    assert promote(number=2, **WORKFLOW).value["previous_version"] == 3
    assert versions() == COPY


def test_a_copy_of_the_version_counts_as_the_version(server: LocalPromptLayer) -> None:
    """A DAG that promotes the same version each night makes one copy."""
    promote(**WORKFLOW)
    other = FakeTaskInstance(run_id="the next night")
    ending = run_task(lambda: make(**WORKFLOW), other)
    assert ending.value == {"label": "prod", "version": COPY, "previous_version": COPY}
    assert versions() == COPY


def test_the_commit_message_names_dag_run_and_task(server: LocalPromptLayer) -> None:
    from airflow_provider_promptlayer.api.labels import ReleasedWorkflow

    long = FakeTaskInstance(dag_id="d" * 250, run_id="manual")
    run_task(lambda: make(**WORKFLOW), FakeTaskInstance())
    run_task(lambda: make(**WORKFLOW, version=4), long)
    hook = PromptLayerHook()
    messages = [
        hook.call(ReleasedWorkflow("Greet").version(COPY + n)).commit_message or "" for n in (0, 1)
    ]
    hook.close()
    assert messages[0].startswith("Copy of 5, was 3 [")
    assert messages[0].endswith("] dag.task manual__1")
    assert len(messages[1]) == 72


class TestSomebodyElse:
    """Whoever has moved the label meanwhile is not overwritten."""

    def test_the_version_that_is_expected(
        self, server: LocalPromptLayer, which: dict[str, Any]
    ) -> None:
        assert promote(expected_version="3", **which).kind == "success"

    def test_another_version(self, server: LocalPromptLayer, which: dict[str, Any]) -> None:
        ending = promote(expected_version=2, **which)
        assert isinstance(ending.error, PromptLayerLabelMovedError)
        assert ending.kind == "failed for good"
        assert "leads to version 3, and not to version 2 as expected" in ending.message
        assert changes(server) == 0

    def test_expected_of_a_missing_xcom(
        self, server: LocalPromptLayer, which: dict[str, Any]
    ) -> None:
        task = make(expected_version="{{ nothing }}", **which)
        task.expected_version = None  # as a native template renders it
        ending = run_task(lambda: task)
        assert "expected_version is None" in ending.message
        assert server.count() == 0

    def test_moved_right_after(self, server: LocalPromptLayer, which: dict[str, Any]) -> None:
        after_request(server, lambda: server.move_label("prod", 1, **which))
        ending = promote(**which)
        assert isinstance(ending.error, PromptLayerLabelMovedError)
        assert "leads to version 1, so it was moved since the request" in ending.message

    def test_moved_while_an_answer_was_lost(
        self, server: LocalPromptLayer, which: dict[str, Any]
    ) -> None:
        server.script(Close(), method="PATCH")
        after_request(server, lambda: server.move_label("prod", 1, **which))
        ending = promote(**which)
        assert isinstance(ending.error, PromptLayerLabelMovedError)
        assert server.labels(**which)["prod"] == 1


@pytest.mark.parametrize("acted_on", [True, False], ids=["arrived", "lost"])
@pytest.mark.parametrize("fault", [Close(), Reply(502, "<html>")], ids=["closed", "502"])
@pytest.mark.parametrize("label", ["prod", "new"])
@pytest.mark.parametrize("chosen", [{"version": 5}, {"from_label": "staging"}], ids=str)
@pytest.mark.parametrize("is_async", [False, True], ids=["hook", "async hook"])
def test_a_lost_answer(
    server: LocalPromptLayer,
    which: dict[str, Any],
    acted_on: bool,
    fault: Any,
    label: str,
    chosen: dict[str, Any],
    is_async: bool,
) -> None:
    for method in ("POST", "PATCH"):
        server.script(fault, method=method, acted_on=acted_on)
    hook = PromptLayerHook()
    arguments = {**which, **chosen, "release_label": label}
    try:
        if is_async:
            promotion = asyncio.run(hook.apromote(**arguments))
            labels = asyncio.run(hook.aget_labels(**which))
        else:
            promotion, labels = hook.promote(**arguments), hook.get_labels(**which)
    finally:
        hook.close()
    assert (promotion.version, promotion.previous_version) == (moved_to(which), LABELS.get(label))
    assert labels[label] == promotion.version
    assert versions() <= COPY


def test_answers_that_are_lost_again_and_again(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    with server.script(Close(), method="PATCH", times=None):
        ending = promote(**which)
    assert isinstance(ending.error, PromptLayerStartUncertainError)
    assert server.labels(**which) == LABELS


class TestKilledWorker:
    """A worker that dies, before any request or after it, and the try that follows."""

    @pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
    @pytest.mark.parametrize("at", range(1, 7))
    @pytest.mark.parametrize("label", ["prod", "new"])
    def test_moves_the_label_once(
        self,
        server: LocalPromptLayer,
        which: dict[str, Any],
        store: Store | None,
        at: int,
        after: bool,
        label: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with monkeypatch.context() as patch, suppress(Killed):
            kill_at(patch, at, after=after)
            promote(store, release_label=label, **which)
        retried = promote(store, number=2, release_label=label, **which)
        assert retried.kind == "success", retried
        assert server.labels(**which)[label] == retried.value["version"] == moved_to(which)
        assert versions() <= COPY
        # Where a prompt's label led before is known if Airflow remembers it, or it was not moved.
        previous = retried.value["previous_version"]
        assert previous == LABELS.get(label) or (previous, which, store) == (None, PROMPT, None)

    @pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
    @pytest.mark.parametrize("at", range(1, 9))
    def test_asks_for_one_approval(
        self,
        server: LocalPromptLayer,
        which: dict[str, Any],
        store: Store | None,
        at: int,
        after: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """But for a prompt's label, if the try could not note that its request was answered."""
        how = {"release_label": "legal", "on_protected": "fail", **which}
        with monkeypatch.context() as patch, suppress(Killed):
            kill_at(patch, at, after=after)
            promote(store, **how)
        was_sent, is_noted = server.count("PATCH"), store is not None and (at, after) != (4, True)
        retried = promote(store, number=2, **how)
        assert isinstance(retried.error, PromptLayerApprovalNeededError)
        assert server.labels(**which) == LABELS
        assert server.count("PATCH") == 1 + (was_sent and which is PROMPT and not is_noted)
        server.approve_label("legal", **which)
        assert server.labels(**which)["legal"] == moved_to(which)
        assert versions() <= COPY

    def test_keeps_to_the_copy_when_the_other_label_moves(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch, suppress(Killed):
            kill_at(patch, 5, after=True)  # which has copied
            promote(from_label="staging", **WORKFLOW)
        assert versions() == COPY
        server.move_label("staging", 6, **WORKFLOW)
        assert promote(number=2, from_label="staging", **WORKFLOW).value["version"] == COPY
        assert versions() == COPY

    @pytest.mark.parametrize("chosen", [{}, {"from_label": "staging"}], ids=str)
    def test_a_clear_moves_the_label_again(
        self,
        server: LocalPromptLayer,
        which: dict[str, Any],
        store: Store | None,
        chosen: dict[str, Any],
    ) -> None:
        promote(store, **which, **chosen)
        server.move_label("prod", 3, **which)
        cleared = promote(store, number=2, max_tries=3, **which, **chosen)
        assert cleared.value["previous_version"] == 3
        assert server.labels(**which)["prod"] == cleared.value["version"]


class TestProtectedLabel:
    """A move that PromptLayer lets a person approve."""

    def test_fails(self, server: LocalPromptLayer, which: dict[str, Any]) -> None:
        ending = promote(release_label="legal", on_protected="fail", **which)
        assert isinstance(ending.error, PromptLayerApprovalNeededError)
        assert ending.kind == "failed for good"
        version = moved_to(which)
        assert f"the move to version {version} waits until a person approves it" in ending.message
        assert server.labels(**which) == LABELS

    def test_skips(self, server: LocalPromptLayer, which: dict[str, Any]) -> None:
        assert promote(release_label="legal", on_protected="skip", **which).kind == "skipped"

    def test_waits(self, server: LocalPromptLayer, which: dict[str, Any], deferrable: bool) -> None:
        approve_later(server, lambda: server.approve_label("legal", **which))
        ending = promote(release_label="legal", deferrable=deferrable, **which)
        assert ending.worker_visits == 1 + deferrable
        assert ending.xcoms["promptlayer_previous_version"] == 2
        assert ending.value == {
            "label": "legal",
            "version": moved_to(which),
            "previous_version": 2,
        }

    def test_waits_in_vain(
        self, server: LocalPromptLayer, which: dict[str, Any], deferrable: bool
    ) -> None:
        ending = promote(
            release_label="legal", approval_timeout=0.1, deferrable=deferrable, **which
        )
        assert isinstance(ending.error, PromptLayerWaitTimeoutError)

    def test_moved_elsewhere(
        self, server: LocalPromptLayer, which: dict[str, Any], deferrable: bool
    ) -> None:
        approve_later(server, lambda: server.move_label("legal", 1, **which))
        ending = promote(release_label="legal", deferrable=deferrable, **which)
        assert isinstance(ending.error, PromptLayerLabelMovedError)
        assert "was moved elsewhere: version 1" in ending.message

    def test_a_retry_makes_no_second_copy(self, server: LocalPromptLayer) -> None:
        promote(release_label="legal", on_protected="fail", **WORKFLOW)
        server.approve_label("legal", **WORKFLOW)
        ending = promote(number=2, release_label="legal", on_protected="fail", **WORKFLOW)
        assert ending.value == {"label": "legal", "version": COPY, "previous_version": 2}
        assert versions() == COPY

    def test_a_retry_before_the_approval(self, server: LocalPromptLayer) -> None:
        for number in (1, 2):
            promote(number=number, release_label="legal", on_protected="fail", **WORKFLOW)
        assert versions() == COPY


def approve_later(server: LocalPromptLayer, act: Callable[[], None]) -> None:
    """Act once the label was read back six times, when the task waits."""
    reads: list[bool] = []

    def fault(request: Any) -> None:
        if changes(server) and request.raw_path.endswith("/labels"):
            reads.append(True)
            if len(reads) == 6:
                act()

    server.script(fault, method="GET", times=None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompt": "Nope"}, "Prompt template not found"),
        ({"workflow": "Nope"}, "Workflow 'Nope' not found"),
        ({"prompt": ""}, "prompt is empty: give a prompt's name or id"),
        ({**PROMPT, "version": 99}, "Check whether prompt 'a/b Reply' has such a version"),
        ({**WORKFLOW, "version": 99}, "Check whether workflow 'Greet' has such a version"),
        ({**PROMPT, "version": "latest"}, "version must be a positive integer"),
        ({**PROMPT, "from_label": "dev"}, "has no label 'dev'; it has: 'prod', 'staging', 'legal'"),
        ({**WORKFLOW, "from_label": "dev"}, "Workflow 'Greet' has no label 'dev'"),
        ({**WORKFLOW, "label": "my prod"}, "There is no label 'my prod' of workflow 'Greet'"),
        ({**PROMPT, "label": "prod "}, "There is no label 'prod ' of prompt 'a/b Reply'"),
        ({**PROMPT, "label": ""}, "release_label must be a text of 1 to 255 characters"),
        ({**PROMPT, "expected_version": 0}, "expected_version must be a positive integer"),
    ],
    ids=str,
)
def test_bad_input(server: LocalPromptLayer, arguments: dict[str, Any], says: str) -> None:
    ending = promote(**arguments, **AT_RUN_TIME)
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert "\n" not in ending.message
    assert changes(server) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"version": 1}, "Give one of prompt and workflow, a name or an id; not none"),
        ({**PROMPT, **WORKFLOW, "version": 1}, "not both"),
        (PROMPT, "Give one of version and from_label"),
        ({**PROMPT, "version": 1, "from_label": "staging"}, "not both"),
        ({**PROMPT, "version": 1, "label": "a", "release_label": "a"}, "or label, which is short"),
        ({**PROMPT, "version": 1, "on_protected": "ask"}, "on_protected must be one of"),
    ],
    ids=str,
)
def test_refused_where_it_is_written(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=says):
        PromptLayerPromoteOperator(task_id="task", **arguments)


def test_a_task_that_is_stopped_moves_nothing(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    stopped = make(**which)
    stopped.on_kill()
    assert run_task(lambda: stopped).kind == "failed"
    assert changes(server) == 0


def test_nothing_is_pushed_without_xcom_push(server: LocalPromptLayer) -> None:
    assert promote(do_xcom_push=False, **PROMPT).xcoms == {}
