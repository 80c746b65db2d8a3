# SPDX-License-Identifier: Apache-2.0
"""Airflow's own triggerer loop (3.0 and later), with a supervisor whose answers are scripted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_promptlayer.version_compat import USER_ACTION
from support.modes import FakeTaskInstance

CANCELS = 30
"""How often, at least, Airflow cancels a trigger until it has ended."""


@dataclass
class TriggererTaskInstance(FakeTaskInstance):
    """What the triggerer hands to a trigger."""

    id: str = "01a21799-5302-7865-89c1-7642ea434ce0"
    context_carrier: None = None


@dataclass
class Supervisor:
    """The process that answers a triggerer's questions about states."""

    states: dict[str, str | None] = field(default_factory=lambda: {"task": "failed"})
    answers: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def get_task_states(self, **of: Any) -> dict[str, Any]:
        self.asked.append(of)
        assert self.answers.wait(30)
        if self.errors:
            raise self.errors.pop(0)
        return {run_id: dict(self.states) for run_id in of["run_ids"]}


class Triggerer:
    """Airflow's loop around triggers."""

    def __init__(self) -> None:
        from airflow.jobs.triggerer_job_runner import TriggerRunner

        self.runner: Any = TriggerRunner()  # type: ignore[no-untyped-call]
        self.tasks: list[asyncio.Task[None]] = []

    def run(self, *triggers: Any) -> None:
        for trigger in triggers:
            number = len(self.tasks)
            self.runner.triggers[number] = {"name": "trigger", "events": 0}
            self.tasks.append(asyncio.create_task(self.runner.run_trigger(number, trigger)))

    @property
    def payloads(self) -> list[Any]:
        """What the events so far hold; before Airflow 3.3, each is in a tuple with an id."""
        found = [each[1] if isinstance(each, tuple) else each.event for each in self.runner.events]
        return [event.payload for event in found]

    async def kill(self) -> None:
        """Cancel each again and again until all have ended."""
        cancels = 0
        while not all(task.done() for task in self.tasks) or cancels < CANCELS:
            for task in self.tasks:
                task.cancel(USER_ACTION)
            cancels += 1
            await asyncio.sleep(0.001)


async def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.005)
