# SPDX-License-Identifier: Apache-2.0
"""What differs between Airflow 2.11 and 3.x, and is not in the common-compat provider."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow import __version__ as airflow_version

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

REFUSES_SLASHES_IN_XCOM_KEYS: Final = airflow_version.startswith("3.0.")
"""Whether the execution API knows no route for a key with a slash."""


EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED: Final = airflow_version.startswith("2.")
"""Whether ``execution_timeout`` counts from a task's first leg on; later, each leg has its own."""

STARTS_IN_TRIGGERER: Final = not airflow_version.startswith(("2.", "3.0.", "3.1.", "3.2."))
"""Whether a task may begin in the triggerer, which then renders its arguments.

Before, that is switched off (3.1, 3.2), half-done (3.0), or renders nothing (2.11).
"""


def plain_xcom(arg: XComArg) -> tuple[Any, str] | None:
    """Return the task and the key of an XCom that is handed on as it is, else None."""
    try:
        from airflow.sdk.definitions.xcom_arg import PlainXComArg
    except ImportError:
        from airflow.models.xcom_arg import (  # type: ignore[attr-defined,no-redef]  # Airflow 2
            PlainXComArg,
        )

    return (arg.operator, arg.key) if isinstance(arg, PlainXComArg) else None


def _reschedule_exception() -> Any:
    try:
        from airflow.sdk.exceptions import AirflowRescheduleException
    except ImportError:
        from airflow.exceptions import AirflowRescheduleException
    return AirflowRescheduleException


RescheduleException: Final = _reschedule_exception()
"""What a task raises to be run again at a date."""


FINAL_STATES: Final = frozenset({"failed", "removed", "skipped", "success", "upstream_failed"})
"""The states in which a task instance has come to its end."""


GONE: Final = "gone"
"""No state of Airflow's: the task instance is not there any more."""

USER_ACTION: Final = "__airflow_user_action__"
"""The message of a cancel by which the triggerer ends a wait that is no longer wanted there.

The cancel of a triggerer that stops has none.
"""

ON_KILL_IS_AMBIGUOUS: Final = airflow_version.startswith("3.3.")
"""Whether ``on_kill`` does not tell by itself that what was waited for is to be cancelled.

Airflow 3.3 calls it when a user has ended the task, and also when the task was cleared and its next
try finds the task state as it was, and when another triggerer has taken the wait over. Airflow 3.4
lets go of a wait that was taken over without ``on_kill`` (apache/airflow PR 73454), and a clear
drops the task state (PR 72100). A clear with ``keep_task_state``, and one of a whole DAG run, keep
it. A trigger cannot find that out: the triggerer takes no question about the task state store
(``ToTriggerSupervisor``), and the API answers none about a try that was replaced.
"""


CLEAR_KEEPS_STATE: Final = airflow_version.startswith("3.3.")
"""Whether a task that is cleared finds its task state again; see :data:`ON_KILL_IS_AMBIGUOUS`."""


def way_back(*, is_noted: bool) -> str:
    """Return what to do about a connection that leads elsewhere than to what was started.

    :param is_noted: whether the task's state has what was started.
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
    """Return the state of each of these instances of one task, :data:`GONE` where there is none.

    Blocks, and must not run on the triggerer's event loop. For the Airflow that tells triggers
    when a task is ended (3.3 and later).
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

    As ``BaseSensorOperator`` has it, the tries of one task instance wait together.
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
    """Return what a task instance keeps through its tries, and what each clear of it changes.

    A clear sets ``max_tries`` to the tries so far plus ``retries``, which is what it was before
    where ``retries`` has been lowered. So the task instance's trace context is added: every clear
    that resets the DAG run gives it a new one, and neither a retry nor a clear of other tasks does
    (read in 3.3.0 to 3.3.2 and 3.4.0b2). ``dag_run.clear_number`` tells less: it counts the clears
    of all tasks, and none that leaves the DAG run as it is.
    """
    carrier = getattr(ti, "context_carrier", None)
    return json.dumps([int(ti.max_tries or 0), carrier], sort_keys=True)
