# SPDX-License-Identifier: Apache-2.0
"""Every mode of waiting, driven through the public surface to one comparable ending.

Tests run a table of cases through all of :data:`MODES`, so that no mode can drift from the others.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_provider_promptlayer.exceptions import PromptLayerError, PromptLayerWaitTimeoutError
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling.event import Outcome, WaitEvent
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.version_compat import (
    STARTS_IN_TRIGGERER,
    RescheduleException,
    clear_epoch,
)
from support.kinds import WORKFLOW_RUN, Kind


@dataclass
class FakeTaskInstance:
    """The part of a task instance that operators touch, with XComs in a dict.

    :param earlier_xcoms: those of the DAG run before.
    """

    dag_id: str = "dag"
    run_id: str = "manual__1"
    task_id: str = "task"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    context_carrier: dict[str, str] | None = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    first_reschedule: datetime.datetime | None = None
    earlier_xcoms: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value

    def xcom_pull(
        self, task_ids: str, key: str, map_indexes: int, *, include_prior_dates: bool = False
    ) -> Any:
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key, self.earlier_xcoms.get(key) if include_prior_dates else None)

    def get_first_reschedule_date(self, context: Any) -> datetime.datetime | None:
        return self.first_reschedule


def epoch(max_tries: int = 2) -> str:
    """Return the clear epoch of a fake task instance."""
    return clear_epoch(FakeTaskInstance(max_tries=max_tries))


class Store(dict[str, Any]):
    """The task state store: what is in it has been through JSON."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)

    @property
    def phase(self) -> str | None:
        """The phase in the record of a start."""
        return self["promptlayer_run"]["phase"] if "promptlayer_run" in self else None


@dataclass
class Ending:
    """How a task or a wait of the hook ended.

    :param kind: ``"success"``, ``"failed"``, ``"failed for good"``, ``"timeout"`` or ``"skipped"``.
    :param value: what the task returned; the id of its job where it ended in the triggerer.
    :param error: what the task raised, as failure callbacks get it.
    """

    kind: str
    message: str = ""
    value: Any = None
    xcoms: dict[str, Any] = field(default_factory=dict)
    worker_visits: int = 0
    error: BaseException | None = None


def run_task(
    make: Callable[[], Any], ti: FakeTaskInstance | None = None, **context_extra: Any
) -> Ending:
    """Run a task as Airflow would: made anew after each reschedule and deferral."""
    ti = ti or FakeTaskInstance()
    visits = 0
    resume: tuple[str, dict[str, Any]] | None = None
    context: Any = {"ti": ti, "run_id": ti.run_id, **context_extra}
    task = make()
    if task.start_from_trigger:
        args = task.start_trigger_args
        event = asyncio.run(first_event(trigger := started_by_airflow(args)))
        if isinstance(event, TaskSuccessEvent):
            return Ending("success", "", trigger.state.job.id, ti.xcoms, 0)
        resume = (args.next_method, {**(args.next_kwargs or {}), "event": event.payload})
    while True:
        visits += 1
        try:
            task = make()
            if resume is None:
                value = task.execute(context)
            else:
                value = task.resume_execution(resume[0], resume[1], context)
        except TaskDeferred as deferral:
            event = asyncio.run(first_event(trigger := rebuilt(deferral.trigger)))
            if isinstance(event, TaskSuccessEvent):
                return Ending("success", "", trigger.state.job.id, ti.xcoms, visits)
            resume = (deferral.method_name, {**(deferral.kwargs or {}), "event": event.payload})
            continue
        except RescheduleException as rescheduled:
            now = datetime.datetime.now(datetime.UTC)
            ti.first_reschedule = ti.first_reschedule or now
            time.sleep(max(0.0, (rescheduled.reschedule_date - now).total_seconds()))
            continue
        except AirflowSkipException as error:
            return Ending("skipped", str(error), None, ti.xcoms, visits, error)
        except AirflowSensorTimeout as error:
            return Ending("timeout", str(error), None, ti.xcoms, visits, error)
        except AirflowFailException as error:
            return Ending("failed for good", str(error), None, ti.xcoms, visits, error)
        except AirflowException as error:
            return Ending("failed", str(error), None, ti.xcoms, visits, error)
        return Ending("success", "", value, ti.xcoms, visits)


