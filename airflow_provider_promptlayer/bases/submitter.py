# SPDX-License-Identifier: Apache-2.0
"""How a task starts something exactly once and waits for it: the base of the operators.

The order of things is what keeps a second run from being started. The note that a start is about
to be sent is written *before* it is sent, the id is noted and pushed as soon as it is known, and
an error is only retried where that cannot start a second job; see :mod:`.submission.reattach`.
"""

from __future__ import annotations

import datetime
import math
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import canonical
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.api.flow import cancellation
from airflow_provider_promptlayer.api.job import L, RemoteJob
from airflow_provider_promptlayer.api.persisted import UnreadableError
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.bases.recording import store_trouble, write_with_retries
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.outcomes.evaluations import PromptLayerEvaluationFailedError
from airflow_provider_promptlayer.outcomes.workflows import PromptLayerRunFailedError
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import drive
from airflow_provider_promptlayer.submission.batch import fingerprint
from airflow_provider_promptlayer.submission.reattach import (
    KEY,
    Plan,
    SubmissionPhase,
    SubmissionRecord,
    plan,
    question,
    without_end,
)
from airflow_provider_promptlayer.submission.task_state import RunState
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_AHEAD_OF_EXECUTION_TIMEOUT = 60.0
"""Seconds that a task needs to come back from the triggerer and to hand on its outputs."""


