# SPDX-License-Identifier: Apache-2.0
"""The wait in the triggerer: a loop around the pure decision of :mod:`..api.waiting`.

Only ever GETs, so it may run twice at once without harm, as Airflow allows triggers to. Carries
the id of the connection and never the key.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_promptlayer import compat
from airflow_provider_promptlayer.api.events import Outcome, WaitEvent, event_for
from airflow_provider_promptlayer.api.pace import Pace
from airflow_provider_promptlayer.api.subjects import Subject, glances
from airflow_provider_promptlayer.api.talks import cancellation
from airflow_provider_promptlayer.api.waiting import DEFAULT_MAX_OUTAGE, Step, Wait
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.triggers.on_kill import (
    DetachedWork,
    is_user_action,
    state_of,
    warm_up,
)

_CONNECTION_TRIES = 5

_CANCEL_PATIENCE = 300.0
"""Seconds for which Airflow is asked about a task that was ended, and PromptLayer to cancel."""


class PromptLayerTrigger(BaseTrigger):
    """Wait in the triggerer until something has ended.

    Fires one small event: the id, the outcome and a line for people, and none of the outputs. All
    times are wall-clock seconds since the epoch, so that they mean the same in the process that
    takes over after a restart.

    :param promptlayer_conn_id: id of the Airflow connection.
    :param poke_interval: seconds between two looks; None for a pace that fits the work.
    :param exponential_backoff: as for Airflow's sensors.
    :param max_wait: longest interval in seconds, or None.
    :param max_outage: seconds for which PromptLayer may be out of reach.
    :param started_at: when the wait began; None for now.
    :param deadline: when it ends without success; None for never.
    :param next_look_at: when to look first; None for as soon as may be.
    :param outage_since: since when PromptLayer is out of reach; None if it is not.
    :param cancel_on_kill: whether it is the task's own. Then it is cancelled when a user ends the
        task, or clears it and the next try does not go back to it, where PromptLayer can.
    :param is_gone_back_to: whether the next try of a task that is cleared goes back to it, if
        Airflow keeps the task's state.
    :param base_url: where it was started, if that is known: it is asked about nowhere else.
    """

    def __init__(
        self,
        *,
        promptlayer_conn_id: str = PromptLayerHook.default_conn_name,
        poke_interval: float | None = None,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        started_at: float | None = None,
        deadline: float | None = None,
        next_look_at: float | None = None,
        outage_since: float | None = None,
        cancel_on_kill: bool = False,
        is_gone_back_to: bool = True,
        base_url: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.promptlayer_conn_id = promptlayer_conn_id
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.max_outage = max_outage
        self.started_at = time.time() if started_at is None else started_at
        self.deadline = deadline
        self.next_look_at = next_look_at
        self.outage_since = outage_since
        self.cancel_on_kill = cancel_on_kill
        self.is_gone_back_to = is_gone_back_to
        self.base_url = base_url
        self._hook: PromptLayerHook | None = None  # of the wait, once it has begun
        self._polled_at: float | None = None
        self._is_over = False
        self._ending: DetachedWork | None = None

    @property
    def log(self) -> Any:
        """The logger of the class: one for each of thousands of waits would take 1 kB."""
        return type(self).logger()

    @abstractmethod
    def ids(self) -> dict[str, Any]:
        """Return the arguments that say what is waited for; the last is its own id."""

    @abstractmethod
    def subject(self) -> Subject[Any]:
        """Return what is waited for.

        :raises PromptLayerInvalidInputError: if the arguments are no ids.
        """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that make it anew."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                **self.ids(),
                "promptlayer_conn_id": self.promptlayer_conn_id,
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "max_outage": self.max_outage,
                "started_at": self.started_at,
                "deadline": self.deadline,
                "next_look_at": self.next_look_at,
                "outage_since": self.outage_since,
                "cancel_on_kill": self.cancel_on_kill,
                "is_gone_back_to": self.is_gone_back_to,
                "base_url": self.base_url,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the one event."""
        try:
            event = await self._wait(self.subject())
        except PromptLayerError as error:
            event = to_worker(event_for([*self.ids().values()][-1], error))
        except asyncio.CancelledError as cancel:
            if is_user_action(cancel):
                await self.on_kill()  # now, as Airflow's own call may never come
            raise
        self._is_over = True
        yield event

    async def on_kill(self) -> None:
        """Cancel it, or say that it goes on, when nothing waits for it here any more.

        For Airflow 3.3 and later. The work goes on if this is cancelled; see :mod:`.on_kill`.
        """
        if self._is_over:
            return
        if self._ending is None:
            self._ending = DetachedWork(self._end(self.subject()))
        await self._ending.wait()

    async def _end(self, subject: Subject[Any]) -> None:
        try:
            if not self._may_cancel(subject):
                self.log.warning("The task no longer waits here. %s", self._left(subject))
            elif self.deadline is not None and time.time() >= self.deadline:
                self.log.warning("The time for %s was up: it is not cancelled.", subject.name)
            elif not await self._goes_on(subject):
                what_became = await self._cancel(subject)
                self.log.warning("The task no longer waits here. %s %s.", subject, what_became)
        except asyncio.CancelledError:
            self.log.error(
                "The triggerer stops before it could cancel %s: if the task was ended, cancel it "
                "in PromptLayer.",
                subject.name,
            )
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, a person has to know
            self.log.error(
                "The task no longer waits here. %s goes on at PromptLayer, as it could not be "
                "cancelled (%s).",
                subject,
                str(error) or type(error).__name__,
            )

    def _may_cancel(self, subject: Subject[Any]) -> bool:
        return self.cancel_on_kill and subject.cancel() is not None

    async def _goes_on(self, subject: Subject[Any]) -> bool:
        """Return whether the task goes on with the subject elsewhere, and say so.

        Where Airflow cannot be asked, it does: an evaluation that goes on is paid for once, while
        one that is cancelled under a task that waits for it fails a task that nobody has touched,
        and its retry pays for another.
        """
        if self.task_instance is None or not compat.ON_KILL_IS_AMBIGUOUS:
            return False
        try:
            state = await state_of(self.task_instance, patience=_CANCEL_PATIENCE)
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing is known
            self.log.error(
                "Could not ask Airflow for %.0f s whether the task goes on with %s (%s), which is "
                "not cancelled: if the task was ended, cancel it in PromptLayer.",
                _CANCEL_PATIENCE,
                subject.name,
                str(error) or type(error).__name__,
            )
            return True
        is_another_try = state != compat.GONE and state not in compat.FINAL_STATES
        if state == "deferred" or (is_another_try and self.is_gone_back_to):
            self.log.info(
                "The task (%s) goes on with %s elsewhere: not cancelling it.",
                state or "about to be scheduled",
                subject.name,
            )
            return True
        return False

    async def _cancel(self, subject: Subject[Any]) -> str:
        """Cancel it unless it has ended; return what became of it.

        :raises PromptLayerError: if PromptLayer did not confirm it.
        """
        hook = self._hook or self._new_hook()
        patience = Wait(
            subject.name,
            Pace(0.0),
            started_at=time.time(),
            deadline=None,
            max_outage=_CANCEL_PATIENCE,
        )
        await self._read_connection(hook, patience)
        if subject.may_cancel() is None:  # else that tells whether it has ended
            with suppress(PromptLayerError):
                if (await hook.acall(subject.peek())).is_complete:
                    return "had ended and was not cancelled"
        return await hook.aconverse(
            cancellation(subject),
            lambda call: hook.aask(call, about=subject.name, max_outage=_CANCEL_PATIENCE),
        )

    def _left(self, subject: Subject[Any]) -> str:
        """Return what is known of a subject that nothing can or may cancel, for people."""
        when = (
            "when the task was deferred"
            if self._polled_at is None
            else f"when it was last polled, {time.time() - self._polled_at:.0f} s ago"
        )
        lines = [f"{subject} was going on {when}."]
        if subject.cancel() is None:
            lines.append("PromptLayer cannot cancel it.")
        if self.cancel_on_kill:
            lines.append(
                "If the task was cleared, its next try starts another one."
                if not self.is_gone_back_to
                else "If the task was cleared, its next try goes back to it."
                if compat.ON_KILL_IS_AMBIGUOUS
                else "If the task was cleared, its next try starts another one, unless Airflow "
                "was told to keep the task's state."
            )
        return " ".join(lines)

    async def _wait(self, subject: Subject[Any]) -> TriggerEvent:
        if self._may_cancel(subject) and self.task_instance and compat.ON_KILL_IS_AMBIGUOUS:
            warm_up(self.task_instance)
        wait = self._new_wait(subject)
        hook = await self._begin(wait)
        await self._until_ended(hook, wait, subject)
        return await self.ended(hook, subject)

    async def _begin(self, wait: Wait) -> PromptLayerHook:
        """Let pass what time has to pass before the first look, and read the connection."""
        hook = self._hook = self._new_hook()
        pause = wait.take_over(self.next_look_at, now=time.time())
        # By this machine's clock, for the runs of a batch, which have waits of their own.
        self.started_at, self.deadline = wait.started_at, wait.deadline
        await asyncio.sleep(pause)
        await self._read_connection(hook, wait)
        return hook

    def _new_hook(self) -> PromptLayerHook:
        hook = PromptLayerHook(self.promptlayer_conn_id)
        hook.connection_was_there = self.next_look_at is not None  # for the worker that planned it
        if self.base_url is not None:
            way_back = compat.way_back(is_noted=self.is_gone_back_to)
            hook.stay_at(self.base_url, about=self.subject().name, way_back=way_back)
        return hook

    async def _until_ended(self, hook: PromptLayerHook, wait: Wait, subject: Subject[Any]) -> None:
        """Look until one thing has ended."""
        wait.throttle = hook.throttle
        glance = glances(subject.peek())
        patience = _ConnectionPatience()
        while True:
            # The pool of one set of settings; another one when the connection has changed.
            async with hook.async_transport() as transport:
                settings = hook.settings
                while settings is hook.settings:
                    if (hold := wait.before_look(now=time.time())) > 0:
                        await asyncio.sleep(hold)
                    try:
                        look = await hook.acall(glance, transport, deadline=wait.deadline)
                        self._polled_at = time.time()
                        step = wait.after_look(look, now=self._polled_at)
                        patience = _ConnectionPatience()
                    except PromptLayerError as error:
                        step = wait.after_error(patience.applied_to(error), now=time.time())
                    self._log_step(step)
                    if step.is_done:
                        return
                    await asyncio.sleep(step.sleep)

    async def ended(self, hook: PromptLayerHook, subject: Subject[Any]) -> TriggerEvent:  # noqa: ARG002
        """Return the event for a subject that has ended: a worker reads how."""
        return to_worker(WaitEvent(subject.id, Outcome.ENDED, ""))

    def _new_wait(self, subject: Subject[Any]) -> Wait:
        return Wait(
            subject.name,
            Pace(self.poke_interval, self.exponential_backoff, self.max_wait),
            started_at=self.started_at,
            deadline=self.deadline,
            max_outage=self.max_outage,
            outage_since=self.outage_since,
        )

    async def _read_connection(self, hook: PromptLayerHook, wait: Wait) -> None:
        patience = _ConnectionPatience()
        while True:
            try:
                await hook.aget_settings()
                return
            except PromptLayerError as error:
                step = wait.after_error(patience.applied_to(error), now=time.time())
            self._log_step(step)
            await asyncio.sleep(step.sleep)

    def _log_step(self, step: Step) -> None:
        if step.note:
            (self.log.warning if step.is_trouble else self.log.info)("%s", step.note)


class _ConnectionPatience:
    """How often the connection may be found unusable before that is believed.

    Airflow calls a connection undefined also where its own server could not be asked. Of one that
    was there before, the hook says so.
    """

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        self._failed = 0

    def applied_to(self, error: PromptLayerError) -> PromptLayerError:
        """Return the error, or one that may pass in its place while there are tries left."""
        if not isinstance(error, PromptLayerConfigurationError):
            return error
        self._failed += 1
        if self._failed >= _CONNECTION_TRIES:
            return error
        return PromptLayerTransientError(str(error))


def to_worker(event: WaitEvent) -> TriggerEvent:
    """Return the event of Airflow that carries ours to a worker."""
    return TriggerEvent(event.payload())  # type: ignore[no-untyped-call]  # Airflow's
