# SPDX-License-Identifier: Apache-2.0
"""A batch: many inputs, a run for each, as one thing to start, to wait for and to judge.

The state is a value: which input has which run, and which start is being sent. Every step is
decided from it, and it can be put down as JSON at any moment, so that whoever finds it after a
crash knows as much as the process that died. The rules are those of :mod:`.starting`, applied to
each input on its own.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Final

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.subjects import Subject
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.exceptions import (
    PromptLayerBatchFailedError,
    PromptLayerInvalidInputError,
)

_PROBLEM_LENGTH: Final = 400
"""Characters that are kept of what went wrong with one input."""

_INPUTS_NAMED: Final = 5
"""How many inputs a message names."""


class Stage(StrEnum):
    """How far one input is."""

    LEFT = "left"
    """No start was sent, or none that could have arrived."""
    STARTING = "starting"
    """The start is being sent."""
    GOING = "going"
    """It has a run, which is not known to have ended."""
    ENDED = "ended"
    """Its run has ended, well or badly."""
    REFUSED = "refused"
    """It certainly has no run, and will not get one."""
    UNCERTAIN = "uncertain"
    """A start was sent, and nobody knows whether it arrived: it is never sent again."""


class Starter(StrEnum):
    """Who has started a run."""

    THIS_TRY = "this try"
    EARLIER_TRY = "earlier try"
    """Its run is replaced if it has failed."""
    BEFORE_CLEAR = "before clear"
    """A try before the task was cleared: its run is replaced also where PromptLayer knows none."""


@dataclass(slots=True)
class Input:
    """One input, and what became of it.

    :param fingerprint: see :func:`fingerprint`.
    :param problem: why it has no run, for people.
    """

    fingerprint: str
    stage: Stage = Stage.LEFT
    run_id: int | None = None
    problem: str | None = None
    starter: Starter = Starter.THIS_TRY


@dataclass(frozen=True, slots=True)
class Note:
    """What an earlier try has left behind about one input.

    :param run_id: its run; None if the start was about to be sent.
    :param is_of_retry: whether the try was of this lifecycle, see :class:`.starting.Record`.
    """

    fingerprint: str
    run_id: int | None
    is_of_retry: bool


@dataclass(frozen=True, slots=True)
class Start:
    """Start this input next."""

    index: int


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until at most ``until`` of the runs that go on are left."""

    until: int


