# SPDX-License-Identifier: Apache-2.0
"""The results of a batch: which runs have ended, and their outputs or problems."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerRateLimitError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.api.workflows import WorkflowResults
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.threads import DaemonThreads
from airflow_provider_promptlayer.outcomes.workflows import (
    FailOn,
    PromptLayerRunFailedError,
    raise_for_outcome,
)
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import ask_with_backoff, drive
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.submission.batch import Batch, BatchStatus
from airflow_provider_promptlayer.submission.batch_input import OVER, Stage
from airflow_provider_promptlayer.xcom import outputs as xcom

_MANY_TROUBLES: Final = 3
"""After requests about this many runs have failed, none is sent about the others."""

_LONGEST_HOLD: Final = 60.0
"""The longest pause, in seconds, that the 429 of one run asks of the requests about the others.

Each waits for up to twice that, by chance, see :meth:`.Throttle.delay`.
"""

_AT_ONCE: Final = 16
"""How many requests about runs are under way at a time."""

_WARNINGS: Final = 20

_FAILURES_LISTED: Final = 200
"""How many inputs that failed the log lists."""


@dataclass
class BatchResults:
    """The results of a batch, as far as this worker has fetched them.

    :param hook: sends the requests.
    :param batch: records which runs have ended, succeeded or failed.
    :param fail_on: which outcome of a run counts as a failure.
    :param nodes: whose outputs are kept.
    :param return_all_outputs: False keeps the bare main outputs.
    :param max_outage: seconds for which PromptLayer may be out of reach.
    :param must_end_by: until when to retry, in seconds since the epoch.
    :param is_doubtful: whether there was an outage that may concern one run alone.
    """

    hook: PromptLayerHook
    batch: Batch
    fail_on: FailOn
    nodes: Any
    return_all_outputs: bool
    max_outage: float
    must_end_by: float
    is_doubtful: bool = False

    def __post_init__(self) -> None:
        self.contradicted: set[int] = set()  # inputs whose run goes on, though a poll said it ended
        self._outputs: dict[int, Any] = {}  # of the inputs that succeeded
        self._failures: dict[int, str] = {}  # of the inputs whose run counts as a failure
        self._warnings: list[str] = []
        self._size = 0

    @property
    def in_order(self) -> list[Any]:
        """The output for each input of the list; None for an input without one."""
        return [self._outputs.get(index) for index in self.batch.order]

    @property
    def errors(self) -> list[str | None]:
        """The problem of each input of the list; None for an input without one."""
        inputs = self.batch.inputs
        return [self._failures.get(index, inputs[index].problem) for index in self.batch.order]

    def warnings(self) -> list[str]:
        """Return the warnings to log about the values in XCom."""
        hint = xcom.size_hint(self._size)
        failed = [(place, error) for place, error in enumerate(self.errors) if error is not None]
        lines = [f"Input {place}: {error}" for place, error in failed[:_FAILURES_LISTED]]
        if (more := len(failed) - len(lines)) > 0:
            lines.append(f"{more} more inputs failed: see the XCom {xcom.ERRORS_KEY}.")
        return [*lines, *self._warnings, *([hint] if hint else [])]

    def poll(self, max_running: int) -> BatchStatus:
        """Poll the runs, until it is clear whether the wait goes on.

        A run whose poll fails counts as running, if the poll of another run shows that PromptLayer
        can be reached.

        :param max_running: how many runs may be left.
        :raises PromptLayerTransientError: if no request was answered.
        """
        batch, hook = self.batch, self.hook
        running, answers, troubles = 0, 0, list[PromptLayerTransientError]()
        indexes = batch.at(Stage.RUNNING)
        calls = (
            batch.run(index).fetch_call()
            if index in self.contradicted
            else batch.run(index).status_call()
            for index in indexes
        )
        with DaemonThreads(_AT_ONCE) as threads:
            polls = threads.in_order(partial(hook.call, call) for call in calls)
            for index, poll in zip(indexes, polls, strict=True):
                try:
                    status = poll.result()
                except PromptLayerTransientError as error:
                    troubles.append(error)
                    running += 1
                    if isinstance(error, PromptLayerRateLimitError):
                        self._hold(error)
                except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError):
                    batch.ended(index)  # fetching its results tells why
                else:
                    answers += 1
                    if status.is_complete:
                        batch.ended(index)
                    else:
                        running += 1
                if (answers and running > max_running) or len(troubles) == _MANY_TROUBLES:
                    break
        if troubles and not answers:
            raise troubles[-1]
        return batch.status(max_running)

    def _hold(self, error: PromptLayerRateLimitError) -> None:
        """Have the requests about other runs wait, too."""
        pause, now = min(retries.POLLING.pause(1, error), _LONGEST_HOLD), time.time()
        if pause > self.hook.throttle.remaining(now=now):
            said = one_line(str(error)).rstrip(".")
            self.hook.log.warning("%s. All requests wait for %s or longer.", said, in_words(pause))
        self.hook.throttle.hold_for(pause, now=now)

    def fetch(self) -> None:
        """Fetch the results of each run that has ended, once.

        :raises PromptLayerOutageError: if no request was answered.
        :raises PromptLayerWaitTimeoutError: after ``must_end_by``.
        """
        unread, answers = dict[int, PromptLayerOutageError](), 0
        one_alone = retries.FETCHING_ONE_OF_MANY.within(self.max_outage)
        patient = retries.POLLING.within(self.max_outage)

        def policy() -> RetryPolicy:
            # After one outage, short tries for other runs show whether it concerns that run alone.
            return one_alone if unread or self.is_doubtful else patient

        with DaemonThreads(_AT_ONCE) as threads:
            for index, results in self._reading(threads, self._unfetched(), policy):
                try:
                    answers += self._judge(index, results)
                except PromptLayerOutageError as error:
                    unread[index] = error
                    if self._outputs:  # one that was fetched can be polled, or PromptLayer is away
                        good = self.batch.run(next(iter(self._outputs)))
                        left = max(0.0, self.must_end_by - time.time())
                        self.hook.call_with_backoff(
                            good.status_call(), about=good.name, policy=one_alone.within(left)
                        )
                        answers += 1
                    elif len(unread) == _MANY_TROUBLES and not answers:
                        raise
        if unread and not answers:
            raise next(iter(unread.values()))
        for index, outage in unread.items():
            self._note_unread(index, str(outage))

    def fetch_ended(self) -> None:
        """Fetch the results of the runs that have ended, until a request fails.

        The next worker fetches the rest.
        """
        policy = retries.FETCHING_ONE_OF_MANY.within(self.max_outage)
        with DaemonThreads(_AT_ONCE) as threads:
            ended = self.batch.at(Stage.ENDED)
            for index, results in self._reading(threads, ended, lambda: policy):
                try:
                    self._judge(index, results)
                except PromptLayerOutageError:
                    return

    def fetch_late(self, time_given: str) -> None:
        """Fetch results quickly, as the time of the batch is up; the other inputs have failed.

        :param time_given: how long the batch had, in words.
        """
        batch = self.batch
        batch.end_all()  # fetching the results finds the runs that have not ended
        policy = retries.FETCHING_LATE.within(self.max_outage)
        give_up_at, in_a_row = time.time() + policy.give_up_after, 0
        with DaemonThreads(_AT_ONCE) as threads:
            for index, results in self._reading(
                threads,
                self._unfetched(),
                lambda: policy.within(max(0.0, give_up_at - time.time())),
                is_late=True,
            ):
                try:
                    self._judge(index, results)
                    in_a_row = 0
                except PromptLayerOutageError:
                    in_a_row += 1
                    self._note_late(index)
                    if in_a_row == _MANY_TROUBLES:
                        break
        for index in self._unfetched():
            self._note_late(index)
        for index in batch.at(Stage.RUNNING):
            self._failures[index] = (
                f"{batch.run(index)} did not end within {time_given}. It goes on at PromptLayer."
            )
        for index in batch.at(Stage.PENDING):
            self._failures[index] = f"No run was started within {time_given}."

    def _unfetched(self) -> list[int]:
        known = {*self._outputs, *self._failures}
        return [index for index in self.batch.at(*OVER) if index not in known]

    def _reading(
        self,
        threads: DaemonThreads,
        indexes: list[int],
        policy: Callable[[], RetryPolicy],
        *,
        is_late: bool = False,
    ) -> Iterator[tuple[int, Future[WorkflowResults]]]:
        """Yield each index with the results of its run, in this order, while others are read.

        :param policy: called before each run is read; returns how to retry that.
        :param is_late: whether there is no time to pause for as long as others were told to. Then
            the policy says how long to retry, and not ``must_end_by``.
        """

        def pause(decision: PollDecision) -> None:
            decision.log_to(self.hook.log)
            threads.sleep(decision.sleep)  # no retry goes on when the others have been judged

        def read(index: int) -> Callable[[], WorkflowResults]:
            run = self.batch.run(index)
            poller = Poller.of_call(run.name, policy())
            deadline = math.inf
            if not is_late:
                poller.throttle, deadline = self.hook.throttle, self.must_end_by
            loop = ask_with_backoff(poller, run.fetch_call(), deadline=deadline)
            return partial(drive, loop, self.hook.call, pause)

        return zip(indexes, threads.in_order(map(read, indexes)), strict=True)

    def _judge(self, index: int, read: Future[WorkflowResults]) -> bool:
        """Judge the results of one run; return False if PromptLayer has none."""
        batch = self.batch
        try:
            results = read.result()
            if not results.is_complete:
                batch.goes_on(index)
                self.contradicted.add(index)  # a status call would again say that it has ended
                return True
            raise_for_outcome(results, self.fail_on)
            self._outputs[index] = self._output(results)
            batch.succeeded(index)
        except PromptLayerRunFailedError as error:
            self._note_failure(index, error, retry_helps=True)
        except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError) as error:
            is_gone = isinstance(error, PromptLayerNotFoundError)
            self._note_failure(index, error, retry_helps=False, is_gone=is_gone)
            return False
        except PromptLayerInvalidInputError as error:
            self._note_failure(index, error, retry_helps=False)
        return True

    def _note_failure(
        self, index: int, error: Exception, *, retry_helps: bool, is_gone: bool = False
    ) -> None:
        if self.batch.failed(index, retry_helps=retry_helps, is_gone=is_gone):
            place = self.batch.places[index]
            self.hook.log.info("Input %s is started again: %s", place, error)
        else:
            self._failures[index] = str(error)

    def _note_late(self, index: int) -> None:
        name = self.batch.run(index).name
        self._note_unread(index, f"The results of {name} could not be fetched in time.")

    def _note_unread(self, index: int, problem: str) -> None:
        self._failures[index] = problem
        self.batch.inputs[index].retry_helps = True

    def _output(self, results: WorkflowResults) -> Any:
        """Return the output of a run, in a form that Airflow can store."""
        outputs = xcom.RunOutputs(results, self.nodes, return_all_outputs=self.return_all_outputs)
        output = outputs.result
        self._size += outputs.size
        self._warnings += [
            f"Workflow run {results.workflow_version_execution_id}: {line}"
            for line in outputs.warnings()[: _WARNINGS - len(self._warnings)]
        ]
        return output
