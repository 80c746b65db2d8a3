# SPDX-License-Identifier: Apache-2.0
"""How a task remembers its jobs across tries: the base of the tasks that start jobs."""

from __future__ import annotations

import datetime
import math
import time
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerInvalidInputError,
    PromptLayerOutcomeError,
)
from airflow_provider_promptlayer.api.job import L
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_promptlayer.submission.task_state import BatchState, RunState

_AHEAD_OF_EXECUTION_TIMEOUT = 60.0
"""Seconds that a task needs to come back from the triggerer and to push its outputs."""


class PromptLayerReattacher(PromptLayerWaiter[L]):
    """Base of every task that starts jobs, and reattaches to them in a later try.

    :param reattach: go back to the jobs of an earlier try (Airflow 3.3 and later); True if left
        out.
    :param durable: Airflow's own name for ``reattach``.
    :param kwargs: how to wait, see :class:`.PromptLayerWaiter`. ``mode="reschedule"`` is
        refused without ``deferrable``: each poll would be another start.
    :raises PromptLayerInvalidInputError: if ``reattach`` and ``durable`` contradict each other.
    """

    starts_what_it_waits_for = True

    state_type: ClassVar[type[RunState] | type[BatchState]]
    """The class of the state that the task keeps across tries."""

    started: ClassVar[str] = "the run"
    """What messages call the jobs that the task starts."""

    def __init__(
        self, *, reattach: bool | None = None, durable: bool | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if None not in (reattach, durable) and reattach != durable:
            raise PromptLayerInvalidInputError(
                f"durable={durable} contradicts reattach={reattach}: they are two names of one "
                "option, so give one of them."
            )
        self.reattach = False not in (reattach, durable)
        self._task_state: Any = None  # once opened; None where Airflow keeps none

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Come back from the triggerer."""
        self._open_task_state(context)
        return super().resume_execution(next_method, next_kwargs, context)

    @property
    def reattaches_after_clear(self) -> bool:
        """Whether a later try finds the jobs of this one."""
        return self._task_state is not None

    def push_early(self, context: Context, result: Any) -> None:
        """Push the result before Airflow does, which is before the task notes that it was pushed.

        If Airflow cannot store it, a clear then goes back to the jobs, and starts no others.
        """
        if self._task_state is not None and result is not None:
            self._push(context, xcom.RETURN_VALUE_KEY, result)

    def _open_task_state(self, context: Context) -> None:
        self._task_state = self.state_type.of(context) if self.reattach else None
        self.may_stay = self._task_state is not None
        if self._task_state is None and self.reattach and self.retries:
            self.log.info(
                "This Airflow cannot remember %s across tries (3.3 and later can): a retry after a "
                "crash starts %s again.",
                self.started,
                self.started,
            )

    def _advice(self, context: Context, error: PromptLayerError) -> str:
        ti: Any = context["ti"]
        is_retried = ti.try_number <= (ti.max_tries or 0) and self.may_retry(error)
        if is_retried or not isinstance(error, PromptLayerOutcomeError):
            return ""
        return (
            self.kind.advice or f"To start another {self.kind.job_types[0].noun}, clear this task."
        )

    def _must_end_by(self, context: Context) -> float:
        # execution_timeout fails the task from outside, and without a record the retry would start
        # another job. So where execution_timeout counts during the wait, end the wait before it.
        counts = version_compat.EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED or not self.deferrable
        if self._task_state is not None or self.execution_timeout is None or not counts:
            return math.inf
        began: datetime.datetime | None = getattr(context["ti"], "start_date", None)
        allowed = self.execution_timeout.total_seconds()
        ahead = min(_AHEAD_OF_EXECUTION_TIMEOUT, allowed / 4)
        return (time.time() if began is None else began.timestamp()) + allowed - ahead
