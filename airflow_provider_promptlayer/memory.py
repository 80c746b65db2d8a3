# SPDX-License-Identifier: Apache-2.0
"""What a task remembers of its run across tries: Airflow's task state store, from 3.3 on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer.api.starting import Phase, Record

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

KEY: Final = "promptlayer_run"
_OUTAGE_KEY: Final = "promptlayer_outage"


class RunMemory:
    """One record for each task instance; mapped indexes have their own, tries share it.

    :param store: ``context["task_state_store"]``.
    :param lifecycle: the task instance's ``max_tries``, see :class:`.api.starting.Record`.
    """

    def __init__(self, store: Any, lifecycle: int) -> None:
        self._store = store
        self.lifecycle = lifecycle

    @classmethod
    def of(cls, context: Context) -> RunMemory | None:
        """Return the memory of the running task, or None where Airflow has none."""
        values: Any = context
        store = values.get("task_state_store")
        return None if store is None else cls(store, int(values["ti"].max_tries or 0))

    def read(self) -> Record | None:
        """Return what an earlier try left, or None."""
        return Record.read(self._store.get(KEY))

    def write(
        self, phase: Phase, subject_id: int | str | None = None, *, is_own: bool = True
    ) -> None:
        """Note how far the task has come."""
        self._store.set(KEY, Record(phase, self.lifecycle, subject_id, is_own).payload())

    def forget(self) -> None:
        """Remove the note."""
        self._store.delete(KEY)


class OutageMemory:
    """Since when PromptLayer is out of reach, for a sensor that is rescheduled between two looks.

    Each look is another process then. Airflow deletes a task's XComs before each of them, so there
    is no other place, and before Airflow 3.3 none at all.
    """

    def __init__(self, store: Any, try_number: int) -> None:
        self._store = store
        self._try_number = try_number
        self._is_noted = False

    @classmethod
    def of(cls, context: Context) -> OutageMemory | None:
        """Return the memory of the running task, or None where Airflow has none."""
        values: Any = context
        store = values.get("task_state_store")
        return None if store is None else cls(store, int(values["ti"].try_number))

    def read(self) -> float | None:
        """Return since when, in seconds since the epoch; None without an outage in this try."""
        noted = self._store.get(_OUTAGE_KEY)
        self._is_noted = noted is not None
        if not isinstance(noted, dict) or noted.get("try_number") != self._try_number:
            return None
        since = noted.get("since")
        return float(since) if isinstance(since, (int, float)) else None

    def write(self, since: float | None) -> None:
        """Note an outage, or its end."""
        if since is not None:
            self._store.set(_OUTAGE_KEY, {"since": since, "try_number": self._try_number})
            self._is_noted = True
        elif self._is_noted:
            self._store.delete(_OUTAGE_KEY)
            self._is_noted = False
