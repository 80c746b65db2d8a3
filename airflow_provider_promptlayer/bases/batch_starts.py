# SPDX-License-Identifier: Apache-2.0
"""How the runs of a batch are started, each once, and noted for later tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerRefusedError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.bases.batch_inputs import BatchInputs
from airflow_provider_promptlayer.bases.recording import store_trouble, write_or_log
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.submission.batch import Batch
from airflow_provider_promptlayer.submission.task_state import BatchState

_ABOUT_THE_INPUT: Final = frozenset({400, 413, 422})
"""The statuses of refusals that concern one input alone."""


@dataclass(frozen=True)
class BatchStarts:
    """Starts the inputs of a batch.

    :param hook: sends the starts.
    :param batch: records what became of each start.
    :param inputs: as they are rendered now.
    :param state: notes each step for later tries; None where Airflow keeps no task state.
    """

    hook: PromptLayerHook
    batch: Batch
    inputs: BatchInputs
    state: BatchState | None

    def start(self, index: int) -> None:
        """Start one input, and record that right before the request is sent.

        :raises PromptLayerError: if other inputs would meet the same error.
        """
        batch = self.batch
        call = self.inputs.call(batch.places[index], index)
        batch.starting(index)
        self._note_start(index)
        try:
            batch.started(index, self.hook.start_run(call))
            return
        except PromptLayerStartUncertainError as error:
            batch.uncertain(index, str(error))
        except PromptLayerError as error:
            if isinstance(error, PromptLayerRefusedError) and error.status in _ABOUT_THE_INPUT:
                batch.refused(index, str(error))
            else:
                batch.not_started(index)  # the error says so
                raise
        problem = batch.inputs[index].problem
        self.hook.log.warning("Input %s: %s", batch.places[index], problem)

    def note(self) -> None:
        """Record the runs for later tries."""
        self._write(lambda state: state.write(self.batch), "Could not record the runs.")

    def note_reported(self) -> None:
        """Record that the task has reported the starts whose answer is unknown.

        A clear after that means that a person has looked for their runs.
        """
        if new := self.batch.report_uncertain():
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

    def _note_start(self, index: int) -> None:
        if self.state is None:
            return
        try:
            self.state.write(self.batch, index)
        except Exception as error:
            self.batch.not_started(index)
            raise store_trouble(error) from error

    def _write(self, write: Callable[[BatchState], None], failure: str) -> None:
        if (state := self.state) is not None:
            hook = self.hook
            write_or_log(lambda: write(state), hook.log, lambda: hook.is_stopping, failure)
