# SPDX-License-Identifier: Apache-2.0
"""What differs between Airflow 2.11 and 3.x, and is not in the common-compat provider.

No public interface: what is in here may change in any release.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow import __version__ as airflow_version

try:
    from airflow.sdk.definitions.xcom_arg import PlainXComArg as PlainXComArg
except ImportError:  # Airflow 2
    from airflow.models.xcom_arg import (  # type: ignore[attr-defined,no-redef]
        PlainXComArg as PlainXComArg,
    )

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
    from airflow.sdk.exceptions import XComNotFound as XComNotFound
except ImportError:  # Airflow 2 and 3.0
    from airflow.exceptions import AirflowRescheduleException
    from airflow.exceptions import XComNotFound as XComNotFound  # type: ignore[no-redef]

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

RescheduleException: Any = AirflowRescheduleException
"""What a task raises to be run again at a date."""

REFUSES_SLASHES_IN_XCOM_KEYS: Final = airflow_version.startswith("3.0.")
"""Whether the execution API has no route for an XCom whose key has a slash."""

EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED: Final = airflow_version.startswith("2.")
"""Whether ``execution_timeout`` counts from a task's first leg on; in 3.x it starts in each leg."""

STARTS_IN_TRIGGERER: Final = not airflow_version.startswith(("2.", "3.0.", "3.1.", "3.2."))
"""Whether a task may begin in the triggerer, which then renders its arguments.

In earlier releases that is switched off (3.1, 3.2), half-done (3.0), or renders nothing (2.11).
"""


def runs_without_scheduler() -> bool:
    """Return whether ``dag.test()`` or ``airflow tasks test`` of Airflow 3 runs this task.

    Both run the trigger after the task, in the same process.
    """
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return type(getattr(runner, "SUPERVISOR_COMMS", None)).__name__ == "InProcessSupervisorComms"


HAS_ASSET_WATCHERS: Final = not airflow_version.startswith("2.")
"""Whether assets have watchers, whose triggers start DAGs."""


def asset_state(trigger: Any) -> Any:
    """Return the state of the asset that a trigger watches; None where Airflow keeps none.

    Where several assets have the same watcher, that of the first one, by name.
    """
    found = getattr(trigger, "asset_state_store", None)
    by_name = getattr(found, "_by_name", {})
    return by_name[min(by_name)] if by_name else found


HAS_TASK_STATE: Final = STARTS_IN_TRIGGERER
"""Whether Airflow has a task state store, which outlives a reschedule and a retry; since 3.3."""


def stored_xcom(ti_key: Any, key: str) -> Any:
    """Return an XCom of a task instance for Airflow 2's webserver; None where there is none.

    Airflow 3 reads the XCom of a link itself.
    """
    if not airflow_version.startswith("2."):
        return None
    from airflow.models.xcom import XCom

    return XCom.get_value(ti_key=ti_key, key=key)


def plain_xcom(arg: XComArg) -> tuple[Any, str] | None:
    """Return the task and the key of an XCom that is passed on as it is; None for another one."""
    return (arg.operator, arg.key) if isinstance(arg, PlainXComArg) else None


def is_made_from_mapped(task: Any) -> bool:
    """Return whether Airflow makes a task of a mapped one, in the worker that runs it."""
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def expanded_over(mapped: Any) -> Collection[str] | None:
    """Return the arguments over which a mapped task expands; None where each instance has its own.

    That is ``expand_kwargs``.
    """
    found = mapped._get_specified_expand_input().value
    return list(found) if isinstance(found, dict) else None


TRIGGERS_HAVE_ON_KILL: Final = STARTS_IN_TRIGGERER
"""Whether a triggerer calls ``on_kill`` of a trigger whose task was ended or cleared; since 3.3."""

FINAL_STATES: Final = frozenset({"failed", "removed", "skipped", "success", "upstream_failed"})
"""The states in which a task instance has ended."""

GONE: Final = "gone"
"""Stands for the state of a task instance that does not exist any more; not one of Airflow's."""

