# SPDX-License-Identifier: Apache-2.0
"""How a task waits: the base of the sensors and of the operators.

Whatever the mode, the same three steps are taken. *Identify* the subject, that is, what to wait
for. *Wait* for it: look, ask :class:`.Poller` what follows, and between two looks sleep,
be rescheduled, or be deferred to the triggerer. *Finish*: judge the ending and hand on what there
is. Errors become Airflow's in one place, so ``soft_fail``, ``never_fail`` and retries do the same
in every mode.
"""

from __future__ import annotations

import datetime
import math
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerTransientError,
    PromptLayerUnknownConnectionError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.flow import cancellation
from airflow_provider_promptlayer.api.job import L, RemoteJob
from airflow_provider_promptlayer.api.persisted import UnreadableError
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.bases.task_errors import task_error
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling.event import read_event
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE, PollDecision, Poller
from airflow_provider_promptlayer.polling.resume_state import ResumeState
from airflow_provider_promptlayer.polling.schedule import AIRFLOWS_POKE_INTERVAL, PollSchedule
from airflow_provider_promptlayer.submission.task_state import OutageState
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

_DECISIONS = (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    version_compat.RescheduleException,
)
"""The errors that say what Airflow is to do, which the others leave open."""

_DEFERRAL_FAILED = "__fail__"
"""The method that Airflow resumes when a trigger crashed or took too long."""

SETTLE_SECONDS = 10.0
"""Seconds after a deferral in which the trigger does not look, and so cannot fire.

A task that comes back before the scheduler has read the executor's report on its first leg is
taken for one that was killed, and failed or retried (apache/airflow issues 66374, 67287, 72716; up
to 3.3.2 at least). A retry would start, and bill, a second run. Schedulers have been seen to take
five seconds on a busy machine.
"""

TIMEOUT_GRACE = datetime.timedelta(minutes=1)
"""How long after the deadline Airflow ends a wait whose triggerer does not."""


LONGEST_DEFERRAL = datetime.timedelta(days=3650)
"""Airflow adds the time-out of a deferral to the time, and neither may be beyond the year 9999."""


def airflow_timeout(seconds: float) -> datetime.timedelta:
    """Return the time-out of Airflow for a deferral that ends by itself after ``seconds``."""
    longest = LONGEST_DEFERRAL.total_seconds()
    return datetime.timedelta(seconds=min(seconds, longest)) + TIMEOUT_GRACE


