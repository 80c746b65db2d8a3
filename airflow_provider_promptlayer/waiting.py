# SPDX-License-Identifier: Apache-2.0
"""How a task waits: the base of the sensors and of the operators.

Whatever the mode, the same three steps are taken. *Identify* the subject, that is, what to wait
for. *Wait* for it: look, ask :class:`.api.waiting.Wait` what follows, and between two looks sleep,
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

from airflow_provider_promptlayer import compat, xcom
from airflow_provider_promptlayer.api.arguments import seconds
from airflow_provider_promptlayer.api.events import read_event
from airflow_provider_promptlayer.api.pace import AIRFLOWS_POKE_INTERVAL, Pace
from airflow_provider_promptlayer.api.persisted import UnreadableError
from airflow_provider_promptlayer.api.resume_state import ResumeState
from airflow_provider_promptlayer.api.subjects import L, Subject
from airflow_provider_promptlayer.api.talks import cancellation
from airflow_provider_promptlayer.api.waiting import DEFAULT_MAX_OUTAGE, Step, Wait
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerTransientError,
    PromptLayerUnknownConnectionError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.memory import OutageMemory
from airflow_provider_promptlayer.task_errors import task_error

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.triggers.base import BaseTrigger

_DECISIONS = (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    compat.RescheduleException,
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
        a pace that fits the work, see :class:`.api.pace.Pace`; in ``mode="reschedule"`` that is
        Airflow's own 60 s.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach
        before the task fails.
    """

    ui_color = "#e8e4fb"

    subject_type: ClassVar[type[Subject[Any]]]
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
        self._subject: Subject[L] | None = None  # once known
        self._outage_memory: OutageMemory | None = None
        self._resumed = False  # whether this process came back to a wait
        self._is_over = False  # whether the subject was seen to have ended

    @cached_property
    def hook(self) -> PromptLayerHook:
        """The hook for ``promptlayer_conn_id``."""
        return PromptLayerHook(self.promptlayer_conn_id)

    @abstractmethod
    def identify(self, context: Context) -> Subject[L] | None:
        """Return what to wait for, or None if there is nothing."""

    @abstractmethod
    def recall(self, context: Context) -> Subject[L] | None:
        """Return what this task waited for when it left the worker, or None if that is lost."""

    @abstractmethod
    def trigger(self, subject: Subject[L], **how: Any) -> BaseTrigger:
        """Return the trigger that waits for ``subject``.

        :param how: the arguments of :class:`.triggers.base.PromptLayerTrigger`.
        """

    @abstractmethod
    def judge(self, ending: L) -> None:
        """Raise if an ending counts as a failure."""

    def check_contents(self, ending: L) -> None:
        """Raise if a success has not left what :meth:`deliver` is to hand on.

        :raises PromptLayerInvalidInputError: naming what is missing.
        """

    @abstractmethod
    def deliver(self, context: Context, ending: L) -> Any:
        """Hand on what an ending that counts as a success left; return the task's result."""

    def look(self, subject: Subject[L]) -> L:
        """Look once."""
        return self.hook.call(subject.read())

    def notes(self) -> dict[str, Any]:
        """Return what this task has to find again, as JSON, when it comes back from a deferral."""
        return {}

    def without(self, context: Context) -> Any:
        """Return the task's result where there is nothing to wait for."""

    def record(self, context: Context, ending: L) -> None:
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
            self._subject = subject = self.identify(context)
            if subject is None:
                return self.without(context)
            return self._go_on(context, subject)

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
            self._subject = subject = state.subject(self.subject_type)
            self.cancels_on_kill = state.is_own
            if state.base_url is not None:
                self._stay_at(state.base_url, subject.name)
            read_event(event, subject_id=subject.id)
            self._is_over = True
            wait = self._new_wait(
                subject,
                state.started_at,
                deadline=state.deadline,
                # It has ended in time: a blip in fetching what it left is no time-out.
                grace=max(
                    0.0,
                    min(time.time() + self.max_outage, self._must_end_by(context)) - state.deadline,
                ),
                outage_since=state.outage_since,
            )
            return self._finish(context, self._wait_to_the_end(subject, wait))

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
            self._subject = self.recall(context)
            reason = str((next_kwargs or {}).get("error", "unknown"))
            for line in (next_kwargs or {}).get("traceback") or []:
                self.log.error("%s", line.rstrip())
            # Airflow 2 tells the two apart by this text alone.
            if "timeout" in reason.lower():
                raise PromptLayerWaitTimeoutError(
                    f"The wait did not end within {self.timeout:.0f} s, and no triggerer ended it. "
                    f"{self._left()}"
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
            subject = self._subject or self.identify(context)
            if subject is None:
                return PokeReturnValue(is_done=True)
            try:
                look = self.look(subject)
            except PromptLayerTransientError as error:
                self.log.warning("%s", error)
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=look.is_complete, xcom_value=subject.id)

    def on_kill(self) -> None:
        """Cancel what this task has started, where PromptLayer can; else say that it goes on.

        Nothing more is started afterwards, as Airflow 3 lets the task go on until it is killed.
        """
        self.hook.stop_starting()
        subject = self._subject
        if subject is None:
            return
        if self._is_over:
            self.log.warning("The task is being stopped. %s has ended.", subject)
            return
        if not self.cancels_on_kill:
            self.log.warning("The task is being stopped. %s", self._left())
            return
        try:
            what_became = self.hook.converse(cancellation(subject), self.hook.call_apart)
        except Exception:
            self.log.exception("Could not cancel %s, which goes on at PromptLayer.", subject.name)
        else:
            self.log.warning("The task is being stopped. %s %s.", subject, what_became)

    def _go_on(self, context: Context, subject: Subject[L]) -> Any:
        """Do what is to be done once it is known what to wait for: wait, and hand on."""
        started_at = self._started_at(context)
        if self.reschedule and not self.deferrable:
            self._outage_memory = OutageMemory.of(context)
        wait = self._new_wait(
            subject,
            started_at,
            deadline=min(started_at + self.timeout, self._must_end_by(context)),
            outage_since=self._outage_so_far(),
        )
        return self._finish(context, self._wait_to_the_end(subject, wait))

    def _outage_so_far(self) -> float | None:
        """Return since when earlier visits of this try could not ask, as far as known."""
        if self._outage_memory is None:
            return None
        try:
            return self._outage_memory.read()
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
        subject = self.recall(context)
        if subject is None:
            raise PromptLayerEventError("The task was resumed without its own notes.")
        now = time.time()
        return ResumeState(
            asdict(subject),
            started_at=now,
            deadline=min(now + self.timeout, self._must_end_by(context)),
            is_own=self.cancels_on_kill,
        ).payload()

    def _must_end_by(self, context: Context) -> float:  # noqa: ARG002
        """Return when the wait has to be over, whatever its ``timeout``, since the epoch."""
        return math.inf

    def _wait_to_the_end(self, subject: Subject[L], wait: Wait) -> L:
        """Look until the subject has ended; or leave the worker, to come back later."""
        while True:
            time.sleep(wait.before_look(now=time.time()))
            try:
                look = self.look(subject)
                step = wait.after_look(look, now=time.time())
            except PromptLayerTransientError as error:
                step = wait.after_error(error, now=time.time())
            else:
                self._is_over = step.is_done
                if step.is_done:
                    if step.ends_outage or not self._resumed:  # else the triggerer has said it
                        self._log_step(step)
                    return look
            self._log_step(step)
            if self.deferrable:
                next_look_at = wait.hand_over(
                    step,
                    settle=SETTLE_SECONDS,
                    now=time.time(),
                    is_contradicted=self._is_contradicted,
                )
                self._defer(subject, wait, next_look_at=next_look_at)
            if self.reschedule and self._may_leave(wait):
                wake_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
                    seconds=step.sleep
                )
                raise compat.RescheduleException(wake_at)
            time.sleep(step.sleep)

    def _defer(self, subject: Subject[L], wait: Wait, *, next_look_at: float) -> NoReturn:
        deadline = wait.started_at + self.timeout if wait.deadline is None else wait.deadline
        last_deadline = deadline + wait.grace
        # The triggerer goes on with an outage that the worker has met. One met after it had
        # ended, in fetching what the triggerer never asks for, is counted from visit to visit.
        outage_there, outage_here = (
            (None, wait.outage_since) if self._resumed else (wait.outage_since, None)
        )
        self.defer(
            trigger=self.trigger(
                subject,
                promptlayer_conn_id=self.promptlayer_conn_id,
                poke_interval=wait.pace.poke_interval,
                exponential_backoff=wait.pace.exponential_backoff,
                max_wait=wait.pace.max_wait,
                max_outage=wait.max_outage,
                started_at=wait.started_at,
                deadline=last_deadline,
                next_look_at=next_look_at,
                outage_since=outage_there,
                cancel_on_kill=self.cancels_on_kill,
                is_gone_back_to=self.is_gone_back_to,
                base_url=self.hook.stays_at,
            ),
            method_name="execute_complete",
            kwargs={
                "waiting": ResumeState(
                    asdict(subject),
                    wait.started_at,
                    deadline,
                    outage_here,
                    self.cancels_on_kill,
                    self.hook.stays_at,
                ).payload()
                | self.notes()
            },
            timeout=airflow_timeout(max(last_deadline, next_look_at) - time.time()),
        )

    @property
    def is_gone_back_to(self) -> bool:
        """Whether the next try goes on with the subject, should this one be cleared."""
        return True

    @property
    def _is_contradicted(self) -> bool:
        """Whether what goes on was said to have ended: so the triggerer does, when it resumes."""
        return self._resumed

    def _stay_at(self, base_url: str, about: str) -> None:
        way_back = compat.way_back(is_noted=self.is_gone_back_to)
        self.hook.stay_at(base_url, about=about, way_back=way_back)

    def _may_leave(self, wait: Wait) -> bool:
        """Return whether the next process will know what this one knows of an outage.

        If not, the worker is kept until the outage ends, one way or the other: better than a task
        that never learns that it has lasted for too long.
        """
        if self._outage_memory is None:
            return wait.outage_since is None
        self._outage_memory.write(wait.outage_since)
        return True

    def _started_at(self, context: Context) -> float:
        if self.reschedule and not self.deferrable:
            first = compat.first_reschedule_date(context, self.retries or 0)
            if first is not None:
                self.hook.connection_was_there = True
                return first.timestamp()
        return time.time()

    def _finish(self, context: Context, ending: L) -> Any:
        self.record(context, ending)
        self.judge(ending)
        return self.deliver(context, ending)

    def _new_wait(
        self,
        subject: Subject[L],
        started_at: float,
        *,
        deadline: float,
        grace: float = 0.0,
        outage_since: float | None = None,
    ) -> Wait:
        return Wait(
            subject.name,
            self._pace(),
            started_at=started_at,
            deadline=deadline,
            grace=grace,
            max_outage=self.max_outage,
            outage_since=outage_since,
        )

    def _pace(self) -> Pace:
        return Pace(
            self.poke_interval if self._keeps_interval else None,
            self.exponential_backoff,
            self.max_wait.total_seconds() if self.max_wait is not None else None,
        )

    def _left(self) -> str:
        named = "What it waited for" if self._subject is None else str(self._subject)
        return f"{named} {self.subject_type.when_left}."

    def _log_step(self, step: Step) -> None:
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
