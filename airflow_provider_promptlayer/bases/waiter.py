# SPDX-License-Identifier: Apache-2.0
"""How a task waits for a job: the base of the sensors and of the operators.

Whatever the mode, a task takes the same three steps. It gets its *job*. It *polls* until the job
has ended; between two polls it sleeps, is rescheduled, or is deferred to the triggerer. It
*finishes*: raises for an outcome that counts as a failure, and pushes the result. What a job is,
and what its outcome means, is in a :class:`.JobKind`. Errors become Airflow's in one place, so
``soft_fail``, ``never_fail`` and retries do the same in every mode.
"""

from __future__ import annotations

import datetime
import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn

from airflow.providers.common.compat.sdk import BaseSensorOperator

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import NOTSET, NotSet, seconds
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.api.job import L, RemoteJob, cancellation
from airflow_provider_promptlayer.bases import configuration, deferral
from airflow_provider_promptlayer.bases.kind import JobKind, Outputs, noting_lineage, outcome_line
from airflow_provider_promptlayer.bases.task import PromptLayerTask
from airflow_provider_promptlayer.hooks import metrics
from airflow_provider_promptlayer.polling.event import read_event
from airflow_provider_promptlayer.polling.loop import drive, poll_until_ended
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.schedule import AIRFLOWS_POKE_INTERVAL, PollSchedule
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.submission.task_state import OutageState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger


