# SPDX-License-Identifier: Apache-2.0
"""The wait for a batch in the triggerer: one trigger, however many runs.

Not every run has to be polled all the time. As long as more runs than may be left are known to go
on, the others cannot end the wait, so they are polled when one of these has ended. A batch of a
thousand runs asks as often as some twenty waits do, and once for each of the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from airflow.triggers.base import TriggerEvent

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling.poller import PollDecision
from airflow_provider_promptlayer.submission.batch import WorkflowRuns
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger

_WATCHERS: Final = 20
"""How many runs are watched beyond those that may be left: so many at a time are caught up with."""

_BETWEEN_TROUBLES: Final = 60.0
"""Seconds between two lines about trouble, which all the runs have at the same time."""


class PromptLayerWorkflowBatchTrigger(PromptLayerTrigger):
    """Wait in the triggerer until at most so many of some workflow runs are left.

    A run that PromptLayer does not know, or whose answer is too large, counts as one that has
    ended: the worker finds out.

    :param ended: how many runs of the batch had ended before, for progress in the log.
    :param total: how many runs the batch has with these; None if it has no others.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    job_types = (WorkflowRuns,)

    def __init__(self, *, ended: int = 0, total: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ended_before = ended
        self.total = total
        self._outage_since = None if self._state is None else self._state.outage_since
        self._troubled_at = self._answered_at = 0.0
        # Whether a log, here or the worker's, has the beginning of an outage and not its end.
        self._owes_recovery = self._outage_since is not None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that make it anew."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "ended": self.ended_before, "total": self.total}

    def _left(self, job: RemoteJob[Any]) -> str:
        """Return which runs go on, as far as is known."""
        runs = ", ".join(map(str, self.state.job.workflow_version_execution_ids))
        return f"{super()._left(job)} Its runs: {runs}."

    async def _wait(self, job: RemoteJob[Any]) -> TriggerEvent:
        poller = self._new_poller(job)
        hook = await self._begin(poller)
        self._outage_since = poller.outage_since
        batch: WorkflowRuns = self.state.job
        runs, until = deque(batch.runs), batch.until
        if len(runs) > until:
            await self._until_few_are_left(hook, runs, until)
        return await self.ended(hook, job)

    async def _until_few_are_left(
        self, hook: PromptLayerHook, runs: deque[WorkflowRun], until: int
    ) -> None:
        """Watch as many runs at a time as it takes; each watcher goes on to the next run."""
        total = self.ended_before + len(runs) if self.total is None else self.total
        progress = _Progress(
            unfinished=len(runs), until=until, ended=self.ended_before, total=total
        )

        async def watch() -> None:
            first = True
            while runs:
                run = runs.popleft()
                poller = self._new_poller(run)
                poller.outage_since = self._outage_since
                if first:  # not all at the same moment
                    await asyncio.sleep(poller.resume_delay(None, now=time.time()))
                    first = False
                try:
                    async with hook.sender(poller) as send:
                        await self._until_ended(send, poller, run)
                except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError) as error:
                    self.log.warning("%s", error)
                except PromptLayerOutageError as error:
                    if self._answered_at < time.time() - self.max_outage:
                        raise
                    self.log.warning("%s", error)  # it alone: the worker finds out
                except PromptLayerWaitTimeoutError as error:
                    progress.add_late(error)
                    continue
                self._outage_since = None  # PromptLayer has answered
                if note := progress.add_ended():
                    self.log.info("%s", note)

        watchers = [
            asyncio.create_task(progress.follow(watch()))
            for _ in range(min(until + _WATCHERS, len(runs)))
        ]
        try:
            await progress.few_are_left
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    def _on_decision(self, decision: PollDecision) -> None:
        if not (decision.is_trouble or decision.is_hold):
            self._answered_at = time.time()
        super()._on_decision(decision)

    def _log_decision(self, decision: PollDecision) -> None:
        # What each run says of itself is too much of a thousand.
        if decision.is_trouble:
            if decision.note and time.time() - self._troubled_at > _BETWEEN_TROUBLES:
                self._troubled_at = time.time()
                self._owes_recovery = True
                super()._log_decision(decision)
        elif decision.ends_outage and self._owes_recovery:
            self._owes_recovery = False
            super()._log_decision(decision)


class _Progress:
    """What the watchers have found together.

    :param unfinished: how many runs are watched.
    :param until: how many of them may be left.
    :param ended: how many others had ended before.
    :param total: how many runs the whole batch has.
    """

    def __init__(self, *, unfinished: int, until: int, ended: int, total: int) -> None:
        self.few_are_left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unfinished = unfinished
        self._until = until
        self._ended = ended
        self._total = total
        self._late = 0

    async def follow(self, watch: Coroutine[Any, Any, None]) -> None:
        """Let a watcher work; whatever it raises ends the wait."""
        try:
            await watch
        except Exception as error:  # noqa: BLE001
            if not self.few_are_left.done():
                self.few_are_left.set_exception(error)

    def add_ended(self) -> str | None:
        """Count a run that has ended; return a line at each tenth of the batch."""
        self._unfinished -= 1
        self._ended += 1
        if self._unfinished <= self._until and not self.few_are_left.done():
            self.few_are_left.set_result(None)
        if self._ended * 10 // self._total == (self._ended - 1) * 10 // self._total:
            return None
        return f"{self._ended} of {self._total} runs have ended."

    def add_late(self, error: PromptLayerWaitTimeoutError) -> None:
        """Count a run that goes on although the time is up: certainly one of those left.

        :raises PromptLayerWaitTimeoutError: if more are left than may be.
        """
        self._late += 1
        if self._late > self._until:
            raise PromptLayerWaitTimeoutError(
                f"{error} {self._ended} of {self._total} runs of the batch were seen to have ended."
            )