class Batch:
    """The state of a batch."""

    def __init__(self, inputs: list[Input]) -> None:
        self.inputs = inputs
        self._left = [
            index for index in reversed(range(len(inputs))) if inputs[index].stage is Stage.LEFT
        ]
        self._stages = Counter(each.stage for each in inputs)

    @classmethod
    def take_over(cls, notes: Sequence[Note | None], fingerprints: Sequence[str]) -> Batch:
        """Return what a try makes of what earlier ones have left.

        A run that was started is gone back to. A start that was being sent when its try died is
        not sent again by a retry; once somebody has cleared the task, it is. Somebody who clears a
        task may also have changed its inputs: a run of another input is nobody's then.

        :param notes: one for each input; None where nothing was left.
        :param fingerprints: of the inputs as they are now.
        """
        inputs = []
        for index, (note, now) in enumerate(zip(notes, fingerprints, strict=True)):
            each = Input(now)
            if note is not None and note.run_id is not None:
                if note.is_of_retry:
                    each.stage, each.starter = Stage.GOING, Starter.EARLIER_TRY
                    each.fingerprint = note.fingerprint  # of what it was started for
                elif note.fingerprint == now:
                    each.stage, each.starter = Stage.GOING, Starter.BEFORE_CLEAR
                if each.stage is Stage.GOING:
                    each.run_id = note.run_id
            elif note is not None and note.is_of_retry:
                each.stage = Stage.UNCERTAIN
                each.problem = _how_to_find(index, "an earlier try died while it sent the start.")
            inputs.append(each)
        return cls(inputs)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def has_left(self) -> bool:
        """Whether inputs are left to start."""
        return bool(self._left)

    @property
    def run_ids(self) -> list[int | None]:
        """The runs in the order of the inputs; None for an input without one."""
        return [each.run_id for each in self.inputs]

    @property
    def going(self) -> list[int]:
        """The runs that are not known to have ended."""
        return [
            each.run_id
            for each in self.inputs
            if each.stage is Stage.GOING and each.run_id is not None
        ]

    def run(self, index: int) -> WorkflowRun:
        """Return the run of an input that has one."""
        return WorkflowRun(execution_id(self.inputs[index].run_id))

    def count(self, *stages: Stage) -> int:
        """Return how many inputs are at one of the stages."""
        return sum(self._stages[stage] for stage in stages)

    def at(self, stage: Stage) -> list[int]:
        """Return the inputs that are at a stage."""
        return [index for index, each in enumerate(self.inputs) if each.stage is stage]

    def plan(self, max_active: int | None, *, may_start: bool = True) -> Start | Await | None:
        """Return what to do next; None if every input has come to its end, or none may be started.

        While inputs are left, a wait lasts until half of the places are free, so that few visits
        of a worker keep them filled.

        :param max_active: how many runs may go on at a time; None for any number.
        :param may_start: False where it was tried a moment ago, in vain.
        """
        active = self.count(Stage.GOING)
        places = len(self) if max_active is None else max_active
        if self._left and may_start and active < places:
            return Start(self._left[-1])
        if not active:
            return None
        return Await(min(places // 2, active - 1) if self._left else 0)

    def starting(self, index: int) -> None:
        """Note that the start is about to be sent."""
        self._move(index, Stage.STARTING)

    def started(self, index: int, run_id: int) -> None:
        """Note that it has a run."""
        self._move(index, Stage.GOING, run_id)

    def not_started(self, index: int) -> None:
        """Note that the start certainly did not arrive, and may be sent again."""
        self._move(index, Stage.LEFT)

    def refused(self, index: int, problem: str) -> None:
        """Note that it was refused for good."""
        self._move(index, Stage.REFUSED, problem=problem)

    def uncertain(self, index: int, problem: str) -> None:
        """Note that nobody knows whether the start arrived."""
        self._move(index, Stage.UNCERTAIN, problem=_how_to_find(index, problem))

    def ended(self, index: int) -> None:
        """Note that its run has ended."""
        self._restage(index, Stage.ENDED)

    def goes_on(self, index: int) -> None:
        """Note that its run has not ended after all."""
        self._restage(index, Stage.GOING)

    def replace(self, index: int, *, is_gone: bool = False) -> bool:
        """Forget its run, which has failed, and start another, if an earlier try has started it.

        :param is_gone: whether PromptLayer does not know the run.
        :returns: whether another will be started.
        """
        starter = self.inputs[index].starter
        may = starter is Starter.BEFORE_CLEAR or (starter is Starter.EARLIER_TRY and not is_gone)
        if may:
            self._move(index, Stage.LEFT)
        return may

    @property
    def ended_of_total(self) -> tuple[int, int]:
        """How many runs are known to have ended, and how many there will be."""
        none = self.count(Stage.REFUSED, Stage.UNCERTAIN)
        return self.count(Stage.ENDED), len(self) - none

    def end_all(self) -> None:
        """Note that all runs have ended."""
        for index in self.at(Stage.GOING):
            self.ended(index)

    def payload(self) -> dict[str, Any]:
        """Return the state as plain JSON. Inputs that share a problem share its text."""
        problems: dict[str, list[int]] = {}
        for index, each in enumerate(self.inputs):
            if each.problem is not None:
                problems.setdefault(each.problem, []).append(index)
        return {
            "inputs": [each.fingerprint for each in self.inputs],
            "runs": self.run_ids,
            "ended": self.at(Stage.ENDED),
            "uncertain": [*self.at(Stage.UNCERTAIN), *self.at(Stage.STARTING)],
            "starters": {
                starter.value: [i for i, each in enumerate(self.inputs) if each.starter is starter]
                for starter in (Starter.EARLIER_TRY, Starter.BEFORE_CLEAR)
            },
            "problems": [[problem, indexes] for problem, indexes in problems.items()],
        }

    @classmethod
    def read(cls, payload: Any) -> Batch:
        """Return the state that :meth:`payload` has put down.

        :raises PromptLayerInvalidInputError: if it is none.
        """
        try:
            inputs = [
                Input(text) if run_id is None else Input(text, Stage.GOING, execution_id(run_id))
                for text, run_id in zip(payload["inputs"], payload["runs"], strict=True)
            ]
            for index in payload["ended"]:
                inputs[index].stage = Stage.ENDED
            for starter, indexes in payload["starters"].items():
                for index in indexes:
                    inputs[index].starter = Starter(starter)
            for problem, indexes in payload["problems"]:
                for index in indexes:
                    inputs[index].stage, inputs[index].problem = Stage.REFUSED, str(problem)
            for index in payload["uncertain"]:
                inputs[index].stage = Stage.UNCERTAIN
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            raise PromptLayerInvalidInputError("The notes on the batch cannot be read.") from None
        return cls(inputs)

    def _move(
        self, index: int, stage: Stage, run_id: int | None = None, problem: str | None = None
    ) -> None:
        each = self.inputs[index]
        each.run_id, each.starter = run_id, Starter.THIS_TRY
        each.problem = None if problem is None else one_line(problem, _PROBLEM_LENGTH)
        self._restage(index, stage)

    def _restage(self, index: int, stage: Stage) -> None:
        each = self.inputs[index]
        if each.stage is Stage.LEFT:
            if self._left[-1] == index:
                self._left.pop()
            else:
                self._left.remove(index)
        self._stages[each.stage] -= 1
        self._stages[stage] += 1
        each.stage = stage
        if stage is Stage.LEFT:
            self._left.append(index)


def _how_to_find(index: int, problem: str) -> str:
    return (
        "a run may be going on, which can be found in PromptLayer by its metadata "
        f"(airflow_run_id, airflow_task_id, airflow_batch_index={index}): {problem}"
    )


def fingerprint(body: bytes) -> str:
    """Return a short text that tells inputs apart.

    :param body: the input as JSON.
    """
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()[:12]


def needed(total: int, min_success_rate: float) -> int:
    """Return how many of ``total`` have to succeed."""
    # By division, which is exact where the rate was written as such a fraction: 7 of 100 are 0.07,
    # and 0.07 of 100 are a little more than 7.
    about = math.floor(total * min_success_rate)
    return next(
        (count for count in range(max(about - 1, 0), total) if count / total >= min_success_rate),
        total,
    )


def judge_batch(errors: Sequence[str | None], min_success_rate: float) -> None:
    """Accept a batch, or raise.

    :param errors: what went wrong with each input, None where nothing did.
    :param min_success_rate: the share of the inputs that have to succeed, from 0 to 1.
    :raises PromptLayerBatchFailedError: naming the first inputs that failed, and why.
    """
    asked = needed(len(errors), min_success_rate)
    succeeded = sum(error is None for error in errors)
    if succeeded >= asked:
        return
    raise PromptLayerBatchFailedError(
        f"{succeeded} of {len(errors)} inputs succeeded, and min_success_rate={min_success_rate:g} "
        f"asks for {asked}. {_named(errors)}",
        errors=errors,
    )


def shortfall(errors: Sequence[str | None]) -> str | None:
    """Return a line about the inputs that failed in a batch that was accepted; None without any."""
    succeeded = sum(error is None for error in errors)
    if succeeded == len(errors):
        return None
    return f"{succeeded} of {len(errors)} inputs succeeded. {_named(errors)}"


def _named(errors: Sequence[str | None]) -> str:
    failed = [(index, error) for index, error in enumerate(errors) if error is not None]
    named = "; ".join(
        f"input {index}: {one_line(error, _PROBLEM_LENGTH)}"
        for index, error in failed[:_INPUTS_NAMED]
    )
    more = len(failed) - _INPUTS_NAMED
    return named + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class BatchLook:
    """What a look at the runs of a batch has shown.

    :param unfinished: how many are not known to have ended, of those that have been started.
    :param until: how many of these may be left.
    :param ended: how many are known to have ended.
    :param total: how many runs the batch will have in the end.
    """

    unfinished: int
    until: int
    ended: int
    total: int

    @property
    def is_complete(self) -> bool:
        """Whether few enough are left."""
        return self.unfinished <= self.until

    @property
    def progress(self) -> str:
        """How many have ended, of the whole batch."""
        return f"{self.ended} of {self.total} runs seen to have ended"


@dataclass(frozen=True)
class WorkflowRuns(Subject[BatchLook]):
    """Runs of workflows, as one thing to wait for: until at most ``until`` of them are left."""

    workflow_version_execution_ids: Sequence[int] = field(default=())
    until: int = 0

    when_left: ClassVar[str] = "goes on at PromptLayer, which cannot cancel it"

    @property
    def id(self) -> str:
        """A text that is the same for the same runs."""
        ids = " ".join(map(str, self.workflow_version_execution_ids))
        return f"batch-{fingerprint(f'{ids}/{self.until}'.encode())}"

    @property
    def name(self) -> str:
        """What messages call them."""
        count = len(self.workflow_version_execution_ids)
        return f"batch of {count} workflow run{'' if count == 1 else 's'}"

    @property
    def runs(self) -> list[WorkflowRun]:
        """Each of them, to ask about.

        :raises PromptLayerInvalidInputError: if an id is none.
        """
        return [WorkflowRun(execution_id(each)) for each in self.workflow_version_execution_ids]

    def read(self) -> Call[BatchLook]:
        """Not to be used: there is no one question about several runs. See :attr:`runs`."""
        raise TypeError("PromptLayer is asked about each run on its own")
