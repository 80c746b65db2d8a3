# SPDX-License-Identifier: Apache-2.0
"""What the runs of a batch have left: outputs, or what is wrong with them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.api.workflows import WorkflowResults
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.outcomes.workflows import (
    FailOn,
    PromptLayerRunFailedError,
    raise_for_outcome,
)
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.retries import RetryPolicy
from airflow_provider_promptlayer.submission.batch import Batch
from airflow_provider_promptlayer.submission.batch_input import OVER, Stage
from airflow_provider_promptlayer.xcom import outputs as xcom

MANY_TROUBLES: Final = 3
"""How many runs that could not be asked about end a round of requests: the rest is no better."""

_FINDINGS_NAMED: Final = 20


class BatchResults:
    """The results of a batch, as far as they were fetched.

    :param hook: asks PromptLayer.
    :param batch: is told which runs have succeeded or failed.
    :param fail_on: which ending of a run counts as a failure.
    :param nodes: whose outputs are kept.
    :param return_all_outputs: False keeps the bare main outputs.
    :param max_outage: seconds for which PromptLayer may be out of reach.
    """

    def __init__(
        self,
        hook: PromptLayerHook,
        batch: Batch,
        *,
        fail_on: FailOn,
        nodes: Any,
        return_all_outputs: bool,
        max_outage: float,
    ) -> None:
        self.outputs: dict[int, Any] = {}  # of the inputs that succeeded
        self.failures: dict[int, str] = {}  # of the inputs whose run is no success
        self.contradicted: set[int] = set()  # whose run was said to have ended, and goes on
        self.findings: list[str] = []
        self.size = 0
        self._hook = hook
        self._batch = batch
        self._fail_on: FailOn = fail_on
        self._nodes = nodes
        self._returns_all = return_all_outputs
        self._max_outage = max_outage

    @property
    def in_order(self) -> list[Any]:
        """The outputs in the order of the inputs; None for an input without."""
        return [self.outputs.get(index) for index in self._batch.order]

    @property
    def errors(self) -> list[str | None]:
        """What went wrong with each input, in their order; None where nothing did."""
        return [
            self.failures.get(index, self._batch.inputs[index].problem)
            for index in self._batch.order
        ]

    def fetch(self, *, is_doubtful: bool) -> None:
        """Fetch what each run that has ended has left, once.

        :param is_doubtful: whether an outage was met that may be of one run alone.
        :raises PromptLayerOutageError: if none can be asked about.
        """
        unread, answers = dict[int, PromptLayerOutageError](), 0
        everybody = retries.POLLING.within(self._max_outage)
        one_alone = retries.FETCHING_ONE_OF_MANY.within(self._max_outage)
        for index in self._unfetched():
            try:
                # Whether one run alone cannot be read, the next ones tell soon.
                answers += self._fetch(index, one_alone if unread or is_doubtful else everybody)
            except PromptLayerOutageError as error:
                unread[index] = error
                if self.outputs:  # what was read can be read again, unless it is an outage of all
                    good = self._batch.run(next(iter(self.outputs)))
                    self._hook.call_with_backoff(
                        good.status_call(), about=good.name, policy=one_alone
                    )
                    answers += 1
                elif len(unread) == MANY_TROUBLES and not answers:
                    raise
        if unread and not answers:
            raise next(iter(unread.values()))
        for index, trouble in unread.items():
            self._note_unread(index, str(trouble))

    def judge_ended(self) -> None:
        """Fetch what tells which of the runs that have ended are a success, as far as it can be."""
        for index in self._batch.at(Stage.ENDED):
            try:
                self._fetch(index, retries.FETCHING_ONE_OF_MANY.within(self._max_outage))
            except PromptLayerOutageError:
                return  # the next visit tells

    def fetch_late(self) -> None:
        """Fetch what can be had soon, of a batch whose time is up."""
        policy = retries.FETCHING_LATE.within(self._max_outage)
        began, rounds = time.time(), 1
        unread = self._fetch_each_once(self._unfetched())
        while unread:
            pause = policy.next_pause(rounds, elapsed=time.time() - began)
            if pause is None:
                break
            time.sleep(pause)
            unread = self._fetch_each_once(unread)
            rounds += 1
        for index in unread:
            name = self._batch.run(index).name
            self._note_unread(index, f"PromptLayer could not be asked about {name} in time.")

    def _fetch_each_once(self, indexes: Iterable[int]) -> list[int]:
        """Return those that PromptLayer could not be asked about, those that were not tried first.

        A few in a row are enough to know that the others cannot be either.
        """
        untried, unread, in_a_row = [], [], 0
        for index in indexes:
            if in_a_row == MANY_TROUBLES:
                untried.append(index)
                continue
            try:
                self._fetch(index, None)
                in_a_row = 0
            except PromptLayerTransientError:
                unread.append(index)
                in_a_row += 1
        return untried + unread

    def _unfetched(self) -> list[int]:
        return [
            index
            for index in self._batch.at(*OVER)
            if index not in self.outputs and index not in self.failures
        ]

    def _fetch(self, index: int, policy: RetryPolicy | None) -> bool:
        """Fetch the results of one run, and judge them; return False if PromptLayer has none.

        :param policy: None does not ask again.
        """
        batch, run = self._batch, self._batch.run(index)
        try:
            results = (
                self._hook.call(run.fetch_call())
                if policy is None
                else self._hook.call_with_backoff(run.fetch_call(), about=run.name, policy=policy)
            )
            if not results.is_complete:
                batch.goes_on(index)
                self.contradicted.add(index)  # else the next poll says so again, at once
                return True
            raise_for_outcome(results, self._fail_on)
            self.outputs[index] = self._output(results)
            batch.succeeded(index)
        except PromptLayerRunFailedError as error:
            self._note_failure(index, error, retry_helps=True)
        except PromptLayerNotFoundError as error:
            self._note_failure(index, error, retry_helps=False, is_gone=True)
            return False
        except PromptLayerAnswerTooLargeError as error:
            self._note_failure(index, error, retry_helps=False)
            return False
        except PromptLayerInvalidInputError as error:
            self._note_failure(index, error, retry_helps=False)
        return True

    def _note_failure(
        self, index: int, error: Exception, *, retry_helps: bool, is_gone: bool = False
    ) -> None:
        if self._batch.failed(index, retry_helps=retry_helps, is_gone=is_gone):
            place = self._batch.places[index]
            self._hook.log.info("Input %s is started anew: %s", place, error)
        else:
            self.failures[index] = str(error)

    def _note_unread(self, index: int, problem: str) -> None:
        self.failures[index] = problem
        self._batch.inputs[index].retry_helps = True

    def _output(self, results: WorkflowResults) -> Any:
        """Return what is handed on of a run, in a form that Airflow can store."""
        findings = xcom.StorageWarnings(results)
        outputs = xcom.storable_outputs(xcom.select(results, self._nodes), results.nodes, findings)
        output = outputs.by_stored_name if self._returns_all else outputs.final(results)
        self.size += outputs.size
        self.findings += [
            f"Workflow run {results.workflow_version_execution_id}: {line}"
            for line in findings.lines()[: _FINDINGS_NAMED - len(self.findings)]
        ]
        return output
