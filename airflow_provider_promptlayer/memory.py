# SPDX-License-Identifier: Apache-2.0
"""What a task remembers of its run across tries: Airflow's task state store, from 3.3 on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_promptlayer.api.starting import Phase, Record

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

KEY: Final = "promptlayer_run"


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

    def write(self, phase: Phase, workflow_version_execution_id: int | None = None) -> None:
        """Note how far the task has come."""
        self._store.set(KEY, Record(phase, self.lifecycle, workflow_version_execution_id).payload())

    def forget(self) -> None:
        """Remove the note."""
        self._store.delete(KEY)
