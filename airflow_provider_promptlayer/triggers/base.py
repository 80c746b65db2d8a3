# SPDX-License-Identifier: Apache-2.0
"""The wait in the triggerer.

A trigger polls with GETs alone, so it may run twice at once without harm, as Airflow allows.
Airflow stores the id of its connection, and never the key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, Final, TypedDict

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.api.job import RemoteJob, cancellation, summarized
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.hooks import metrics
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.sender import Sender
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.event import Outcome, WaitEvent, event_for
from airflow_provider_promptlayer.polling.loop import adrive, ask_with_backoff, poll_until_ended
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE, PollDecision, Poller
from airflow_provider_promptlayer.polling.schedule import PollSchedule
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.triggers.on_kill import (
    DetachedWork,
    is_user_action,
    state_of,
    warm_up,
)

_schedule: Final = lru_cache(PollSchedule)
"""Thousands of waits share their schedules, as each object of each prolongs garbage collection."""


class TriggerKwargs(TypedDict, total=False):
    """The arguments of :class:`.PromptLayerTrigger`, for the signatures of its subclasses."""

    state: PollState[Any] | Mapping[str, Any] | None
    promptlayer_conn_id: str
    poke_interval: float | None
    exponential_backoff: bool
    max_wait: float | None
    max_outage: float
    reattaches_after_clear: bool


class PromptLayerTrigger(BaseTrigger):
    """Wait in the triggerer until a job has ended.

    Fires one small event: the id, the outcome and a line for people, and none of the outputs.

    :param state: the wait so far, or what :meth:`.PollState.payload` returned of it. A job that the
        task has submitted is cancelled, where PromptLayer can and ``cancel_on_kill`` is set, when a
        user ends the task, or clears it and the next try does not go back to the job.
    :param promptlayer_conn_id: id of the Airflow connection.
    :param poke_interval: seconds between two polls; None for intervals that grow with the wait.
    :param exponential_backoff: as for Airflow's sensors.
    :param max_wait: longest interval in seconds, or None.
    :param max_outage: seconds for which PromptLayer may be out of reach.
    :param reattaches_after_clear: whether the next try of a task that is cleared goes back to the
        job, if Airflow keeps the task's state.
    :raises TypeError: for a state that this release cannot read. Airflow then fails this wait; any
        other error here would end the whole triggerer, with every wait in it.
    """

    job_types: ClassVar[tuple[type[RemoteJob[Any]], ...]]
    """The classes of job that this trigger may wait for."""

    def __init__(
        self,
        *,
        state: PollState[Any] | Mapping[str, Any] | None = None,
        promptlayer_conn_id: str = PromptLayerHook.default_conn_name,
        poke_interval: float | None = None,
        exponential_backoff: bool = False,
        max_wait: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        reattaches_after_clear: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.promptlayer_conn_id = promptlayer_conn_id
        self.poke_interval = poke_interval
        self.exponential_backoff = exponential_backoff
        self.max_wait = max_wait
        self.max_outage = max_outage
        self.reattaches_after_clear = reattaches_after_clear
        if isinstance(state, Mapping):
            try:
                state = PollState.read(state, *self.job_types)
            except PromptLayerEventError as error:
                raise TypeError(str(error)) from None
        self._state = state
        self._hook: PromptLayerHook | None = None  # once the wait has begun
        self._polled_at: float | None = None
        self._is_over = False
        self._ending: DetachedWork | None = None

    @property
    def state(self) -> PollState[Any]:
        """The wait so far: the one that a worker has deferred, or one that begins now.

        :raises PromptLayerInvalidInputError: if there is neither.
        """
        if self._state is None:
            self._state = self._new_state()
        return self._state

    def _new_state(self) -> PollState[Any]:
        raise PromptLayerInvalidInputError("A trigger needs the state of its wait.")

    @property
    def log(self) -> Any:
        """The logger of the class: a logger for each of thousands of waits would take 1 kB."""
        return type(self).logger()

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that recreate the trigger."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "state": None if self._state is None else self._state.payload(),
                "promptlayer_conn_id": self.promptlayer_conn_id,
                "poke_interval": self.poke_interval,
                "exponential_backoff": self.exponential_backoff,
                "max_wait": self.max_wait,
                "max_outage": self.max_outage,
                "reattaches_after_clear": self.reattaches_after_clear,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire the one event."""
        try:
            job = self.state.job
            poller = self._new_poller(job)
            hook = await self._begin(poller)
            async with hook.sender(poller) as send:
                await self._until_ended(send, poller, job)
            event = await self.ended(hook, job)
        except PromptLayerError as error:
            external_id = "unknown" if self._state is None else self._state.job.id
            event = to_worker(event_for(external_id, error))
        except asyncio.CancelledError as cancel:
            if is_user_action(cancel):
                await self.on_kill()  # here, because Airflow's call of it may never come
            raise
        self._is_over = True
        yield event

    async def on_kill(self) -> None:
        """Cancel the job, or log that it goes on, as this trigger no longer waits for it.

        Airflow 3.3 and later call this. The work goes on when this coroutine is cancelled, see
        :mod:`.on_kill`.
        """
        if self._is_over:
            return
        if self._ending is None:
            self._ending = DetachedWork(self._end(self.state.job))
        await self._ending.wait()

    async def _end(self, job: RemoteJob[Any]) -> None:
        try:
            may_cancel, is_in_time = self._may_cancel(job), time.time() < self.state.last_deadline
            if (may_cancel and is_in_time) or self.undoes_more:
                if await self._is_waited_for_elsewhere(job):
                    return
                await self._undo(job)  # first: the job keeps the next try after a clear waiting
            if not may_cancel:
                self.log.warning("The task no longer waits here. %s", self._left(job))
            elif not is_in_time:
                self.log.warning("The time for %s was up: not cancelling it.", job.name)
            else:
                what_became = await self._cancel(job)
                self.log.warning("The task no longer waits here. %s %s.", job, what_became)
        except asyncio.CancelledError:
            self.log.error(
                "The triggerer stops before it could cancel %s: if the task was ended, cancel it "
                "in PromptLayer.",
                job.name,
            )
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, a person has to know
            self.log.error(
                "The task no longer waits here. %s goes on at PromptLayer, as it could not be "
                "cancelled (%s).",
                job,
                str(error) or type(error).__name__,
            )

    @property
    def undoes_more(self) -> str:
        """What :meth:`_undo` does, for people; empty if there is nothing to undo but the job."""
        return ""

    async def _undo(self, job: RemoteJob[Any]) -> None:
        """Undo what else the task has changed; must not raise, as the job is cancelled after it."""

    def _may_cancel(self, job: RemoteJob[Any]) -> bool:
        is_to_be = self.state.submitted_by_this_task and self.state.cancel_on_kill
        return is_to_be and job.cancel() is not None

    async def _is_waited_for_elsewhere(self, job: RemoteJob[Any]) -> bool:
        """Return whether another triggerer or try waits for the job now, and log that.

        If Airflow cannot be asked, the answer is yes. An evaluation that goes on is paid for once.
        One that is cancelled while a task waits for it fails a task that no user has ended, and the
        retry pays for another evaluation.
        """
        if self.task_instance is None or not version_compat.ON_KILL_IS_AMBIGUOUS:
            return False
        try:
            state = await state_of(self.task_instance)
        except Exception as error:  # noqa: BLE001  # whatever it is, the answer is unknown
            self.log.error(
                "Could not ask Airflow whether another triggerer or try waits for %s (%s; tried "
                "for %s). Not cancelling it: if the task was ended, cancel it in PromptLayer%s.",
                job.name,
                str(error) or type(error).__name__,
                in_words(retries.ASKING_AIRFLOW.give_up_after),
                f" and {self.undoes_more}" if self.undoes_more else "",
            )
            return True
        is_another_try = state != version_compat.GONE and state not in version_compat.FINAL_STATES
        if state == "deferred" or (is_another_try and self.reattaches_after_clear):
            self.log.info(
                "Another triggerer or try of the task (%s) waits for %s: not cancelling it.",
                state or "about to be scheduled",
                job.name,
            )
            return True
        return False

    async def _cancel(self, job: RemoteJob[Any]) -> str:
        """Cancel the job unless it has ended; return what became of the job.

        :raises PromptLayerError: if PromptLayer did not confirm the cancellation.
        """
        policy = retries.CANCELLING_IN_TRIGGERER
        hook = self._hook or self._new_hook()
        await self._read_connection(hook, Poller.of_call(job.name, policy, doubts_connection=True))
        if job.cancel_precondition() is None:  # else its answer tells whether the job has ended
            with suppress(PromptLayerError):
                if (await hook.acall(job.status_call())).is_complete:
                    return "had ended and was not cancelled"
        return await adrive(
            cancellation(job),
            lambda call: hook.acall_with_backoff(call, about=job.name, policy=policy),
        )

    def _left(self, job: RemoteJob[Any]) -> str:
        """Return lines for people about a job that cannot or must not be cancelled."""
        when = (
            "when the task was deferred"
            if self._polled_at is None
            else f"when it was last polled, {in_words(time.time() - self._polled_at)} ago"
        )
        lines = [f"{job} was going on {when}."]
        if job.cancel() is None:
            lines.append("PromptLayer cannot cancel it.")
        elif not self.state.cancel_on_kill:
            lines.append("It is not cancelled, as cancel_on_kill is False.")
        if self.state.submitted_by_this_task:
            lines.append(
                "If the task was cleared, its next try starts another one."
                if not self.reattaches_after_clear
                else "If the task was cleared, its next try goes back to it."
                if version_compat.CLEAR_KEEPS_STATE
                else "If the task was cleared, its next try starts another one, unless Airflow "
                "was told to keep the task's state."
            )
        return " ".join(lines)

    async def _begin(self, poller: Poller) -> PromptLayerHook:
        """Sleep until the first poll, and read the connection."""
        state, hook = self.state, self._new_hook()
        asks_airflow = self._may_cancel(state.job) or self.undoes_more
        if asks_airflow and self.task_instance and version_compat.ON_KILL_IS_AMBIGUOUS:
            warm_up(self.task_instance)
        pause = poller.resume_delay(
            state.next_poll_at,
            now=time.time(),
            after_trouble=state.fetch_outage_since is not None,
        )
        # The times by this machine's clock, for the pollers of a batch's runs.
        self._state = replace(state, began_at=poller.began_at, deadline=poller.deadline)
        self._hook = hook
        await asyncio.sleep(pause)
        await self._read_connection(hook, poller)
        return hook

    def _new_hook(self) -> PromptLayerHook:
        hook, state = PromptLayerHook(self.promptlayer_conn_id), self.state
        hook.was_connected = state.next_poll_at is not None  # when a worker planned the poll
        if state.base_url is not None:
            way_back = version_compat.way_back(is_noted=self.reattaches_after_clear)
            hook.stay_at(state.base_url, about=state.job.name, way_back=way_back)
        return hook

    def _read_connection(self, hook: PromptLayerHook, poller: Poller) -> Awaitable[Any]:
        return adrive(
            ask_with_backoff(poller, None, asks_airflow=True),
            lambda _: hook.aget_settings(),
            self._log_decision,
        )

    def _until_ended(self, send: Sender, poller: Poller, job: RemoteJob[Any]) -> Awaitable[Any]:
        """Poll until the job has ended.

        Not a coroutine function, as each of thousands of waits would hold one more coroutine.
        """
        return adrive(
            poll_until_ended(poller, summarized(job.status_call())), send, self._on_decision
        )

    async def ended(self, hook: PromptLayerHook, job: RemoteJob[Any]) -> TriggerEvent:  # noqa: ARG002
        """Return the event for a job that has ended: a worker reads how."""
        return to_worker(WaitEvent(job.id, Outcome.ENDED, "", ended_at=self._polled_at))

    def _new_poller(self, job: RemoteJob[Any]) -> Poller:
        schedule = _schedule(self.poke_interval, self.exponential_backoff, self.max_wait)
        state = self.state.without_old_outage(now=time.time())
        return state.poller(job, schedule, max_outage=self.max_outage, doubts_connection=True)

    def _on_decision(self, decision: PollDecision) -> None:
        if not decision.is_hold:
            kind = self.job_types[0].counted_as
            metrics.count_poll(kind, begins_outage=decision.begins_outage)
        if not (decision.is_trouble or decision.is_hold):
            self._polled_at = time.time()
        self._log_decision(decision)

    def _log_decision(self, decision: PollDecision) -> None:
        if decision.note:  # few decisions have one
            decision.log_to(self.log)


def to_worker(event: WaitEvent) -> TriggerEvent:
    """Return the event of Airflow that carries ours to a worker."""
    return TriggerEvent(event.payload())  # type: ignore[no-untyped-call]  # Airflow's
