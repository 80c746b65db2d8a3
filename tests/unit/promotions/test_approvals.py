# SPDX-License-Identifier: Apache-2.0
"""A promotion that is resumed after the wait for approval, where something is amiss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from support.kinds import Serve
from support.modes import FakeTaskInstance, Store, first_event, rebuilt
from support.promotions import PROMPT, make, moved_to, new_server

from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerEventError,
    PromptLayerLabelMovedError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer


def deferred(context: Any, **task: Any) -> TaskDeferred:
    """Run the task until it defers."""
    with pytest.raises(TaskDeferred) as deferral:
        make(release_label="legal", **task).execute(context)
    found: TaskDeferred = deferral.value
    return found


def resumed_with_the_event_alone(
    store: Store | None, act: Callable[[], None], **task: Any
) -> dict[str, Any]:
    """Run the task as ``dag.test()`` and ``airflow tasks test`` do; act while it is deferred."""
    context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
    if store is not None:
        context["task_state_store"] = store
    deferral = deferred(context, **task)
    act()
    event = asyncio.run(first_event(rebuilt(deferral.trigger)))
    task_again = make(release_label="legal", **task)
    result: dict[str, Any] = task_again.resume_execution(
        deferral.method_name, {"event": event.payload}, context
    )
    return result


def test_with_the_event_alone(
    server: LocalPromptLayer, which: dict[str, Any], store: Store | None
) -> None:
    result = resumed_with_the_event_alone(
        store, lambda: server.approve_label("legal", **which), **which
    )
    previous = None if store is None and which is PROMPT else 2
    assert result == {"label": "legal", "version": moved_to(which), "previous_version": previous}
    assert server.count("PATCH") == 1


def test_with_the_event_alone_of_a_move_elsewhere(
    server: LocalPromptLayer, which: dict[str, Any]
) -> None:
    with pytest.raises(AirflowFailException, match="was moved elsewhere: version 1") as failed:
        resumed_with_the_event_alone(None, lambda: server.move_label("legal", 1, **which), **which)
    assert isinstance(failed.value, PromptLayerLabelMovedError)
    assert server.count("PATCH") == 1


@pytest.mark.parametrize(
    ("error", "raised"),
    [("Trigger timeout", PromptLayerWaitTimeoutError), ("Trigger failure", PromptLayerEventError)],
)
def test_a_deferral_that_airflow_has_ended(error: str, raised: type[Exception]) -> None:
    """The error is the same as where the wait does not defer, as far as Airflow says why."""
    context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
    task = make(release_label="legal", **PROMPT)
    with pytest.raises(raised, match="still waits until a person approves it"):
        task.resume_execution("__fail__", {"error": error}, context)


@pytest.mark.parametrize("change", [{"version": 2}, {"promotion": {}}, {"base_url": 0}], ids=str)
def test_a_promotion_that_another_release_has_deferred(
    server: LocalPromptLayer, change: dict[str, Any]
) -> None:
    context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
    deferral = deferred(context, **PROMPT)
    server.approve_label("legal", **PROMPT)
    event = asyncio.run(first_event(rebuilt(deferral.trigger)))
    kept = {**(deferral.kwargs or {})["waiting"], **change}
    with pytest.raises(PromptLayerEventError, match="What the task kept of its wait"):
        make(release_label="legal", **PROMPT).resume_execution(
            deferral.method_name, {"waiting": kept, "event": event.payload}, context
        )


def test_the_connection_leads_elsewhere_by_then(
    server: LocalPromptLayer, serve: Serve, which: dict[str, Any]
) -> None:
    """The label of the same name at another PromptLayer is another label."""
    context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
    deferral = deferred(context, **which)
    elsewhere = serve(new_server())
    event = asyncio.run(first_event(rebuilt(deferral.trigger)))
    says = f"was started at {server.url}, and the Airflow connection"
    assert says in event.payload["message"]
    approved = {**event.payload, "outcome": "ended"}
    with pytest.raises(
        AirflowFailException, match="The move of label 'legal' was started"
    ) as error:
        make(release_label="legal", **which).resume_execution(
            deferral.method_name, {**(deferral.kwargs or {}), "event": approved}, context
        )
    assert isinstance(error.value, PromptLayerConfigurationError)
    assert says in str(error.value)
    assert elsewhere.count() == 0


def test_an_interval_that_is_longer_than_the_time(server: LocalPromptLayer) -> None:
    """The label is read at least once before Airflow ends the deferral."""
    context: Any = {"ti": FakeTaskInstance(), "run_id": "manual__1"}
    now = time.time()
    deferral = deferred(context, **PROMPT, poke_interval=900, approval_timeout=600)
    assert deferral.timeout is not None
    assert deferral.trigger.state.next_poll_at < now + deferral.timeout.total_seconds()