def rebuilt(trigger: BaseTrigger) -> Any:
    """Return the trigger as another process would make it from the database."""
    return _made(*trigger.serialize())


def started_by_airflow(args: Any) -> Any:
    """Return the trigger of a task that starts in the triggerer, as Airflow makes it."""
    trigger = _made(args.trigger_cls, json.loads(json.dumps(args.trigger_kwargs)))
    trigger.timeout_after = datetime.datetime.now(datetime.UTC) + args.timeout
    return trigger


def _made(path: str, kwargs: dict[str, Any]) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)(**kwargs)


async def first_event(trigger: BaseTrigger) -> TriggerEvent:
    """Return the first event of a trigger."""
    async for event in trigger.run():
        return event
    raise AssertionError("the trigger ended without an event")


Way = Callable[..., Ending]
"""Waits for a job, whose id or ids come first; takes the kind of job, and how to wait."""


def _ids(job: Any, kind: Kind) -> dict[str, Any]:
    return job if isinstance(job, dict) else {kind.id_name: job}


def _sensor(**mode: Any) -> Way:
    def run(job: Any, kind: Kind = WORKFLOW_RUN, **arguments: Any) -> Ending:
        how = {"task_id": "task", **_ids(job, kind), **mode, **arguments}
        ending = run_task(lambda: kind.sensor(**how))
        if ending.kind == "success":
            ending.value = kind.id_of(ending.value)
        return ending

    return run


def _hook(*, is_async: bool) -> Way:
    def run(job: Any, kind: Kind = WORKFLOW_RUN, **arguments: Any) -> Ending:
        hook = PromptLayerHook()
        wait = getattr(hook, f"{'await' if is_async else 'wait'}_for_{kind.waited_for}")
        try:
            found = wait(**{"timeout": 60.0, **_ids(job, kind), **arguments})
            if is_async:
                found = asyncio.run(found)
        except PromptLayerWaitTimeoutError as error:
            return Ending("timeout", str(error))
        except PromptLayerError as error:
            return Ending("failed" if error.retry_helps else "failed for good", str(error))
        finally:
            hook.close()
        return Ending("success", value=kind.id_of(found))

    return run


MODES: dict[str, Way] = {
    "hook": _hook(is_async=False),
    "async hook": _hook(is_async=True),
    "poke": _sensor(deferrable=False, mode="poke"),
    "reschedule": _sensor(deferrable=False, mode="reschedule"),
    "deferred": _sensor(deferrable=True),
}
MODES_OF_ALL_KINDS = list(MODES)
"""The modes that every kind of job has; a workflow run has more."""

MODES |= {
    "in the worker, then deferred": _sensor(deferrable=True, defer_after=0.05),
    "deferred, ending in the trigger": _sensor(end_from_trigger=True),
}
if STARTS_IN_TRIGGERER:
    MODES |= {
        "starting in the trigger": _sensor(start_from_trigger=True),
        "in the trigger alone": _sensor(start_from_trigger=True, end_from_trigger=True),
    }
TASK_MODES = [mode for mode in MODES if "hook" not in mode]
"""The modes of tasks, which can be skipped and rescheduled."""


def sensor(run_id: int, **arguments: Any) -> PromptLayerWorkflowSensor:
    return PromptLayerWorkflowSensor(task_id="t", workflow_version_execution_id=run_id, **arguments)


def resume_as_ended(run_id: int, *, state: dict[str, Any], **arguments: Any) -> Any:
    """Resume a sensor whose trigger says that the run has ended."""
    event = WaitEvent(run_id, Outcome.ENDED, "").payload()
    context: Any = {"ti": FakeTaskInstance()}
    return sensor(run_id, **arguments).resume_execution(
        "execute_complete", {"event": event, "waiting": state}, context
    )