class PromptLayerSubmitter(PromptLayerWaiter[L]):
    """Base of everything that starts something and waits for it.

    :param wait_for_completion: False returns the id as soon as there is one.
    :param reattach: go back to what an earlier try has started (Airflow 3.3 and later).
    :param kwargs: how to wait, see :class:`.PromptLayerWaiter`. ``mode="reschedule"`` is
        refused without ``deferrable``: each poll would be another start.
    """

    starts_what_it_waits_for = True

    id_key: ClassVar[str]
    """Under which key the id is pushed to XCom."""

    cancels_on_kill = True  # unless it turns out that something else has started it

    how_to_find: ClassVar[str]
    """How a person tells whether a start whose answer was lost has arrived."""

    def look_for(self, context: Context, try_number: int | None) -> str:  # noqa: ARG002
        """Return how a person tells whether the start of a try has arrived.

        :param try_number: None if it is not known which try.
        """
        return self.how_to_find

    def __init__(
        self, *, wait_for_completion: bool = True, reattach: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.reattach = reattach
        self._task_state: RunState | None = None
        self._superseded: SubmissionRecord | None = None  # of what an earlier try had started
        self._sent: str | None = None  # how to find what the start that is being sent may start
        self._earlier_fingerprint: str | None = None  # by the earlier try that is gone back to

    @abstractmethod
    def prepare(self, context: Context) -> Callable[[], int | str | None]:
        """Build what a start sends, and return what sends it; nothing is sent yet.

        What is returned sends the start, and returns the id of what it has started; None if there
        is nothing to do. It raises :class:`PromptLayerStartUncertainError` if something may have
        been started all the same.

        :raises PromptLayerInvalidInputError: for arguments that cannot be sent.
        """

    @abstractmethod
    def input_parts(self) -> dict[str, Any]:
        """Return what tells this start from one for something else, as JSON."""

    @abstractmethod
    def job_from_id(self, external_id: Any) -> RemoteJob[L]:
        """Return what has the id."""

    def get_job(self, context: Context) -> RemoteJob[L] | None:
        """Return what an earlier try has started, or start it.

        :raises PromptLayerStartUncertainError: if an earlier try died while it sent the start.
        """
        self._task_state = self._open_task_state(context)
        self._job = job = self._of_earlier_try(context) or self._start(context)
        if job is None:
            self._forget_the_start()
            self._push(context, self.id_key, None)  # whoever is downstream may ask for it
            return None
        self._stay_at(self.hook.settings.base_url, job.name)
        self._remember(SubmissionPhase.SUBMITTED, job)
        self._push_id(context, job)
        if self.hook.is_stopping:  # since a moment at which it was not known what to cancel
            self.on_kill()
        return job

    def restore_job(self, context: Context) -> RemoteJob[L] | None:
        """Return what has the id that was pushed at the start, or None if none was."""
        external_id = xcom.pull_own(context, self.id_key)
        return None if external_id is None else self.job_from_id(external_id)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Come back from the triggerer."""
        self._task_state = self._open_task_state(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Do what the base does; while a start is being sent, say how to look for what it starts.

        Airflow does not wait for the answer. No log then says what came of the start.
        """
        sent = self._sent
        super().on_kill()
        if sent is not None:
            self.log.warning(
                "The task is being stopped while its start is being sent, so what it starts may go "
                "on at PromptLayer: %s.",
                sent,
            )

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry can help, and cannot start a second job."""
        nothing_started = not self.cancels_on_kill or (self._job is None and not self._resumed)
        if nothing_started or self._task_state is not None:
            return super().may_retry(error) or self.may_resubmit(error)
        return self.may_resubmit(error)

    def may_resubmit(self, error: Exception) -> bool:
        """Return whether what was started has failed in a way that another start may not."""
        return isinstance(error, PromptLayerRunFailedError)

    def _must_end_by(self, context: Context) -> float:
        # execution_timeout fails the task from outside, and the retry would start another run:
        # where it counts on through the wait and nothing is remembered, end the wait before it.
        return (
            math.inf if self._task_state is not None else ahead_of_execution_timeout(self, context)
        )

    @property
    def reattaches_after_clear(self) -> bool:
        """Whether a later try finds what this one has started."""
        return self._task_state is not None

    # Not in execute: Airflow 2 takes a call of the base's for one from outside of the task.
    def _go_on(self, context: Context, job: RemoteJob[L]) -> Any:
        if self.wait_for_completion:
            return super()._go_on(context, job)
        self._remember(SubmissionPhase.DELIVERED, job)
        return job.id

    def _finish(self, context: Context, ending: L) -> Any:
        result = super()._finish(context, ending)
        if self._job is not None:
            # After the outputs are out: a task that is cleared because they could not go out comes
            # back to the run, and so does a try after a crash in between.
            self._remember(SubmissionPhase.DELIVERED, self._job)
        return result

    def _start(self, context: Context) -> RemoteJob[L] | None:
        send = self.prepare(context)
        self.hook.warm_up()
        self.cancels_on_kill = type(self).cancels_on_kill
        if self._task_state is not None:
            # Before the start, so that a crash in the middle of it cannot pass for no start. With
            # nothing left to do in between: a crash there asks a person to look for nothing.
            try:
                self._task_state.write(SubmissionPhase.INTENT, self.hook.settings.base_url)
            except Exception as error:
                self._forget_the_start()  # it may be there all the same
                raise store_trouble(error) from error
        self._sent = self.look_for(context, context["ti"].try_number)
        try:
            external_id = send()
        except PromptLayerStartUncertainError:
            self._note_question()
            raise
        except PromptLayerError:
            self._forget_the_start()  # certainly there was none
            raise
        finally:
            self._sent = None
        return None if external_id is None else self.job_from_id(external_id)

    def _push_id(self, context: Context, job: RemoteJob[L]) -> None:
        try:
            self._push(context, self.id_key, job.id if self.cancels_on_kill else None)
        except Exception:
            # It is under way and its id is in the log: failing now would only lose it.
            self.log.exception("Could not push the id of %s to XCom.", job.name)

    def _forget_the_start(self) -> None:
        self._sent = None
        if self._task_state is None:
            return
        memory, replaced = (
            self._task_state,
            self._superseded,
        )  # the latter, as nothing took its place
        try:
            self._write(memory.forget if replaced is None else lambda: memory.put_back(replaced))
        except Exception:
            self.log.exception("Could not remove the note that a start is being sent.")

    def _write(self, write: Callable[[], None]) -> None:
        write_with_retries(write, self.log, lambda: self.hook.is_stopping)

    def _of_earlier_try(self, context: Context) -> RemoteJob[L] | None:
        """Return what an earlier try of this task has started and has not failed."""
        if self._task_state is None:
            return None
        try:
            record = self._task_state.read()
        except UnreadableError as error:
            self._ask_a_person(
                self._task_state,
                f"What an earlier try noted in the task's state ({KEY}) {error.found}. "
                f"{error.remedy}".rstrip(),
                self.look_for(context, None),
                is_in_backend=error.is_elsewhere,
            )
            return None
        here = None if record is None or record.external_id is None else self.hook.settings.base_url
        what = plan(record, self._task_state.clear_epoch, here, self._input_fingerprint)
        if record is not None and what is Plan.UNCERTAIN:
            how_to_look = self.look_for(context, record.try_number)
            self._ask_a_person(self._task_state, without_end(record), how_to_look)
            return None
        if record is None or record.external_id is None or not record.submitted_by_this_task:
            return None  # what something else has started is found anew
        if what is Plan.START:
            if record.phase is SubmissionPhase.SUBMITTED:
                self.prepare(context)  # else the running job would be cancelled for nothing
                self._superseded = record
                self._cancel_superseded(record)
            return None
        job = self.job_from_id(record.external_id)
        # Raises if that is elsewhere. Before the first question about it, as each of them may find
        # that the connection has changed.
        self._stay_at(record.base_url, job.name)
        is_retry = record.clear_epoch == self._task_state.clear_epoch
        try:
            failure = self._failure(job, is_retry=is_retry) if self.wait_for_completion else None
            if failure is not None:
                self._superseded = record
                self.log.info("%s of an earlier try is no success: %s", job, failure)
                return None
        except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError) as error:
            if is_retry:
                raise
            self.log.warning("%s The task was cleared, so another one is started.", error)
            return None
        self._earlier_fingerprint = record.input_fingerprint
        self.log.info("Going back to %s, which an earlier try started.", job.name)
        return job

    def _ask_a_person(
        self, memory: RunState, what_is_there: str, how_to_look: str, **how: bool
    ) -> None:
        """Return if a person was asked before, and has cleared the task since.

        :param how: see :func:`.question`.
        :raises PromptLayerStartUncertainError: if not, or if it has to be read in a backend.
        """
        if not any(how.values()) and memory.is_answered():
            self.log.info("%s The task was cleared since, so it starts another.", what_is_there)
            return
        self._note_question()
        raise PromptLayerStartUncertainError(question(what_is_there, how_to_look, **how))

    def _note_question(self) -> None:
        """Note that a person is asked, so that a clear after this means that they have looked."""
        if self._task_state is None:
            return
        try:
            self._write(self._task_state.ask)
        except Exception:
            self.log.exception("Could not note that a person is asked; the next try asks again.")

    def _cancel_superseded(self, record: SubmissionRecord) -> None:
        """End what was started for other arguments, before a clear, where PromptLayer can."""
        external_id = record.external_id
        if record.base_url != self.hook.settings.base_url:
            self.log.warning(
                "What an earlier try started at %s is left to itself, as the connection leads to "
                "%s now: %s.",
                record.base_url,
                self.hook.settings.base_url,
                one_line(str(external_id), 80),
            )
            return
        try:
            job: RemoteJob[Any] = (
                self.job_type(**record.job) if record.job else self.job_from_id(external_id)
            )
            if job.cancel() is None:
                self.log.warning(
                    "What an earlier try started for other arguments is left to itself: %s.",
                    external_id,
                )
                return
            what_became = drive(
                cancellation(job),
                lambda call: self.hook.call_with_backoff(
                    call, about=job.name, policy=retries.CANCELLING_SUPERSEDED
                ),
            )
        except (PromptLayerError, TypeError) as error:
            self.log.warning(
                "What an earlier try started for other arguments may go on: %s (%s)",
                one_line(str(external_id), 80),
                error,
            )
        else:
            self.log.info("%s was started for other arguments. It %s.", job, what_became)

    def _failure(self, job: RemoteJob[L], *, is_retry: bool) -> PromptLayerError | None:
        """Return how it has failed, if it has, and in a way that asks for another.

        A verdict is an answer, which a retry does not ask for again; a person who clears the task
        does. Where what this task is to deliver is not among what was left, a clear asks for
        another one too, as the workflow may have changed.
        """
        try:
            status = self.hook.call(job.fetch_call())
        except PromptLayerTransientError:
            return None  # not known to have failed; the wait will tell
        if not status.is_complete:
            return None
        try:
            self.raise_for_outcome(status)
            self.check_contents(status)
        except (
            PromptLayerRunFailedError,
            PromptLayerEvaluationFailedError,
            PromptLayerInvalidInputError,
        ) as error:
            return error if self.may_resubmit(error) or not is_retry else None
        return None

    @property
    def _input_fingerprint(self) -> str:
        try:
            return fingerprint(canonical("what is asked", self.input_parts()))
        except PromptLayerInvalidInputError:
            return "unfit"  # to be started, as the start will say

    def _open_task_state(self, context: Context) -> RunState | None:
        if not self.reattach:
            return None
        memory = RunState.of(context)
        if memory is None and self.retries:
            self.log.info(
                "This Airflow cannot remember the run across tries (3.3 and later can): a retry "
                "after a crash starts another run."
            )
        return memory

    def _remember(self, phase: SubmissionPhase, job: RemoteJob[L]) -> None:
        if self._task_state is None:
            return
        memory, input_fingerprint = (
            self._task_state,
            self._earlier_fingerprint or self._input_fingerprint,
        )
        try:
            self._write(
                lambda: memory.write(
                    phase,
                    self.hook.settings.base_url,
                    job.id,
                    submitted_by_this_task=self.cancels_on_kill,
                    input_fingerprint=input_fingerprint,
                    job=asdict(job),
                )
            )
        except Exception:
            # As with XCom: it is under way, and failing now would only lose it.
            self.log.exception("Could not note %s for later tries.", job.name)


def ahead_of_execution_timeout(operator: PromptLayerWaiter[Any], context: Context) -> float:
    """Return when a wait is to end so that ``execution_timeout`` does not end it, since the epoch.

    Infinite where there is none, or where it does not count while the task is deferred.
    """
    counts = version_compat.EXECUTION_TIMEOUT_COUNTS_WHILE_DEFERRED or not operator.deferrable
    if operator.execution_timeout is None or not counts:
        return math.inf
    began: datetime.datetime | None = getattr(context["ti"], "start_date", None)
    allowed = operator.execution_timeout.total_seconds()
    ahead = min(_AHEAD_OF_EXECUTION_TIMEOUT, allowed / 4)
    return (time.time() if began is None else began.timestamp()) + allowed - ahead