USER_ACTION: Final = "__airflow_user_action__"
"""The message of the cancel with which the triggerer ends a trigger for a user's action.

A triggerer that stops cancels without a message.
"""

ON_KILL_IS_AMBIGUOUS: Final = airflow_version.startswith("3.3.")
"""Whether ``on_kill`` of a trigger does not mean by itself that the job is to be cancelled.

Airflow 3.3 calls it when a user has ended the task, when the task was cleared (the next try then
finds the task state as it was), and when another triggerer has taken the trigger over. Airflow 3.4
releases a trigger that was taken over without ``on_kill`` (apache/airflow PR 73454), and a clear
drops the task state (PR 72100), unless it is one with ``keep_task_state`` or one of a whole DAG
run. A trigger cannot find that out: the triggerer answers no question about the task state store
(``ToTriggerSupervisor``), and the API none about a try that was replaced.
"""

CLEAR_KEEPS_STATE: Final = airflow_version.startswith("3.3.")
"""Whether a task that is cleared finds its task state again; see :data:`ON_KILL_IS_AMBIGUOUS`."""


def way_back(*, is_noted: bool) -> str:
    """Return what to do about a connection that leads elsewhere than to the job of a task.

    :param is_noted: whether the task's state has the job.
    """
    if not is_noted:
        return (
            "Before you clear this task, which starts another one, look in PromptLayer at what has "
            "become of this one."
        )
    keep = "" if CLEAR_KEEPS_STATE else " with keep_task_state"
    return (
        f"Correct the connection and clear this task{keep}, to go back to what was started there; "
        "or clear this task as it is, to start another one."
    )


def states_of(tis: Sequence[Any]) -> list[str | None]:
    """Return the state of each of these instances of one task, :data:`GONE` for one without.

    Blocks, so it must not run on the triggerer's event loop. Needs Airflow 3.3 or later, which
    tells triggers that a task is ended.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    indexes = {ti.map_index for ti in tis}
    states = RuntimeTaskInstance.get_task_states(
        dag_id=tis[0].dag_id,
        task_ids=[tis[0].task_id],
        run_ids=sorted({ti.run_id for ti in tis}),
        map_index=indexes.pop() if len(indexes) == 1 else None,
    )
    return [states.get(ti.run_id, {}).get(_state_key(ti), GONE) for ti in tis]


def _state_key(ti: Any) -> str:
    return str(ti.task_id) if ti.map_index < 0 else f"{ti.task_id}_{ti.map_index}"


def first_reschedule_date(context: Context, retries: int) -> datetime.datetime | None:
    """Return when a rescheduled task began to wait, or None if this is its first run.

    As in ``BaseSensorOperator``, all tries of one task instance count as one wait.
    """
    ti: Any = context["ti"]
    if hasattr(ti, "get_first_reschedule_date"):  # Airflow 3
        first: datetime.datetime | None = ti.get_first_reschedule_date(context)
        return first
    from airflow.sensors.base import (  # type: ignore[import-not-found]  # Airflow 2
        _orig_start_date,
    )

    first = _orig_start_date(
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=ti.map_index,
        try_number=(ti.max_tries or 0) - retries + 1,
    )
    return first  # noqa: RET504 - named for its type


def clear_epoch(ti: Any) -> str:
    """Return a text that all tries of a task instance share, and that each clear of it changes.

    A clear sets ``max_tries`` to the tries so far plus ``retries``, which may be the old value if
    ``retries`` has been lowered. So the text has the task instance's trace context too: every clear
    that resets the DAG run gives it a new one, and neither a retry nor a clear of other tasks does
    (read in 3.3.0 to 3.3.2 and 3.4.0b2). Before 3.3 a retry may have another one, as the executor
    makes it. ``dag_run.clear_number`` tells less: it counts the clears of all tasks, but not those
    that leave the DAG run as it is.
    """
    carrier = getattr(ti, "context_carrier", None) if HAS_TASK_STATE else None
    return json.dumps([int(ti.max_tries or 0), carrier], sort_keys=True)
