# SPDX-License-Identifier: Apache-2.0
"""The wait for a batch in the triggerer: one trigger, however many runs.

Not every run has to be polled all the time. The wait cannot end while more runs than may be left
are known to go on. So the trigger polls only some runs, and another one when one of these has
ended. A batch of a thousand runs polls as often as some twenty waits, and once for each other run.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final, Unpack

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.hooks.sender import Sender
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.submission.batch import WorkflowRuns
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger, TriggerKwargs

_WATCHERS: Final = 20
"""How many runs are polled at a time, beyond those that may be left."""

_BETWEEN_TROUBLES: Final = 60.0
"""Seconds between two log lines about failed polls: those of all runs fail at the same time."""


class PromptLayerWorkflowBatchTrigger(PromptLayerTrigger):
    """Wait in the triggerer until few enough of a batch's workflow runs go on.

    A run that PromptLayer does not know, or whose answer is too large, counts as ended here: a
    worker finds out why.

    :param ended: how many runs of the batch had ended before, for progress in the log.
    :param total: how many runs the batch has in all; None if it has no others.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    job_types = (WorkflowRuns,)

    def __init__(
        self, *, ended: int = 0, total: int | None = None, **kwargs: Unpack[TriggerKwargs]
    ) -> None:
        super().__init__(**kwargs)
        self.ended_before = ended
        self.total = total
        self._outage_since: float | None = None
        self._troubled_at = self._answered_at = 0.0
        # Whether the task's log has the beginning of an outage but not its end.
        self._owes_recovery = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that recreate the trigger."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "ended": self.ended_before, "total": self.total}

    def _left(self, job: RemoteJob[Any]) -> str:
        """Return which runs go on, as far as is known."""
        runs = ", ".join(map(str, self.state.job.workflow_version_execution_ids))
        return f"{super()._left(job)} Its runs: {runs}."

    async def _until_ended(self, send: Sender, poller: Poller, job: Any) -> None:
        """Poll as many runs at a time as necessary; each watcher goes on to the next run."""
        self._outage_since = poller.outage_since
        self._owes_recovery = poller.outage_since is not None
        hook, poll = send.hook, super()._until_ended
        runs, until = deque(job.runs), job.until
        total = self.ended_before + len(runs) if self.total is None else self.total
        unfinished, ended, late = len(runs), self.ended_before, 0

        async def watch() -> None:
            nonlocal unfinished, ended, late
            is_first = True
            while runs and unfinished > until:
                run = runs.popleft()
                poller = self._new_poller(run)
                poller.outage_since = self._outage_since
                if is_first:  # not all at the same moment
                    await asyncio.sleep(poller.resume_delay(None, now=time.time()))
                    is_first = False
                try:
                    async with hook.sender(poller) as send:
                        await poll(send, poller, run)
                except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError) as error:
                    self.log.warning("%s", error)
                except PromptLayerOutageError as error:
                    if self._answered_at < time.time() - self.max_outage:
                        raise
                    self.log.warning("%s", error)  # this run alone: a worker finds out why
                except PromptLayerWaitTimeoutError as error:
                    late += 1  # it goes on: certainly one of those that are left
                    if late > until:
                        raise PromptLayerWaitTimeoutError(
                            f"{error} {ended} of {total} runs of the batch were seen to have ended."
                        ) from error
                    continue
                self._outage_since = None  # PromptLayer has answered
                unfinished, ended = unfinished - 1, ended + 1
                if ended * 10 // total > (ended - 1) * 10 // total:  # at each tenth
                    self.log.info("%s of %s runs have ended.", ended, total)

        watchers = [asyncio.create_task(watch()) for _ in range(min(until + _WATCHERS, len(runs)))]
        pending = set(watchers)
        try:
            while pending and unfinished > until:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for watcher in done if unfinished > until else ():
                    watcher.result()  # raises the error that ends the wait
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    def _on_decision(self, decision: PollDecision) -> None:
        if not (decision.is_trouble or decision.is_hold):
            self._answered_at = time.time()
        super()._on_decision(decision)

    def _log_decision(self, decision: PollDecision) -> None:
        # A line for each of a thousand runs would be too much.
        if decision.is_trouble:
            if decision.note and time.time() - self._troubled_at > _BETWEEN_TROUBLES:
                self._troubled_at = time.time()
                self._owes_recovery = True
                super()._log_decision(decision)
        elif decision.ends_outage and self._owes_recovery:
            self._owes_recovery = False
            super()._log_decision(decision)
