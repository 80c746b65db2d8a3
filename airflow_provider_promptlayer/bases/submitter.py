# SPDX-License-Identifier: Apache-2.0
"""How a task submits a job exactly once and waits for it: the base of the operators.

The order of the steps keeps a second job from being started. The record that a start is about to be
sent is written *before* it is sent, the id is recorded and pushed as soon as it is known, and an
error is retried only where that cannot start a second job; see :mod:`.submission.reattach`.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerOutcomeError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import L, RemoteJob, cancellation
from airflow_provider_promptlayer.api.persisted import UnreadableError
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.bases import deferral
from airflow_provider_promptlayer.bases.kind import Submission
from airflow_provider_promptlayer.bases.reattacher import PromptLayerReattacher
from airflow_provider_promptlayer.bases.recording import store_trouble, write_or_log
from airflow_provider_promptlayer.hooks import metrics
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import drive
from airflow_provider_promptlayer.submission.reattach import (
    KEY,
    Plan,
    SubmissionPhase,
    SubmissionRecord,
    plan,
    question,
    start_without_id,
)
from airflow_provider_promptlayer.submission.task_state import RunState
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class PromptLayerSubmitter(PromptLayerReattacher[L]):
    """Base of every task that submits a job and waits for it.

    A subclass also says what it submits: :meth:`new_submission`.

    :param wait_for_completion: False returns the id as soon as there is one.
    :param kwargs: how to wait, see :class:`.PromptLayerReattacher`.
    """

    state_type = RunState
    submitted_by_this_task = True  # unless PromptLayer says that there is nothing to do

    def __init__(self, *, wait_for_completion: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.wait_for_completion = wait_for_completion
        self.notes: dict[str, Any] = {}  # JSON about the start, for later processes and tries
        self._submission: Submission | None = None
        self._task_state: RunState | None = None
        self._superseded: SubmissionRecord | None = None  # of the job that an earlier try started
        self._sending_try: int | None = None  # the try, while its start is being sent
        self._earlier_fingerprint: str | None = None  # of the job of an earlier try, if reattached

    @abstractmethod
    def new_submission(self, context: Context) -> Submission:
        """Return the submission that the rendered arguments make; nothing is sent yet.

        :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
        """

    def prepare_start(self) -> None:
        """Do what comes before a start, such as reading an old score or pointing columns."""

    def get_job(self, context: Context) -> RemoteJob[L] | None:
        """Return the job that an earlier try has started, or start one.

        :raises PromptLayerStartUncertainError: if an earlier try died while it sent the start.
        """
        self._open_task_state(context)
        # A subclass may execute one operator with several inputs.
        self._submission, self.notes = None, {}
        kind = self.kind  # refuses arguments before anything is started
        self._job = job = self._of_earlier_try(context) or self._start(context)
        if job is None:
            self._forget_the_start()
            self._push(context, kind.id_key, None)  # a downstream task may pull it
            return None
        self._stay_at(self.hook.settings.base_url, job.name)
        known = self._earlier_fingerprint or self._input_fingerprint(context)
        self._record(SubmissionPhase.SUBMITTED, job, known)
        self._push_id(context, job)
        if self.hook.is_stopping:  # on_kill came when there was no job to cancel yet
            self.on_kill()
        return job

    def restore_job(self, context: Context) -> RemoteJob[L] | None:
        """Return the job that was submitted, or the one to wait for if none was."""
        external_id = xcom.pull_own(context, self.kind.id_key)
        if external_id is not None:
            return self.kind.job_from_id(external_id)
        record = self._task_state and self._task_state.read_if_readable()
        if record and record.external_id is not None and record.submitted_by_this_task:
            return self._job_of(record)
        return self.kind.unsubmitted_job and self.kind.unsubmitted_job()

    def resume_state(self) -> dict[str, Any]:
        """Return the notes about the start, to keep them through a deferral."""
        return {"notes": self.notes} if self.notes else {}

    def execute_complete(
        self, context: Context, event: Any = None, waiting: dict[str, Any] | None = None
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises."""
        if waiting is None:
            self.notes = self._recorded_notes(context)
        elif isinstance(waiting, dict):
            self.notes = dict(waiting.get("notes") or {})
        return super().execute_complete(context, event, waiting)

    def on_kill(self) -> None:
        """Cancel the job; while its start is being sent, log how to find the job.

        Airflow does not wait for the answer to the start, so no log would have the job's id.
        """
        sending_try = self._sending_try
        super().on_kill()
        if sending_try is not None and self._submission is not None:
            self.log.warning(
                "The task is being stopped while it sends the start, so a job may be going on at "
                "PromptLayer: %s.",
                self._submission.how_to_find(sending_try),
            )

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry can help without starting a second job."""
        if self._may_resubmit(error):
            return True
        no_job = not self.submitted_by_this_task or (self._job is None and not self._resumed)
        return (no_job or self._task_state is not None) and super().may_retry(error)

    def _push_id(self, context: Context, job: RemoteJob[L]) -> None:
        """Push the id of the job; if that fails, it is pushed once more when the job has ended."""
        try:
            self._push(context, self.kind.id_key, job.id if self.submitted_by_this_task else None)
            self.notes.pop("lacks_id", None)
        except Exception:
            # Its id is in the log: failing now would only lose the job.
            self.log.exception("Could not push the id of %s to XCom. The task goes on.", job.name)
            self.notes["lacks_id"] = True

    # Not in execute: Airflow 2 takes a call of super().execute for one from outside the task.
    def _go_on(self, context: Context, job: RemoteJob[L]) -> Any:
        if self.wait_for_completion:
            return super()._go_on(context, job)
        self.push_early(context, job.id)
        self._record(SubmissionPhase.DELIVERED, job)
        return job.id

    def _finish(self, context: Context, ending: L) -> Any:
        self._started_at = self.notes.get("started_at")
        if self._job is not None and "lacks_id" in self.notes:
            self._push_id(context, self._job)
        result = super()._finish(context, ending)
        if self._job is not None:
            # After the pushes: a try, or a clear, after one that has failed goes back to the job.
            self.push_early(context, result)
            self._record(SubmissionPhase.DELIVERED, self._job)
        return result

    # --- submitting ---------------------------------------------------------------------------

    def _start(self, context: Context) -> RemoteJob[L] | None:
        """Submit a job and return it; None if there is nothing to do and nothing to wait for."""
        submission = self._submission_for(context)
        self._input_fingerprint(context)  # now, because an error would lose a job that is started
        self.hook.warm_up()
        self.submitted_by_this_task = type(self).submitted_by_this_task
        if submission.is_busy is not None and self.cancel_on_kill and context["ti"].try_number > 1:
            self._await_cancellation(submission.is_busy)
        self.prepare_start()
        if self._task_state is not None:
            # Before the start, so that a crash cannot hide that the start was sent; and right
            # before it, because after a crash in between a person looks for a job in PromptLayer.
            try:
                self._task_state.write(
                    SubmissionPhase.INTENT, self.hook.settings.base_url, notes=self.notes
                )
            except Exception as error:
                self._forget_the_start()  # the record may have been written all the same
                raise store_trouble(error) from error
        self._sending_try = context["ti"].try_number
        try:
            external_id = (
                submission.send()
                if submission.send
                else self.hook.submit(submission.call, self.kind.job_types[0].noun)
            )
        except PromptLayerStartUncertainError:
            self._note_question()
            raise
        except PromptLayerError:
            self._forget_the_start()  # certainly nothing was started
            raise
        finally:
            self._sending_try = None
        self.notes["started_at"] = time.time()
        if external_id is not None:
            return self.kind.job_from_id(external_id)
        if not self.wait_for_completion or self.kind.unsubmitted_job is None:
            return None
        self.submitted_by_this_task = False
        return self.kind.unsubmitted_job()

    def _await_cancellation(self, is_busy: Call[bool]) -> None:
        """Wait while the triggerer may be cancelling the job of the try before.

        This try does not know that job if the clear has dropped the task's state. PromptLayer would
        have nothing to start, or the cancellation would meet the new job. Another user's job looks
        the same, so the wait is short.
        """
        if not version_compat.TRIGGERS_HAVE_ON_KILL:
            return
        began_at = now = time.time()
        while now < began_at + deferral.CANCELLATION_SECONDS and not self.hook.is_stopping:
            try:
                if not self.hook.call(is_busy):
                    return
            except PromptLayerError:
                return  # the start fails alike, and says so
            if now == began_at:
                self.log.info(
                    "Waiting for up to %s, as the triggerer may still be cancelling the job of an "
                    "earlier try.",
                    in_words(deferral.CANCELLATION_SECONDS),
                )
            time.sleep(deferral.CANCELLATION_PAUSE)
            now = time.time()

    def _submission_for(self, context: Context) -> Submission:
        if self._submission is None:
            self._submission = self.new_submission(context)
        return self._submission

    def _input_fingerprint(self, context: Context) -> str:
        try:
            return self._submission_for(context).input_fingerprint
        except (PromptLayerInvalidInputError, PromptLayerNotFoundError):
            return "unfit"  # the start will raise the same error

    # --- what an earlier try has left ---------------------------------------------------------

    def _recorded_notes(self, context: Context) -> dict[str, Any]:
        """Return the notes of the task's state: ``dag.test()`` resumes a task with the event alone.

        Empty where Airflow keeps no task state, or the record is of another job.
        """
        record = self._task_state and self._task_state.read_if_readable()
        job_id = xcom.pull_own(context, self.kind.id_key)
        return dict(record.notes or {}) if record and record.external_id == job_id else {}

    def _of_earlier_try(self, context: Context) -> RemoteJob[L] | None:
        """Return the job that an earlier try of this task has started, unless it has failed."""
        state = self._task_state
        if state is None:
            return None
        try:
            record = state.read()
        except UnreadableError as error:
            self._ask_a_person(
                state,
                error.about(f"What an earlier try noted in the task's state ({KEY})"),
                self._submission_for(context).how_to_find(None),
                is_in_backend=error.is_elsewhere,
            )
            return None
        if record is None:
            return None
        self.notes = dict(record.notes or {})
        if record.external_id is None:
            here, asked_for = None, None  # not used for such a record
        else:
            here, asked_for = self.hook.settings.base_url, self._input_fingerprint(context)
        what = plan(record, state.clear_epoch, here, asked_for)
        if what is Plan.UNCERTAIN:
            how_to_look = self._submission_for(context).how_to_find(record.try_number)
            self._ask_a_person(state, start_without_id(record), how_to_look)
        elif not record.submitted_by_this_task:
            pass  # start again: PromptLayer says whether there is still nothing to do
        elif what is Plan.REATTACH:
            return self._reattach(record, is_retry=record.clear_epoch == state.clear_epoch)
        elif record.phase is SubmissionPhase.SUBMITTED:
            self._submission_for(context)  # refuses arguments before the running job is cancelled
            self._superseded = record
            self._cancel_superseded(record)
        return None

    def _reattach(self, record: SubmissionRecord, *, is_retry: bool) -> RemoteJob[L] | None:
        """Return the job of a record, or None if another one is to be started.

        :param is_retry: whether the task was not cleared since.
        :raises PromptLayerConfigurationError: if the connection leads elsewhere.
        """
        self._job = job = self._job_of(record)
        # Before the first request about the job, as each may find that the connection has changed.
        self._stay_at(record.base_url, job.name)
        try:
            failure = self._failure(job, is_retry=is_retry) if self.wait_for_completion else None
        except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError) as error:
            if is_retry:
                raise
            self._job = None
            self.log.warning("%s The task was cleared, so it starts another.", error)
            return None
        if failure is not None:
            self._job, self._superseded = None, record
            self.log.info("%s of an earlier try did not succeed: %s", job, failure)
            return None
        self._earlier_fingerprint = record.input_fingerprint
        self.log.info("Going back to %s, which an earlier try started.", job.name)
        return job

    def _failure(self, job: RemoteJob[L], *, is_retry: bool) -> PromptLayerError | None:
        """Return the failure that calls for another job; None to go back to this one.

        A verdict is a result: only a clear asks for another one, not a retry. Only a clear asks for
        another job, too, if this one lacks what the task is to return.
        """
        asked_at = time.time()
        try:
            policy = retries.FETCHING_EARLIER.within(self.max_outage)
            status = self.hook.call_with_backoff(job.fetch_call(), about=job.name, policy=policy)
        except PromptLayerOutageError:
            self._outage_since = asked_at
            metrics.count_outage(self.counted_as)
            return None  # the wait finds out, and goes on with this outage
        if not status.is_complete:
            return None
        try:
            self.raise_for_outcome(status)
        except (PromptLayerOutcomeError, PromptLayerInvalidInputError) as error:
            return error if self._may_resubmit(error) or not is_retry else None
        return None

    def _may_resubmit(self, error: Exception) -> bool:
        """Return whether the job has failed in a way that another job may not."""
        return isinstance(error, PromptLayerOutcomeError) and self.kind.may_resubmit(error.outcome)

    def _cancel_superseded(self, record: SubmissionRecord) -> None:
        """Cancel, if possible, a job that was started for other arguments before a clear."""
        shown_id = one_line(str(record.external_id), 80)
        if record.base_url != self.hook.settings.base_url:
            self.log.warning(
                "Not cancelling the job that an earlier try started at %s, as the connection leads "
                "to %s now: %s.",
                record.base_url,
                self.hook.settings.base_url,
                shown_id,
            )
            return
        try:
            job = self._job_of(record)
            policy = retries.CANCELLING_SUPERSEDED
            send = partial(self.hook.call_with_backoff, about=job.name, policy=policy)
            what_became = drive(cancellation(job), send)
        except (PromptLayerError, TypeError) as error:
            self.log.warning(
                "The job that an earlier try started for other arguments may go on: %s (%s)",
                shown_id,
                error,
            )
        else:
            self.log.warning("%s was started for other arguments. It %s.", job, what_became)

    def _job_of(self, record: SubmissionRecord) -> RemoteJob[L]:
        """Return the job of a record, whose sheet the arguments may not lead to any more."""
        if record.job:
            return self.kind.job_types[0](**record.job)
        return self.kind.job_from_id(record.external_id)

    def _ask_a_person(
        self, state: RunState, what_is_there: str, how_to_look: str, *, is_in_backend: bool = False
    ) -> None:
        """Ask a person to check, unless one was asked before and has cleared the task since.

        :param is_in_backend: see :func:`.question`: then a person has to act before a clear.
        :raises PromptLayerStartUncertainError: to ask.
        """
        if not is_in_backend and state.is_answered():
            self.log.info("%s The task was cleared since, so it starts another.", what_is_there)
            return
        self._note_question()
        asked = question(what_is_there, how_to_look, is_in_backend=is_in_backend)
        raise PromptLayerStartUncertainError(asked)

    # --- the record ---------------------------------------------------------------------------

    def _record(
        self, phase: SubmissionPhase, job: RemoteJob[L], input_fingerprint: str | None = None
    ) -> None:
        """Record how far the task has come.

        :param input_fingerprint: not needed once the result is delivered.
        """
        if (state := self._task_state) is None:
            return
        self._write(
            lambda: state.write(
                phase,
                self.hook.settings.base_url,
                job.id,
                submitted_by_this_task=self.submitted_by_this_task,
                input_fingerprint=input_fingerprint,
                job=asdict(job),
                notes=self.notes,
            ),
            f"Could not record {job.name} for later tries.",  # the job runs: failing would lose it
        )

    def _forget_the_start(self) -> None:
        if (state := self._task_state) is None:
            return
        superseded = self._superseded  # still the latest job, so its record is put back
        self._write(
            state.forget if superseded is None else lambda: state.store(superseded),
            "Could not remove the record that a start is being sent.",
        )

    def _note_question(self) -> None:
        """Record that a person is asked, so that a clear after this means that they have looked."""
        if (state := self._task_state) is not None:
            self._write(state.ask, "Could not note that a person is asked: the next try asks, too.")

    def _write(self, write: Callable[[], None], failure: str) -> None:
        write_or_log(write, self.log, lambda: self.hook.is_stopping, failure)
