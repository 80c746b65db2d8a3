# SPDX-License-Identifier: Apache-2.0
"""How the runs of a batch are started, each once, and noted for later tries.

Starts go out together, each in a thread. The thread of the task alone decides what is sent next,
keeps the state of the batch, and writes to Airflow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerOutageError,
    PromptLayerRefusedError,
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.bases.batch_inputs import BatchInputs
from airflow_provider_promptlayer.bases.recording import store_trouble, write_or_log
from airflow_provider_promptlayer.hooks.metrics import count_uncertain_starts
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.threads import DaemonThreads
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.submission.batch import Batch, Start, WorkflowRuns
from airflow_provider_promptlayer.submission.batch_input import Stage
from airflow_provider_promptlayer.submission.task_state import BatchState

_ABOUT_ONE: Final = frozenset({400, 413, 422})
"""The statuses of refusals that concern one input alone."""

_LAST_ANSWERS_SECONDS: Final = 5.0
"""How long to wait for answers to starts after an error has ended the task."""


class StartWindow:
    """How many starts may be under way at a time.

    One at first, so that one start alone meets what all would, such as a wrong key; after that as
    many as are allowed. After a refusal that may pass, such as a 429, half as many after a pause,
    and later one more for each round of answers. Refusals of starts that were sent before the
    pause count once, as they have one cause.

    :param most: how many are allowed.
    """

    def __init__(self, most: int) -> None:
        self.size = 1
        self._most = most
        self._sent = self._sent_before_pause = 0
        self._failures = 0  # in a row
        self._answers = 0  # since the last change of the size
        self._is_slowed = False
        self._lost_since: float | None = None

    def sent(self) -> int:
        """Note that a start is sent; return its number."""
        self._sent += 1
        return self._sent

    def answered(self) -> None:
        """Note that a start was answered."""
        self._failures, self._lost_since = 0, None
        self._answers += 1
        if not self._is_slowed:
            self.size = self._most
        elif self._answers >= self.size < self._most:
            self.size, self._answers = self.size + 1, 0

    def put_off(self, number: int, error: PromptLayerError) -> float | None:
        """Note that a start was not carried out; return the seconds to wait, or None to give up.

        :param number: from :meth:`sent`.
        """
        self._slow_down(number, self.size // 2)
        return retries.SUBMITTING.next_pause(max(1, self._failures), error, elapsed=0.0)

    def lost(self, number: int, now: float) -> float:
        """Note that a start was sent, and the answer lost; return the seconds to wait.

        Until a start is answered, one is sent at a time: each that is lost costs an input.

        :param number: from :meth:`sent`.
        :param now: the time in seconds since the epoch.
        """
        self._slow_down(number, 1)
        self.size, self._answers, self._is_slowed = 1, 0, True  # also if this burst was refused
        self._lost_since = now if self._lost_since is None else self._lost_since
        return retries.POLLING.pause(max(1, self._failures))

    def seconds_lost(self, now: float) -> float:
        """Return for how long no start was answered, since the first of them was lost."""
        return 0.0 if self._lost_since is None else now - self._lost_since

    def _slow_down(self, number: int, size: int) -> None:
        if number > self._sent_before_pause:
            self._sent_before_pause, self._is_slowed = self._sent, True
            self._failures, self._answers = self._failures + 1, 0
            self.size = max(1, size)


class _UnderWay:
    """The starts that are under way."""

    def __init__(self, window: StartWindow) -> None:
        self.window = window
        self.starts: dict[Future[int], tuple[int, int]] = {}  # to the input and the start's number
        self.sent: set[int] = set()  # the inputs whose starts may have been sent


@dataclass(frozen=True)
class BatchStarts:
    """Starts the inputs of a batch.

    :param hook: sends the starts.
    :param batch: records what became of each start.
    :param inputs: as they are rendered now.
    :param state: notes each step for later tries; None where Airflow keeps no task state.
    :param at_once: how many starts may be under way at a time.
    :param deadline: when to send no further start, in seconds since the epoch.
    :param max_outage: for how many seconds answers may be lost before no other start is sent.
    """

    hook: PromptLayerHook
    batch: Batch
    inputs: BatchInputs
    state: BatchState | None
    at_once: int
    deadline: float
    max_outage: float

    def start(self, max_active: int | None, check: Callable[[], None]) -> None:
        """Start inputs until no other may be started now, and every start is answered.

        Each start is noted before it is sent, in one write with those that are sent together.

        :param max_active: see :meth:`.Batch.plan`.
        :param check: called after answers; it may withhold the inputs that are left.
        :raises PromptLayerError: if other inputs would meet the same error. No start is under way
            then.
        """
        under_way = _UnderWay(StartWindow(self.at_once))
        with DaemonThreads(self.at_once) as threads:
            try:
                self._start_all(max_active, check, threads, under_way)
            except BaseException:  # also Airflow's time-out, and Ctrl-C
                self._settle(under_way)
                raise

    def _start_all(
        self,
        max_active: int | None,
        check: Callable[[], None],
        threads: DaemonThreads,
        under_way: _UnderWay,
    ) -> None:
        window, starts, failure = under_way.window, under_way.starts, None
        is_noted = True
        while True:
            step = self.batch.plan(max_active, window.size) if failure is None else None
            pause = self._pause() if isinstance(step, Start) else 0.0
            if isinstance(step, Start) and not pause:
                try:
                    for index, send in self._note(step):
                        under_way.sent.add(index)  # before it is: after an error in between, too
                        try:
                            future = threads.submit(send)
                        except PromptLayerTransientError:  # there is no thread for it
                            under_way.sent.discard(index)
                            raise
                        starts[future] = index, window.sent()
                    is_noted = True
                except PromptLayerError as error:
                    failure = error
            if not is_noted:  # no start is sent soon whose note would have the new ids, too
                self.note()
                is_noted = True
            if not starts:
                if failure is not None:
                    raise failure
                if not pause:
                    return
                time.sleep(pause)
                continue
            for future in wait(starts, pause or None, FIRST_COMPLETED).done:
                is_noted = False
                index, number = starts[future]
                ends = self._answer(future, index, number, window)
                failure = failure or ends
                del starts[future]  # not before: an error in between must not lose the answer
                under_way.sent.discard(index)
            try:
                check()
            except PromptLayerError as error:
                failure = failure or error

    def _settle(self, under_way: _UnderWay) -> None:
        """Take the answers of the next seconds, as whatever has ended the task may retry it."""
        batch = self.batch
        for index in batch.at(Stage.STARTING):
            if index not in under_way.sent:
                batch.not_started(index)
        for future in wait(under_way.starts, _LAST_ANSWERS_SECONDS).done:
            index, number = under_way.starts[future]
            if batch.inputs[index].stage is Stage.STARTING:
                with suppress(Exception):  # what has ended the task is raised
                    self._answer(future, index, number, under_way.window)

    def _pause(self) -> float:
        """Return the seconds until the next start may be sent, or its time is up."""
        now = time.time()
        return min(self.hook.throttle.delay(now=now), max(0.0, self.deadline - now))

    def _note(self, step: Start) -> list[tuple[int, Callable[[], int]]]:
        """Note starts as being sent; return what sends each of them.

        :raises PromptLayerError: if they may not be sent, and are not noted.
        """
        batch, hook = self.batch, self.hook
        if hook.is_stopping:
            raise PromptLayerTransientError("The task is being stopped; it starts no more runs.")
        if time.time() >= self.deadline:
            raise PromptLayerWaitTimeoutError("The time is up before all inputs were started.")
        calls = {index: self.inputs.call(batch.places[index], index) for index in step.indexes}
        for index in calls:
            batch.starting(index)
        if self.state is not None:
            try:
                self.state.write(batch, *calls)
            except Exception as error:
                for index in reversed(calls):
                    batch.not_started(index)
                raise store_trouble(error) from error
        policy = retries.SUBMITTING_TOGETHER
        return [(at, partial(hook.start_run, call, policy)) for at, call in calls.items()]

    def _answer(
        self, future: Future[int], index: int, number: int, window: StartWindow
    ) -> PromptLayerError | None:
        """Record what became of a start; return an error that ends the starts."""
        batch, hook = self.batch, self.hook
        try:
            batch.started(index, future.result())
        except PromptLayerStartUncertainError as error:
            batch.uncertain(index, str(error))
            until_next = window.lost(number, now := time.time())
            hook.throttle.hold_for(until_next, now=now)
            if window.seconds_lost(now) > self.max_outage:
                return PromptLayerOutageError(
                    f"No start was answered for {in_words(self.max_outage)} (max_outage), so no "
                    f"other was sent. Last error: {error}"
                )
            hook.log.warning(
                "%s The next start is sent in %s.", one_line(str(error)), in_words(until_next)
            )
        except PromptLayerError as error:
            if not (isinstance(error, PromptLayerRefusedError) and error.status in _ABOUT_ONE):
                batch.not_started(index)  # the error says so
                pause = window.put_off(number, error)
                if pause is None or hook.is_stopping:
                    return error
                hook.throttle.hold_for(pause, now=time.time())
                hook.log.warning(
                    "%s. Nothing was started; trying again in %s.",
                    one_line(str(error)).rstrip("."),
                    in_words(pause),
                )
                return None
            batch.refused(index, str(error))
        if batch.inputs[index].stage is not Stage.UNCERTAIN:
            window.answered()
        if problem := batch.inputs[index].problem:
            hook.log.warning("Input %s: %s", batch.places[index], problem)
        return None

    def note(self) -> None:
        """Record the runs for later tries."""
        self._write(lambda state: state.write(self.batch), "Could not record the runs.")

    def note_reported(self) -> None:
        """Record that the task has reported the starts whose answer is unknown.

        A clear after that means that a person has looked for their runs.
        """
        if new := self.batch.report_uncertain():
            count_uncertain_starts(WorkflowRuns.counted_as, len(new))
            self._write(
                lambda state: state.write(self.batch, *new),
                "Could not record what a person is asked; the next try asks again.",
            )

    def note_delivered(self) -> None:
        """Record that the results were pushed, so that a clear starts every input again."""
        self._write(
            lambda state: state.deliver(self.batch),
            "Could not record for later tries that the results were pushed.",
        )

    def _write(self, write: Callable[[BatchState], None], failure: str) -> None:
        if (state := self.state) is not None:
            hook = self.hook
            write_or_log(lambda: write(state), hook.log, lambda: hook.is_stopping, failure)
