# SPDX-License-Identifier: Apache-2.0
"""When a task cancels the job that it has started: the base of the operators whose job can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.job import L, RemoteJob, cancellation
from airflow_provider_promptlayer.bases.submitter import PromptLayerSubmitter
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import drive

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class PromptLayerCanceller(PromptLayerSubmitter[L]):
    """Base of every task that starts a job which PromptLayer can cancel.

    A job that was started elsewhere is never cancelled.

    :param cancel_on_kill: whether to cancel the job when the task is ended: by a user, by its
        ``execution_timeout``, or by a clear, unless the next try goes back to the job.
    :param cancel_on_timeout: whether to cancel the job when it has not ended within ``timeout``.
    :param kwargs: how to submit and wait, see :class:`.PromptLayerSubmitter`.
    """

    def __init__(
        self, *, cancel_on_kill: bool = True, cancel_on_timeout: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cancel_on_kill = cancel_on_kill
        self.cancel_on_timeout = cancel_on_timeout

    @contextmanager
    def _airflow_errors(self, context: Context) -> Iterator[None]:
        with super()._airflow_errors(context):
            try:
                yield
            except PromptLayerWaitTimeoutError as error:
                if self.cancel_on_timeout:
                    self._cancel_after(error)
                raise

    def _cancel_after(self, error: BaseException) -> None:
        """Cancel the job after an error that ends the wait, which then says what became of it."""
        if (job := self._job) is None or self._is_over:
            return
        what_became = self._cancel(job)
        if job.abandoned_phrase in (said := str(error)):
            error.args = (said.replace(job.abandoned_phrase, what_became),)
        else:
            self.log.warning("%s %s.", job, what_became)

    def _cancel(self, job: RemoteJob[Any]) -> str:
        """Cancel a job for which nobody waits any more; return what became of it."""
        try:
            became = drive(
                cancellation(job),
                lambda call: self.hook.call_with_backoff(
                    call, about=job.name, policy=retries.CANCELLING_LATE
                ),
            )
        except PromptLayerNotFoundError:
            became = "is not there any more"
        except PromptLayerError as error:
            return f"may go on at PromptLayer, as it could not be cancelled ({error})"
        self._is_over = True  # on_kill has nothing left to cancel
        return became
