# SPDX-License-Identifier: Apache-2.0
"""A batch: many inputs, a run for each, as one thing to start, to wait for and to judge.

The state is a value: which input has which run, and which start is being sent. Every step is
decided from it, and it can be kept as JSON at any moment, so that the try after a crash knows as
much as the process that died. The rules are those of :mod:`.reattach`, applied to each input alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.text import PROBLEM_LIMIT, one_line
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.submission.batch_input import (
    OVER,
    Input,
    Stage,
    Starter,
    how_to_find,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Start:
    """Start these inputs next, together."""

    indexes: Sequence[int]


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Wait until at most ``max_running`` runs are left that have not ended."""

    max_running: int


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """What a poll of the runs of a batch has found.

    :param unfinished: how many started runs are not known to have ended.
    :param until: how many of these may be left.
    :param ended: how many runs are known to have ended.
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


class Batch:
    """The state of a batch.

    An input keeps its index for good, as a person finds its run in PromptLayer by the index. Its
    place in the list of the inputs may change: see :attr:`order`.

    :param inputs: all that were ever seen.
    :param order: the index of the input at each place of the list as it is now; inputs that are not
        in the list are ignored.
    """

    def __init__(self, inputs: list[Input], order: Sequence[int] | None = None) -> None:
        self.inputs = inputs
        self._set_order(range(len(inputs)) if order is None else order)

    def arrange(self, fingerprints: Sequence[str], places: Sequence[int] | None = None) -> None:
        """Take over the list of the inputs as it is now.

        A retry, a clear, or the end of a deferral may render the list in another order, with more
        inputs or with fewer. An input is recognized by its fingerprint. One that is not, such as
        one with the current time in it, counts as the input that had its place, if that input is
        not recognized elsewhere and the list is as long as before.

        :param fingerprints: of the inputs in their order now.
        :param places: the index of the input that had each place; None for the current order. Empty
            after a clear, as whoever clears a task may have changed its inputs.
        """
        matched = self._match(fingerprints, self.order if places is None else places)
        used = set(matched)
        unused = [
            index
            for index in reversed(range(len(self.inputs)))
            if self.inputs[index].stage is Stage.PENDING and index not in used
        ]
        order = []
        for now, known in zip(fingerprints, matched, strict=True):
            index = known if known is not None else unused.pop() if unused else len(self.inputs)
            if index == len(self.inputs):
                self.inputs.append(Input(now))
            elif self.inputs[index].stage is Stage.PENDING:
                self.inputs[index].fingerprint = now
            order.append(index)
        self._set_order(order)

    def _match(self, fingerprints: Sequence[str], places: Sequence[int]) -> list[int | None]:
        """Return the index of the input that is at each place now; None for a new one.

        Where there are fewer equal inputs than before, those of the lowest rank are kept.
        """
        matched: list[int | None] = [None] * len(fingerprints)
        indexes_of = indexes_by(each.fingerprint for each in self.inputs)
        for text, places_now in indexes_by(fingerprints).items():
            equal = sorted(indexes_of.get(text, ()), key=lambda index: self.inputs[index].rank)
            kept = sorted(equal[: len(places_now)])
            for place, index in zip(places_now, kept, strict=False):
                matched[place] = index
        if len(places) == len(fingerprints):
            taken = set(matched)
            for place, before in enumerate(places):
                if matched[place] is None and before not in taken:
                    matched[place] = before
        return matched

    def __len__(self) -> int:
        return len(self.order)

    @property
    def run_ids(self) -> list[int | None]:
        """The run of each input of the list; None for an input without one."""
        return [self.inputs[index].run_id for index in self.order]

    @property
    def going(self) -> list[int]:
        """The runs that are not known to have ended."""
        runs = (self.inputs[index].run_id for index in self.at(Stage.RUNNING))
        return [run_id for run_id in runs if run_id is not None]

    @property
    def dropped(self) -> list[int]:
        """The runs of inputs that are not in the list any more."""
        return [
            each.run_id
            for index, each in enumerate(self.inputs)
            if each.run_id is not None and index not in self.places
        ]

    def run(self, index: int) -> WorkflowRun:
        """Return the run of an input that has one."""
        return WorkflowRun.of(self.inputs[index].run_id)

    def count(self, *stages: Stage) -> int:
        """Return how many inputs are at one of the stages."""
        return sum(self._stages[stage] for stage in stages)

    def at(self, *stages: Stage) -> list[int]:
        """Return the inputs that are at one of the stages."""
        return [index for index in self.order if self.inputs[index].stage in stages]

    def plan(
        self, max_active: int | None, at_once: int = 1, *, may_start: bool = True
    ) -> Start | WaitUntil | None:
        """Return the next step; None if no run goes on and no input may be started.

        While inputs are left, a wait lasts until half of the running ones have ended, so that a
        worker comes back rarely.

        :param max_active: how many runs may go on at a time; None for any number.
        :param at_once: how many starts may be under way at a time, counting those that are.
        :param may_start: False if the last start has just failed.
        """
        starting = self.count(Stage.STARTING)
        active = self.count(Stage.RUNNING) + starting
        places = len(self) if max_active is None else max_active
        more = min(places - active, at_once - starting)
        if self._left and may_start and more > 0:
            return Start(self._left[: -more - 1 : -1])
        if not active:
            return None
        return WaitUntil(min(places // 2, active - 1) if self._left else 0)

    def starting(self, index: int) -> None:
        """Note that the start is about to be sent."""
        self._move(index, Stage.STARTING)

    def started(self, index: int, run_id: int) -> None:
        """Note the run of the input."""
        self._move(index, Stage.RUNNING, run_id)

    def not_started(self, index: int) -> None:
        """Note that the start certainly did not arrive, and may be sent again."""
        self._move(index, Stage.PENDING)

    def refused(self, index: int, problem: str) -> None:
        """Note that the input was refused for good."""
        self._move(index, Stage.REFUSED, problem=problem)

    def uncertain(self, index: int, problem: str) -> None:
        """Note that it is unknown whether the start arrived."""
        self._move(index, Stage.UNCERTAIN, problem=how_to_find(index, problem))

    def report_uncertain(self) -> list[int]:
        """Note that the uncertain starts are reported; return those not reported before."""
        new = [index for index in self.at(Stage.UNCERTAIN) if not self.inputs[index].is_reported]
        for index in new:
            self.inputs[index].is_reported = True
        return new

    def ended(self, index: int) -> None:
        """Note that the run of the input has ended."""
        self._restage(index, Stage.ENDED)

    def goes_on(self, index: int) -> None:
        """Note that the run has not ended after all."""
        self._restage(index, Stage.RUNNING)

    def succeeded(self, index: int) -> None:
        """Note that the run counts as a success."""
        self._restage(index, Stage.SUCCEEDED)

    def failed(self, index: int, *, retry_helps: bool, is_gone: bool = False) -> bool:
        """Note that the run counts as a failure. Another may replace a run of an earlier try.

        :param retry_helps: whether another run may succeed.
        :param is_gone: whether PromptLayer does not know the run.
        :returns: whether another run will be started.
        """
        each = self.inputs[index]
        may_be_replaced = each.starter is Starter.BEFORE_CLEAR or (
            each.starter is Starter.EARLIER_TRY and not is_gone
        )
        if (retry_helps or is_gone) and may_be_replaced:
            self._move(index, Stage.PENDING)
            return True
        each.retry_helps = retry_helps
        self._restage(index, Stage.FAILED)
        return False

    def end_all(self) -> None:
        """Note that all runs have ended."""
        for index in self.at(Stage.RUNNING):
            self.ended(index)

    def withhold(self, problem: str) -> None:
        """Refuse all inputs that are left to start, in this try."""
        for index in self.at(Stage.PENDING):
            self.refused(index, problem)
            self.inputs[index].retry_helps = True

    def status(self, until: int = 0) -> BatchStatus:
        """Return how far the batch is.

        :param until: how many of the started runs may be left.
        """
        total = len(self) - self.count(Stage.REFUSED, Stage.UNCERTAIN)
        return BatchStatus(self.count(Stage.RUNNING), until, self.count(*OVER), total)

    @property
    def attainable(self) -> int:
        """How many inputs have succeeded, or may succeed in a retry of the task."""
        helped = sum(self.inputs[index].retry_helps for index in self.order)
        return self.count(Stage.SUCCEEDED) + helped

    @property
    def unrepeatable(self) -> int:
        """How many inputs have or may have a run that a retry without notes would double."""
        has_run = (Stage.STARTING, Stage.RUNNING, Stage.ENDED, Stage.SUCCEEDED, Stage.UNCERTAIN)
        failed = [self.inputs[index] for index in self.at(Stage.FAILED)]
        return self.count(*has_run) + sum(not each.retry_helps for each in failed)

    def spare(self, needed: int) -> int:
        """Return how many more inputs may fail; less than 0 if too many have failed.

        :param needed: how many inputs have to succeed.
        """
        failed = self.count(Stage.REFUSED, Stage.UNCERTAIN, Stage.FAILED)
        return len(self) - needed - failed

    def _set_order(self, order: Sequence[int]) -> None:
        self.order = list(order)
        self.places = {index: place for place, index in enumerate(self.order)}
        self._left = [i for i in reversed(self.order) if self.inputs[i].stage is Stage.PENDING]
        self._stages = Counter(self.inputs[index].stage for index in self.order)

    def _move(
        self, index: int, stage: Stage, run_id: int | None = None, problem: str | None = None
    ) -> None:
        each = self.inputs[index]
        each.run_id, each.starter = run_id, Starter.THIS_TRY
        each.retry_helps = each.is_reported = False
        each.problem = None if problem is None else one_line(problem, PROBLEM_LIMIT)
        self._restage(index, stage)

    def _restage(self, index: int, stage: Stage) -> None:
        each = self.inputs[index]
        if each.stage is Stage.PENDING:
            if self._left[-1] == index:
                self._left.pop()
            else:
                self._left.remove(index)
        self._stages[each.stage] -= 1
        self._stages[stage] += 1
        each.stage = stage
        if stage is Stage.PENDING:
            self._left.append(index)


def indexes_by(values: Iterable[T]) -> dict[T, list[int]]:
    """Return the indexes of each value."""
    found = defaultdict[T, list[int]](list)
    for index, value in enumerate(values):
        found[value].append(index)
    return found


def fingerprint(body: bytes) -> str:
    """Return a short text that tells inputs apart.

    :param body: the input as JSON.
    """
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()[:12]


@dataclass(frozen=True)
class WorkflowRuns(RemoteJob[BatchStatus]):
    """Workflow runs as one job, which has ended when at most ``until`` of them go on."""

    workflow_version_execution_ids: Sequence[int]
    until: int = 0

    counted_as: ClassVar[str] = "batch"
    abandoned_phrase: ClassVar[str] = "goes on at PromptLayer, which cannot cancel it"

    @property
    def id(self) -> str:
        """A text that is the same for the same runs."""
        ids = " ".join(map(str, self.workflow_version_execution_ids))
        return f"batch-{fingerprint(f'{ids}/{self.until}'.encode())}"

    @property
    def remote_ids(self) -> Sequence[int]:
        """The ids of the runs."""
        return self.workflow_version_execution_ids

    @property
    def name(self) -> str:
        """How messages name them."""
        count = len(self.workflow_version_execution_ids)
        return f"batch of {count} workflow run{'' if count == 1 else 's'}"

    @property
    def runs(self) -> list[WorkflowRun]:
        """Each of them, as a job of its own.

        :raises PromptLayerInvalidInputError: for what is no id.
        """
        return [WorkflowRun(each) for each in self.workflow_version_execution_ids]

    def fetch_call(self) -> Call[BatchStatus]:
        """Not to be called: each of :attr:`runs` is polled by a call of its own."""
        raise TypeError("each run of a batch is polled by a call of its own")