class PromptLayerWaiter(PromptLayerTask, BaseSensorOperator, Generic[L]):
    """Base of every task that waits for a job.

    A subclass says what kind of job that is (:meth:`new_kind`), and which one (:meth:`get_job`). In
    a DAG, a subclass of an operator or sensor may override :meth:`execute`,
    :meth:`raise_for_outcome` and :meth:`push_result`, and call the method that it overrides.

    Takes the arguments of Airflow's sensors, with the same meaning in every mode:
    ``poke_interval``, ``timeout``, ``soft_fail``, ``never_fail``, ``exponential_backoff``,
    ``max_wait``, and ``mode`` with ``deferrable=False``. Airflow's configuration may have other
    defaults, see :mod:`.configuration`.

    :param deferrable: wait in the triggerer, without holding a worker.
    :param defer_after: seconds (or a ``timedelta``) for which a deferrable task polls in its worker
        first, so that a short job needs no second one. None for 10, or 0 where the task is mapped
        or :attr:`may_stay` is false.
    :param poke_interval: seconds (or a ``timedelta``) between two polls, kept to exactly. None for
        intervals that grow with the wait, see :class:`.PollSchedule`; in ``mode="reschedule"``
        those are Airflow's own 60 s.
    :param kwargs: also those of :class:`.PromptLayerTask`.
    """

    submitted_by_this_task: bool = False
    """Whether this task has started the job."""

    cancel_on_kill: bool = True
    """Whether to cancel a job that this task has started, when the task is ended."""

    may_stay: bool = True
    """Whether to poll in the worker first where the task does not say so itself.

    Not where the next try would not find the job if this worker died. Nor does a mapped task, as
    other instances may be waiting for the slot.
    """

    starts_what_it_waits_for: ClassVar[bool] = False
    """Whether the task submits the job, so that a poll must not run the task again."""

    def __init__(
        self,
        *,
        deferrable: bool | None = None,
        defer_after: datetime.timedelta | float | None = None,
        poke_interval: datetime.timedelta | float | NotSet | None = NOTSET,
        timeout: datetime.timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        deferrable = configuration.default_deferrable() if deferrable is None else deferrable
        if poke_interval is NOTSET:
            poke_interval = configuration.default_seconds("poke_interval", None)
        timeout = configuration.default_seconds("timeout", None) if timeout is None else timeout
        if timeout is not None:  # Airflow 2 does not take None
            seconds("timeout", timeout, zero=True)
            kwargs["timeout"] = timeout
        for name, given in (("poke_interval", poke_interval), ("max_wait", kwargs.get("max_wait"))):
            given is None or seconds(name, given)
        super().__init__(
            poke_interval=AIRFLOWS_POKE_INTERVAL if poke_interval is None else poke_interval,
            **kwargs,
        )
        self.deferrable = deferrable
        self.defer_after = configuration.given_seconds(
            "defer_after", defer_after, deferral.DEFER_AFTER
        )
        self._stays_as_told = defer_after is not None  # by the task itself, and not by the site
        self.is_rescheduled = self.reschedule and not deferrable
        if self.is_rescheduled and self.starts_what_it_waits_for:
            raise PromptLayerInvalidInputError(
                "mode='reschedule' would start a run at each poll: use deferrable=True."
            )
        # Each poll of a rescheduled task starts a process, which Airflow advises to do rarely.
        self._keeps_interval = poke_interval is not None or self.is_rescheduled
        self._job: RemoteJob[L] | None = None  # once known
        self._outputs: tuple[L, Outputs] | None = None  # of the job, once it has ended
        self._outage_since: float | None = None  # of one that the wait is to go on with
        self._outage_state: OutageState | None = None
        self._defers_at = 0.0  # when this process defers, if there is still a need to
        self._resumed = False  # whether this process came back to a wait
        self._has_waited = False  # whether a poll of this process found the job running, or failed
        self._is_over = False  # whether the job was seen to have ended
        self._started_at: float | None = None  # when the job was, if this task has started it
        self._ended_at: float | None = None  # when it was seen to have ended

    @cached_property
    def kind(self) -> JobKind[L]:
        """The kind of job, from :meth:`new_kind`, once the arguments are rendered."""
        return self.new_kind()

    @property
    def known_job(self) -> RemoteJob[L] | None:
        """The job that the task waits for, once it is known."""
        return self._job

    @property
    def counted_as(self) -> str:
        """What metrics call the kind of job that the task waits for."""
        return self.kind.job_types[0].counted_as

    @property
    def has_waited(self) -> bool:
        """Whether the job was seen running, or may have been running unseen."""
        return self._has_waited or self._resumed

    @abstractmethod
    def new_kind(self) -> JobKind[L]:
        """Return the kind of job, made from this task's rendered arguments.

        :raises PromptLayerInvalidInputError: for an invalid argument.
        """

    @abstractmethod
    def get_job(self, context: Context) -> RemoteJob[L] | None:
        """Return the job to wait for, or None if there is none."""

    def restore_job(self, context: Context) -> RemoteJob[L] | None:
        """Return the job that this task waited for when it deferred; None if it is not known."""
        return self.get_job(context)

    def poll(self, job: RemoteJob[L]) -> L:
        """Fetch the status of a job once, and its results if it has ended."""
        return self.hook.call(job.fetch_call())

    def raise_for_outcome(self, ending: L) -> None:
        """Raise if the outcome of a job counts as a failure.

        :param ending: the job's last status, such as :class:`.WorkflowResults`.
        :raises PromptLayerOutcomeError: saying why.
        """
        self.kind.raise_for_outcome(ending)

    def push_result(self, context: Context, ending: L) -> Any:
        """Push the outputs of a job that succeeded; return the task's result.

        :param ending: the job's last status.
        """
        return self._outputs_of(ending).push(partial(self._push, context))

    def resume_state(self) -> dict[str, Any]:
        """Return what to keep through a deferral besides the state of the wait, as JSON."""
        return {}

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that takes the wait over.

        :param how: the arguments of :class:`.PromptLayerTrigger`.
        """
        return self.kind.new_trigger(**how)

    def execute(self, context: Context) -> Any:
        """Wait for the job and push its outputs.

        Each error is also of the class of :mod:`.exceptions` that says what has happened, with the
        attributes of that class.

        :raises AirflowFailException: if a retry cannot help.
        :raises AirflowException: if it can.
        :raises AirflowSensorTimeout: if the job did not end in time.
        :raises AirflowSkipException: instead of these, with ``soft_fail`` or ``never_fail``.
        """
        began_at = time.time()
        with self._airflow_errors(context):
            # A subclass may execute one operator more than once.
            self._job, self._outage_since = None, None
            with self.hook.giving_up_at(began_at + self.timeout):
                self._job = job = self.get_job(context)
            if job is None:
                return self.kind.unsubmitted_result
            if not self.is_rescheduled:  # else each poll would take one more request
                self.show_link(context)
            # A context without a task instance is that of a user's own unit test.
            is_mapped = getattr(context.get("ti"), "map_index", None) not in (None, -1)
            stays = self._stays_as_told or (self.may_stay and not is_mapped)
            defer_after = self.defer_after if stays else 0.0
            self._defers_at = deferral.defer_at(defer_after, self.execution_timeout, began_at)
            return self._go_on(context, job)

    def execute_complete(
        self, context: Context, event: Any = None, waiting: dict[str, Any] | None = None
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises.

        :param event: the trigger's event.
        :param waiting: the state of the wait, as this task kept it when it deferred.
        """
        with self._airflow_errors(context):
            if waiting is None:
                waiting = self._state_without_notes(context)
            state = PollState.read(waiting, *self.kind.job_types)
            self._job = job = state.job
            self.submitted_by_this_task = state.submitted_by_this_task
            self.restore_url(waiting)
            if state.base_url is not None:
                self._stay_at(state.base_url, job.name)
            self._ended_at = read_event(event, external_id=job.id).ended_at
            self._is_over = True
            # The job has ended in time: a blip in fetching its outputs is no time-out.
            now = time.time()
            give_up_at = min(now + self.max_outage, self._must_end_by(context))
            fetching = replace(
                state,
                grace=max(0.0, give_up_at - state.deadline),
                outage_since=state.worker_outage(now=now),
            )
            return self._finish(context, self._poll_until_ended(fetching))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Resume the task; if Airflow ended the deferral, raise the error that says so."""
        self._resumed = self.hook.was_connected = True
        if next_method != deferral.ENDED_BY_AIRFLOW:
            # Not through BaseSensorOperator, which would replace the reason for a skip.
            resume = super(BaseSensorOperator, self).resume_execution
            return resume(next_method, next_kwargs, context)
        with self._airflow_errors(context):
            try:
                self._job = self.restore_job(context)
            except PromptLayerError as error:
                self.log.warning("The job that the task waited for is not known: %s", error)
            phrase = (self._job or self.kind.job_types[0]).abandoned_phrase
            left = f"{self._job or 'The job'} {phrase}."
            raise deferral.ended_by_airflow(next_kwargs, self.timeout, left, self.log)

    def on_kill(self) -> None:
        """Cancel the job, if this task has submitted it and PromptLayer can cancel it.

        Nothing is submitted after that, though Airflow 3 lets the task go on until it is killed.
        """
        self.hook.stop_starting()
        if (job := self._job) is None:
            return
        if self._is_over:
            what_became = "has ended"
        elif not (self.submitted_by_this_task and self.cancel_on_kill):
            what_became = job.abandoned_phrase
        else:
            try:
                what_became = drive(cancellation(job), self.hook.call_from_signal_handler)
            except Exception:
                self.log.exception("Could not cancel %s, which goes on at PromptLayer.", job.name)
                return
        self.log.warning("The task is being stopped. %s %s.", job, what_became)

    def _go_on(self, context: Context, job: RemoteJob[L]) -> Any:
        """Wait for a job, and finish."""
        began_at, outage_since = time.time(), self._outage_since
        if self.is_rescheduled:
            first = version_compat.first_reschedule_date(context, self.retries or 0)
            if first is not None:
                began_at = first.timestamp()
                self.hook.was_connected = True
            self._outage_state = OutageState.of(context)
            outage_since = self._outage_state.read(self.log) if self._outage_state else None
        deadline = min(began_at + self.timeout, self._must_end_by(context))
        state = PollState(job, began_at, deadline, outage_since=outage_since)
        return self._finish(context, self._poll_until_ended(state))

    def _state_without_notes(self, context: Context) -> dict[str, Any]:
        """Return the state of a wait that Airflow resumes without one.

        ``dag.test()`` and ``airflow tasks test`` pass on the event alone, and a wait that began in
        the triggerer has no state from a worker. The job is that of the arguments, or its id is in
        XCom.

        :raises PromptLayerEventError: if the job is not known.
        """
        job = self.restore_job(context)
        if job is None:
            raise PromptLayerEventError("The task was resumed without the state of its wait.")
        began_at = time.time()
        if self.start_from_trigger and (began := getattr(context["ti"], "start_date", None)):
            began_at = began.timestamp()
        deadline = min(began_at + self.timeout, self._must_end_by(context))
        is_own = self.submitted_by_this_task
        return PollState(job, began_at, deadline, submitted_by_this_task=is_own).payload()

    def _must_end_by(self, context: Context) -> float:  # noqa: ARG002
        """Return by when to end the wait, whatever its ``timeout``, in seconds since the epoch."""
        return math.inf

    def _poll_until_ended(self, state: PollState[Any]) -> L:
        """Poll until the job has ended; or leave the worker, and come back later."""
        job = state.job
        poller = state.poller(job, self._schedule(), max_outage=self.max_outage)
        poller.throttle = self.hook.throttle
        pause = partial(self._pause, job, poller)
        ending: L = drive(poll_until_ended(poller, job), self.poll, pause)
        return ending

    def _pause(self, job: RemoteJob[L], poller: Poller, decision: PollDecision) -> None:
        """Keep the worker until the next poll, or leave it until then."""
        if not decision.is_hold:
            metrics.count_poll(self.counted_as, begins_outage=decision.begins_outage)
        if not (decision.is_trouble or decision.is_hold):
            self._is_over = decision.is_done
            self._ended_at = (self._ended_at or time.time()) if decision.is_done else None
        if not (decision.is_done or decision.is_hold):
            self._has_waited = True
        if not decision.is_done or decision.ends_outage:  # else the last line says how it ended
            decision.log_to(self.log)
        if decision.is_done:
            return
        next_poll_at = time.time() + decision.sleep
        if self.deferrable and next_poll_at > self._defers_at:
            self._defer(job, poller, decision)
        if self.is_rescheduled and not decision.is_hold and self._may_leave(poller):
            sleep = datetime.timedelta(seconds=decision.sleep)
            raise version_compat.RescheduleException(datetime.datetime.now(datetime.UTC) + sleep)
        time.sleep(decision.sleep)

    def _defer(self, job: RemoteJob[L], poller: Poller, decision: PollDecision) -> NoReturn:
        settle = deferral.settle_seconds()
        next_poll_at = poller.first_poll_after_defer(
            decision, settle=settle, now=time.time(), is_contradicted=self._is_contradicted
        )
        state = PollState.of_deferral(
            job,
            poller,
            was_deferred=self._resumed,
            next_poll_at=next_poll_at,
            submitted_by_this_task=self.submitted_by_this_task,
            cancel_on_kill=self.cancel_on_kill,
            base_url=self.hook.stays_at,
        )
        self.defer(
            trigger=self.trigger(
                state=state,
                promptlayer_conn_id=self.promptlayer_conn_id,
                **asdict(poller.schedule),
                max_outage=poller.max_outage,
                reattaches_after_clear=self.reattaches_after_clear,
            ),
            method_name="execute_complete",
            kwargs={"waiting": state.payload() | self.kept_url() | self.resume_state()},
            timeout=deferral.airflow_timeout(max(poller.last_deadline, next_poll_at) - time.time()),
        )

    @property
    def reattaches_after_clear(self) -> bool:
        """Whether the next try goes back to the job if this one is cleared."""
        return True

    @property
    def _is_contradicted(self) -> bool:
        """Whether the job goes on although the triggerer has said that it has ended."""
        return self._resumed

    def _stay_at(self, base_url: str, about: str) -> None:
        way_back = version_compat.way_back(is_noted=self.reattaches_after_clear)
        self.hook.stay_at(base_url, about=about, way_back=way_back)

    def _may_leave(self, poller: Poller) -> bool:
        """Return whether the next process will know of the outage that this one has met.

        If not, this process keeps the worker until the outage ends: else no process would learn
        that the outage has lasted for too long.
        """
        if self._outage_state is None:
            return poller.outage_since is None
        self._outage_state.write(poller.outage_since)
        return True

    def _finish(self, context: Context, ending: L) -> Any:
        outputs = self._outputs_of(ending)
        try:
            for key, value in outputs.metadata.items():
                self._push(context, key, value)
            with noting_lineage(self, ending):
                self.raise_for_outcome(ending)
            result = self.push_result(context, ending)
            self.describe_outlets(context, result)
            seen = self._started_at, self._ended_at
            self.outcome = outcome_line(self.kind, self._job, ending, seen)
            return result
        finally:
            if self.do_xcom_push:
                self._warn(outputs.warnings())

    def _outputs_of(self, ending: L) -> Outputs:
        if self._outputs is None or self._outputs[0] is not ending:
            self._outputs = ending, self.kind.outputs(ending)
        return self._outputs[1]

    def _schedule(self) -> PollSchedule:
        return PollSchedule(
            self.poke_interval if self._keeps_interval else None,
            self.exponential_backoff,
            self.max_wait.total_seconds() if self.max_wait is not None else None,
        )

    def _skips(self) -> Sequence[str]:
        return [name for name in ("soft_fail", "never_fail") if getattr(self, name)]

    @contextmanager
    def _airflow_errors(self, context: Context) -> Iterator[None]:
        # A new kind for each step, because it refers to this operator and its arguments: dag.test()
        # of Airflow 2 resumes a copy, and a subclass may execute an operator more than once.
        self.__dict__.pop("kind", None)
        with super()._airflow_errors(context):
            yield
