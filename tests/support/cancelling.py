# SPDX-License-Identifier: Apache-2.0
"""Ending a task whose job never ends, in the process that has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_promptlayer.testing import LocalPromptLayer
from support.modes import FakeTaskInstance, rebuilt

Kill = Callable[[Any, Any], None]


def in_worker(operator: Any, _trigger: Any) -> None:
    operator.on_kill()


def in_triggerer(_operator: Any, trigger: Any) -> None:
    asyncio.run(rebuilt(trigger).on_kill())


everywhere = pytest.mark.parametrize("kill", [in_worker, in_triggerer])


def is_cancelled(server: LocalPromptLayer) -> bool:
    started: list[Any] = [*server.operations.values(), *server.calculations.values()]
    (only,) = started
    return only.cancelled_at is not None


def resume(task: Any, deferral: TaskDeferred) -> None:
    """Resume a task after a deferral; its job still runs, so the task defers again."""
    its_id = deferral.trigger.state.job.id
    event = {"version": 1, "id": its_id, "outcome": "ended", "message": ""}
    with pytest.raises(TaskDeferred):
        task.resume_execution(
            "execute_complete",
            {**(deferral.kwargs or {}), "event": event},
            {"ti": FakeTaskInstance()},
        )