class PromptLayerWaiter(BaseSensorOperator, Generic[L]):
    """Base of everything that waits.

    Takes the arguments of Airflow's sensors, with the same meaning in every mode:
    ``poke_interval``, ``timeout``, ``soft_fail``, ``never_fail``, ``exponential_backoff``,
    ``max_wait``, and ``mode`` with ``deferrable=False``.

    :param promptlayer_conn_id: id of the Airflow connection.
    :param deferrable: wait in the triggerer, without holding a worker.
    :param poke_interval: seconds (or a ``timedelta``) between two looks, kept to exactly. None for
        a pace that fits the work, see :class:`.PollSchedule`; in ``mode="reschedule"`` that is
        Airflow's own 60 s.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach
        before the task fails.
    """

    ui_color = "#e8e4fb"

    job_type: ClassVar[type[RemoteJob[Any]]]
    """What kind of thing this waits for."""

    cancels_on_kill: bool = False
    """Whether the subject is this task's own, and ends with it."""

    starts_what_it_waits_for: ClassVar[bool] = False
    """Whether it is the task that starts the subject, so that it must not begin anew each time."""

    def __init__(
        self,
        *,
        promptlayer_conn_id: str = PromptLayerHook.default_conn_name,
        deferrable: bool = True,
        poke_interval: datetime.timedelta | float | None = None,
        max_outage: datetime.timedelta | float = DEFAULT_MAX_OUTAGE,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            poke_interval=AIRFLOWS_POKE_INTERVAL if poke_interval is None else poke_interval,
            **kwargs,
        )
        self.promptlayer_conn_id = promptlayer_conn_id
        self.deferrable = deferrable
        # Each look of a rescheduled task starts a process, which Airflow advises to do rarely.
        is_rescheduled = self.reschedule and not deferrable
        if is_rescheduled and self.starts_what_it_waits_for:
            raise PromptLayerInvalidInputError(
                "mode='reschedule' would start a run at each look: use deferrable=True."
            )
        self._keeps_interval = poke_interval is not None or is_rescheduled
        self.max_outage = seconds("max_outage", max_outage, zero=True)
        if self.max_outage == math.inf:  # Airflow 3 hands no such number on to a trigger
            raise PromptLayerInvalidInputError("max_outage must be finite.")
        self._job: RemoteJob[L] | None = None  # once known
        self._outage_state: OutageState | None = None
        self._resumed = False  # whether this process came back to a wait
        self._is_over = False  # whether the subject was seen to have ended

    @cached_property
    def hook(self) -> PromptLayerHook:
        """The hook for ``promptlayer_conn_id``."""
        return PromptLayerHook(self.promptlayer_conn_id)

    @abstractmethod
    def get_job(self, context: Context) -> RemoteJob[L] | None:
        """Return what to wait for, or None if there is nothing."""

    @abstractmethod
    def restore_job(self, context: Context) -> RemoteJob[L] | None:
        """Return what this task waited for when it left the worker, or None if that is lost."""

    def job_of(self, state: ResumeState) -> RemoteJob[L]:
        """Return the job that this task deferred for.

        :raises PromptLayerEventError: if it is of another kind.
        """
        return state.job(self.job_type)

    @abstractmethod
    def trigger(self, job: RemoteJob[L], **how: Any) -> BaseTrigger:
        """Return the trigger that waits for ``job``.

        :param how: the arguments of :class:`.PromptLayerTrigger`.
        """

    @abstractmethod
    def raise_for_outcome(self, ending: L) -> None:
        """Raise if an ending counts as a failure."""

    def check_contents(self, ending: L) -> None:
        """Raise if a success has not left what :meth:`deliver` is to hand on.

        :raises PromptLayerInvalidInputError: naming what is missing.
        """

    @abstractmethod
    def push_result(self, context: Context, ending: L) -> Any:
        """Hand on what an ending that counts as a success left; return the task's result."""

    def poll(self, job: RemoteJob[L]) -> L:
        """Look once."""
        return self.hook.call(job.fetch_call())

    def resume_state(self) -> dict[str, Any]:
        """Return what this task has to find again, as JSON, when it comes back from a deferral."""
        return {}

    def nothing_to_do(self, context: Context) -> Any:
        """Return the task's result where there is nothing to wait for."""

    def push_metadata(self, context: Context, ending: L) -> None:
        """Note what is worth keeping of an ending, whatever it is."""

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry of the task can help, and cannot do harm."""
        if isinstance(error, (PromptLayerAuthError, PromptLayerUnknownConnectionError)):
            return True  # somebody may mend the connection between two tries
        return error.retry_helps if isinstance(error, PromptLayerError) else True

    def execute(self, context: Context) -> Any:
        """Wait for the subject and hand on what it left behind.

        What is raised is also of the class of :mod:`.exceptions` that says what has happened, with
        its attributes.

        :raises AirflowFailException: if trying again cannot help.
        :raises AirflowException: if it can.
        :raises AirflowSensorTimeout: if the subject did not end in time.
        :raises AirflowSkipException: instead of these, with ``soft_fail`` or ``never_fail``.
        """
        with self._airflow_errors():
            self._job = job = self.get_job(context)
            if job is None:
                return self.nothing_to_do(context)
            return self._go_on(context, job)

    def execute_complete(
        self, context: Context, event: Any = None, waiting: dict[str, Any] | None = None
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises.

        :param event: the trigger's event.
        :param waiting: what this task left for itself when it deferred.
        """
        with self._airflow_errors():
            if waiting is None:
                waiting = self._notes_from_elsewhere(context)
            state = ResumeState.read(waiting)
            self._job = job = self.job_of(state)
            self.cancels_on_kill = state.submitted_by_this_task
            if state.base_url is not None:
                self._stay_at(state.base_url, job.name)
            read_event(event, external_id=job.id)
            self._is_over = True
            wait = self._new_wait(
                job,
                state.started_at,
                deadline=state.deadline,
                # It has ended in time: a blip in fetching what it left is no time-out.
                grace=max(
                    0.0,
                    min(time.time() + self.max_outage, self._must_end_by(context)) - state.deadline,
                ),
                outage_since=state.outage_since,
            )
            return self._finish(context, self._wait_to_the_end(job, wait))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Let Airflow's own end of a deferral mean what the trigger's end would."""
        self._resumed = self.hook.connection_was_there = True
        if next_method != _DEFERRAL_FAILED:
            # Past BaseSensorOperator, which would replace the reason of a skip by a stock phrase.
            return super(BaseSensorOperator, self).resume_execution(
                next_method, next_kwargs, context
            )
        with self._airflow_errors():
            self._job = self.restore_job(context)
            reason = str((next_kwargs or {}).get("error", "unknown"))
            for line in (next_kwargs or {}).get("traceback") or []:
                self.log.error("%s", line.rstrip())
            # Airflow 2 tells the two apart by this text alone.
            if "timeout" in reason.lower():
                raise PromptLayerWaitTimeoutError(
                    f"The wait did not end within {in_words(self.timeout)}, and no triggerer ended "
                    f"it. {self._left()}"
                )
            raise PromptLayerEventError(
                f"The wait in the triggerer broke off ({reason}). {self._left()}"
            )

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once, without waiting; trouble in asking counts as 'not yet'.

        Refused by what starts what it waits for: Airflow may call it any number of times, each
        time of another object.
        """
        with self._airflow_errors():
            if self.starts_what_it_waits_for:
                raise PromptLayerInvalidInputError(
                    f"{type(self).__name__}.poke() would start a run at each call: use execute(), "
                    "or poke the sensor for what was started."
                )
            job = self._job or self.get_job(context)
            if job is None:
                return PokeReturnValue(is_done=True)
            try:
                status = self.poll(job)
            except PromptLayerTransientError as error:
                self.log.warning("%s", error)
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=status.is_complete, xcom_value=job.id)

    def on_kill(self) -> None:
        """Cancel what this task has started, where PromptLayer can; else say that it goes on.

        Nothing more is started afterwards, as Airflow 3 lets the task go on until it is killed.
        """
        self.hook.stop_starting()
        job = self._job
        if job is None:
            return
        if self._is_over:
            self.log.warning("The task is being stopped. %s has ended.", job)
            return
        if not self.cancels_on_kill:
            self.log.warning("The task is being stopped. %s", self._left())
            return
        try:
            what_became = self.hook.run_flow(cancellation(job), self.hook.call_from_signal_handler)
        except Exception:
            self.log.exception("Could not cancel %s, which goes on at PromptLayer.", job.name)
        else:
            self.log.warning("The task is being stopped. %s %s.", job, what_became)

    def _go_on(self, context: Context, job: RemoteJob[L]) -> Any:
        """Do what is to be done once it is known what to wait for: wait, and hand on."""
        started_at = self._started_at(context)
        if self.reschedule and not self.deferrable:
            self._outage_state = OutageState.of(context)
        wait = self._new_wait(
            job,
            started_at,
            deadline=min(started_at + self.timeout, self._must_end_by(context)),
            outage_since=self._outage_so_far(),
        )
        return self._finish(context, self._wait_to_the_end(job, wait))

    def _outage_so_far(self) -> float | None:
        """Return since when earlier visits of this try could not ask, as far as known."""
        if self._outage_state is None:
            return None
        try:
            return self._outage_state.read()
        except UnreadableError as error:
            self.log.warning(
                "The note of an outage of PromptLayer %s. max_outage counts from now on. %s",
                error.found,
                error.remedy,
            )
            return None

    def _notes_from_elsewhere(self, context: Context) -> dict[str, Any]:
        """Return the notes of a task whose own were not handed back to it.

        ``dag.test()`` and ``airflow tasks test`` resume a task with the event alone. What there is
        to wait for is known without them, or in XCom; each deferral is a wait of its own there.

        :raises PromptLayerEventError: if it is not known.
        """
        job = self.restore_job(context)
        if job is None:
            raise PromptLayerEventError("The task was resumed without its own notes.")
        now = time.time()
        return ResumeState(
            asdict(job),
            started_at=now,
            deadline=min(now + self.timeout, self._must_end_by(context)),
            submitted_by_this_task=self.cancels_on_kill,
        ).payload()

    def _must_end_by(self, context: Context) -> float:  # noqa: ARG002
        """Return when the wait has to be over, whatever its ``timeout``, since the epoch."""
        return math.inf

    def _wait_to_the_end(self, job: RemoteJob[L], wait: Poller) -> L:
        """Look until the subject has ended; or leave the worker, to come back later."""
        while True:
            time.sleep(wait.delay_before_poll(now=time.time()))
            try:
                status = self.poll(job)
                step = wait.on_status(status, now=time.time())
            except PromptLayerTransientError as error:
                step = wait.on_error(error, now=time.time())
            else:
                self._is_over = step.is_done
                if step.is_done:
                    if step.ends_outage or not self._resumed:  # else the triggerer has said it
                        self._log_step(step)
                    return status
            self._log_step(step)
            if self.deferrable:
                next_poll_at = wait.first_poll_after_defer(
                    step,
                    settle=SETTLE_SECONDS,
                    now=time.time(),
                    is_contradicted=self._is_contradicted,
                )
                self._defer(job, wait, next_poll_at=next_poll_at)
            if self.reschedule and self._may_leave(wait):
                wake_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
                    seconds=step.sleep
                )
                raise version_compat.RescheduleException(wake_at)
            time.sleep(step.sleep)

    def _defer(self, job: RemoteJob[L], wait: Poller, *, next_poll_at: float) -> NoReturn:
        deadline = wait.started_at + self.timeout if wait.deadline is None else wait.deadline
        last_deadline = deadline + wait.grace
        # The triggerer goes on with an outage that the worker has met. One met after it had
        # ended, in fetching what the triggerer never asks for, is counted from visit to visit.
        outage_there, outage_here = (
            (None, wait.outage_since) if self._resumed else (wait.outage_since, None)
        )
        self.defer(
            trigger=self.trigger(
                job,
                promptlayer_conn_id=self.promptlayer_conn_id,
                poke_interval=wait.schedule.poke_interval,
                exponential_backoff=wait.schedule.exponential_backoff,
                max_wait=wait.schedule.max_wait,
                max_outage=wait.max_outage,
                started_at=wait.started_at,
                deadline=last_deadline,
                next_poll_at=next_poll_at,
                outage_since=outage_there,
                cancel_on_kill=self.cancels_on_kill,
                reattaches_after_clear=self.reattaches_after_clear,
                base_url=self.hook.stays_at,
            ),
            method_name="execute_complete",
            kwargs={
                "waiting": ResumeState(
                    asdict(job),
                    wait.started_at,
                    deadline,
                    outage_here,
                    self.cancels_on_kill,
                    self.hook.stays_at,
                ).payload()
                | self.resume_state()
            },
            timeout=airflow_timeout(max(last_deadline, next_poll_at) - time.time()),
        )

    @property
    def reattaches_after_clear(self) -> bool:
        """Whether the next try goes on with the subject, should this one be cleared."""
        return True

    @property
    def _is_contradicted(self) -> bool:
        """Whether what goes on was said to have ended: so the triggerer does, when it resumes."""
        return self._resumed

    def _stay_at(self, base_url: str, about: str) -> None:
        way_back = version_compat.way_back(is_noted=self.reattaches_after_clear)
        self.hook.stay_at(base_url, about=about, way_back=way_back)

    def _may_leave(self, wait: Poller) -> bool:
        """Return whether the next process will know what this one knows of an outage.

        If not, the worker is kept until the outage ends, one way or the other: better than a task
        that never learns that it has lasted for too long.
        """
        if self._outage_state is None:
            return wait.outage_since is None
        self._outage_state.write(wait.outage_since)
        return True

    def _started_at(self, context: Context) -> float:
        if self.reschedule and not self.deferrable:
            first = version_compat.first_reschedule_date(context, self.retries or 0)
            if first is not None:
                self.hook.connection_was_there = True
                return first.timestamp()
        return time.time()

    def _finish(self, context: Context, ending: L) -> Any:
        self.push_metadata(context, ending)
        self.raise_for_outcome(ending)
        return self.push_result(context, ending)

    def _new_wait(
        self,
        job: RemoteJob[L],
        started_at: float,
        *,
        deadline: float,
        grace: float = 0.0,
        outage_since: float | None = None,
    ) -> Poller:
        return Poller(
            job.name,
            self._schedule(),
            started_at=started_at,
            deadline=deadline,
            grace=grace,
            max_outage=self.max_outage,
            outage_since=outage_since,
        )

    def _schedule(self) -> PollSchedule:
        return PollSchedule(
            self.poke_interval if self._keeps_interval else None,
            self.exponential_backoff,
            self.max_wait.total_seconds() if self.max_wait is not None else None,
        )

    def _left(self) -> str:
        named = "What it waited for" if self._job is None else str(self._job)
        return f"{named} {self.job_type.abandoned_phrase}."

    def _log_step(self, step: PollDecision) -> None:
        if step.note:
            (self.log.warning if step.is_trouble else self.log.info)("%s", step.note)

    def _push(self, context: Context, key: str, value: Any) -> None:
        if self.do_xcom_push:
            xcom.push(context, key, value)

    @contextmanager
    def _airflow_errors(self) -> Iterator[None]:
        """Turn this provider's errors into those by which Airflow decides what comes next."""
        try:
            yield
        except PromptLayerError as error:
            if isinstance(error, AirflowException):
                raise  # from within, and already both
            raise self._ended(self._kind(error), error) from error
        except _DECISIONS:
            raise
        except Exception as error:
            # Also one of Airflow that says no more, as an XCom backend may raise.
            if self.may_retry(error):
                raise
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        finally:
            self.hook.close()

    def _kind(self, error: PromptLayerError) -> type[AirflowException]:
        if isinstance(error, PromptLayerWaitTimeoutError):
            return AirflowSensorTimeout
        return AirflowException if self.may_retry(error) else AirflowFailException

    def _ended(self, kind: type[AirflowException], error: PromptLayerError) -> AirflowException:
        for option in ("soft_fail", "never_fail"):
            if getattr(self, option):
                message = f"{error} Skipping, as {option} is set."
                return task_error(AirflowSkipException, error, message)
        return task_error(kind, error, str(error))
