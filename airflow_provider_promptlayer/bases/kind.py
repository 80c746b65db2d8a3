# SPDX-License-Identifier: Apache-2.0
"""A kind of job as a value: what the base classes are handed, in place of methods to override.

One method for each kind, such as ``ScorecardTask.new_kind``, makes the value from the rendered
arguments of a task. The sensor and the operator share it, so both parse, judge and push alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Protocol

from airflow_provider_promptlayer.api.errors import PromptLayerOutcomeError
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import L, RemoteJob
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.bases.lineage import Lineage
from airflow_provider_promptlayer.submission.batch import fingerprint
from airflow_provider_promptlayer.xcom.outputs import Push

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger


class Outputs(Protocol):
    """What goes to XCom when a job has ended."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """XCom key → value; pushed before the outcome is judged, so also after a failure."""

    def push(self, push: Push) -> Any:
        """Push the outputs of a job that succeeded; return the task's result."""

    def warnings(self) -> Sequence[str]:
        """Return the warnings to log about the values in XCom."""


@dataclass(frozen=True)
class ResultOnly:
    """:class:`Outputs` of which nothing is pushed besides the metadata and the task's result.

    :param lines: the warnings.
    """

    result: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()

    def push(self, _: Push) -> Any:
        """Return the result."""
        return self.result

    def warnings(self) -> Sequence[str]:
        """Return the lines."""
        return self.lines


@dataclass(frozen=True)
class JobKind(Generic[L]):
    """All that a task has to know about the kind of job that it waits for.

    How a job is polled, fetched and cancelled, and what messages call it, is in the job itself: see
    :class:`.RemoteJob`. The functions that take a status get the last one of a job that has ended.

    :param job_types: the classes of job that the task may wait for, the usual one first.
    :param id_key: under which key the job's id is pushed to XCom.
    :param trigger: the class in :mod:`.triggers.promptlayer` that waits in the triggerer; its name
        alone, because DAG files must not import triggers.
    :param job_from_id: returns the job that has an id; raises
        :class:`PromptLayerInvalidInputError` for an invalid id.
    :param raise_for_outcome: raises a :class:`PromptLayerOutcomeError` where the outcome counts as
        a failure, and :class:`PromptLayerInvalidInputError` where the job does not have what the
        task is to return.
    :param outputs: returns what goes to XCom.
    :param advice: what to do after a job of the task's own has failed; empty for what most kinds
        do, which start another job when the task is cleared.
    :param summary: returns what came of the job, as a phrase for the log's last line.
    :param lineage: returns what the job has read, written and checked; the second argument tells
        whether the outcome has passed.
    :param may_resubmit: returns whether to start another job after one that has failed with this
        outcome, which may be of any class where a subclass in a DAG has raised the error.
    :param trigger_arguments: the trigger's arguments besides those of :class:`.PromptLayerTrigger`.
    :param unsubmitted_job: returns the job to wait for if PromptLayer says that there is nothing to
        do.
    :param unsubmitted_result: the task's result in that case if the task does not wait.
    """

    job_types: tuple[type[RemoteJob[Any]], ...]
    id_key: str
    trigger: str
    job_from_id: Callable[[Any], RemoteJob[L]]
    raise_for_outcome: Callable[[L], None]
    outputs: Callable[[L], Outputs]
    advice: str = ""
    summary: Callable[[L], str] = lambda ending: ending.progress
    lineage: Callable[[L, bool], Lineage] = lambda _ending, _passed: Lineage()
    may_resubmit: Callable[[Any], bool] = lambda _: False
    trigger_arguments: Mapping[str, Any] = field(default_factory=dict)
    unsubmitted_job: Callable[[], RemoteJob[L]] | None = None
    unsubmitted_result: Any = None

    def new_trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that waits for a job.

        :param how: the arguments of :class:`.PromptLayerTrigger`.
        """
        triggers = import_module("airflow_provider_promptlayer.triggers.promptlayer")
        trigger: BaseTrigger = getattr(triggers, self.trigger)(**self.trigger_arguments, **how)
        return trigger


@dataclass(frozen=True)
class Submission:
    """A job that is ready to be submitted: its arguments have been checked, and nothing is sent.

    :param call: the request that starts the job, with the function that reads the job's id from the
        answer; see :func:`.submit_call`.
    :param how_to_find: returns a phrase that tells a person how to find out whether the start of a
        try has arrived. Its argument is the number of the try, or None if that is unknown.
    :param not_input: the fields of the request's body that may differ between two starts of the
        same job.
    :param also_input: what else tells two starts apart that are not of the same job; None for
        nothing.
    :param is_busy: asks whether a job is under way that would hinder this one, such as a job that
        the triggerer is cancelling at that moment, because the task was cleared. None if none can.
    :param send: sends the call, where that takes more than one request or the answer has more than
        an id; returns the job's id, or None if PromptLayer says that there is nothing to do. Raises
        :class:`PromptLayerStartUncertainError` if a job may have been started all the same.
    """

    call: Call[Any]
    how_to_find: Callable[[int | None], str]
    not_input: Collection[str] = ()
    also_input: Any = None
    is_busy: Call[bool] | None = None
    send: Callable[[], int | str | None] | None = None

    @cached_property
    def input_fingerprint(self) -> str:
        """A text that is the same for the same input, however the arguments are written."""
        request = self.call.request
        body = request.fields
        asked_for = {name: value for name, value in body.items() if name not in self.not_input}
        parts = {"path": request.path, "body": asked_for}
        if self.also_input is not None:
            parts["also"] = self.also_input
        return fingerprint(json.dumps(parts, sort_keys=True).encode())


@contextmanager
def noting_lineage(task: Any, ending: Any) -> Iterator[None]:
    """Note in a task the lineage of a job that has ended, as soon as its outcome is judged."""
    try:
        yield
    except PromptLayerOutcomeError:
        task.note_lineage(lambda: task.kind.lineage(ending, False))
        raise
    task.note_lineage(lambda: task.kind.lineage(ending, True))


def outcome_line(
    kind: JobKind[L], job: Any, ending: L, seen: tuple[float | None, float | None]
) -> str:
    """Return what came of a job that has ended, and how long it has taken, for the log.

    :param seen: when the job was started, and when a poll has seen that it had ended, in seconds
        since the epoch. For a job of which PromptLayer does not say how long it has taken.
    """
    seconds, (started_at, ended_at) = getattr(ending, "seconds", None), seen
    took = ""
    if seconds is not None:
        took = f", took {in_words(seconds)}"
    elif started_at is not None and ended_at is not None:
        took = f", within {in_words(max(0.0, ended_at - started_at))}"
    return f"{job}: {kind.summary(ending)}{took}."
