# SPDX-License-Identifier: Apache-2.0
"""The state of a batch: what follows from it, and what a crash cannot take from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_promptlayer.api.batches import (
    Await,
    Batch,
    BatchLook,
    Note,
    Stage,
    Start,
    Starter,
    WorkflowRuns,
    judge_batch,
    needed,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerBatchFailedError,
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.memory import BatchMemory


def fingerprints(size: int) -> list[str]:
    return [f"input {index}" for index in range(size)]


def batch_of(size: int) -> Batch:
    return Batch.take_over([None] * size, fingerprints(size))


def start_all(batch: Batch, max_active: int | None = None) -> None:
    while isinstance(step := batch.plan(max_active), Start):
        batch.starting(step.index)
        batch.started(step.index, 100 + step.index)


class TestPlan:
    def test_all_at_once_then_a_wait_for_all(self) -> None:
        batch = batch_of(3)
        start_all(batch)
        assert batch.run_ids == [100, 101, 102]
        assert batch.plan(None) == Await(0)
        for index in range(3):
            batch.ended(index)
        assert batch.plan(None) is None

    def test_of_nothing_is_nothing(self) -> None:
        assert batch_of(0).plan(None) is None

    @pytest.mark.parametrize(("places", "until"), [(1, 0), (2, 1), (3, 1), (4, 2)])
    def test_waits_for_half_of_the_places(self, places: int, until: int) -> None:
        batch = batch_of(5)
        start_all(batch, places)
        assert len(batch.going) == places
        assert batch.plan(places) == Await(until)

    @pytest.mark.parametrize("places", [5, 6, 1000])
    def test_as_many_places_as_inputs_need_one_wait(self, places: int) -> None:
        batch = batch_of(5)
        start_all(batch, places)
        assert batch.plan(places) == Await(0)

    def test_a_start_in_vain_waits_for_an_end_at_least(self) -> None:
        batch = batch_of(10)
        batch.started(0, 100)
        assert batch.plan(10, may_start=False) == Await(0)
        batch.started(1, 101)
        assert batch.plan(10, may_start=False) == Await(1)
        assert batch.plan(10) == Start(2)

    def test_a_start_in_vain_with_nothing_going_on_ends_it(self) -> None:
        assert batch_of(3).plan(None, may_start=False) is None


@pytest.mark.parametrize(
    ("note", "stage", "starter"),
    [
        (None, Stage.LEFT, Starter.THIS_TRY),
        (Note("a", 7, is_of_retry=True), Stage.GOING, Starter.EARLIER_TRY),
        (Note("x", 7, is_of_retry=True), Stage.GOING, Starter.EARLIER_TRY),
        (Note("a", 7, is_of_retry=False), Stage.GOING, Starter.BEFORE_CLEAR),
        (Note("x", 7, is_of_retry=False), Stage.LEFT, Starter.THIS_TRY),  # of another input
        (Note("a", None, is_of_retry=True), Stage.UNCERTAIN, Starter.THIS_TRY),
        (Note("a", None, is_of_retry=False), Stage.LEFT, Starter.THIS_TRY),  # somebody has looked
    ],
)
def test_what_a_try_takes_over(note: Note | None, stage: Stage, starter: Starter) -> None:
    (taken,) = Batch.take_over([note], ["a"]).inputs
    assert (taken.stage, taken.starter) == (stage, starter)
    assert taken.run_id == (7 if stage is Stage.GOING else None)
    if stage is Stage.UNCERTAIN:
        assert "airflow_batch_index=0" in str(taken.problem)


@pytest.mark.parametrize(
    ("note", "is_gone", "replaced"),
    [
        (Note("a", 7, is_of_retry=True), False, True),
        (Note("a", 7, is_of_retry=True), True, False),
        (Note("a", 7, is_of_retry=False), False, True),
        (Note("a", 7, is_of_retry=False), True, True),
    ],
)
def test_which_failed_runs_are_replaced(note: Note, is_gone: bool, replaced: bool) -> None:
    batch = Batch.take_over([note], ["a"])
    batch.ended(0)
    assert batch.replace(0, is_gone=is_gone) is replaced
    assert batch.plan(None) == (Start(0) if replaced else None)


def test_a_run_of_this_try_is_not_replaced() -> None:
    batch = batch_of(1)
    start_all(batch)
    batch.ended(0)
    assert not batch.replace(0)


def test_the_state_survives_the_way_through_the_database() -> None:
    batch = Batch.take_over(
        [
            Note("a", 7, is_of_retry=True),
            Note("b", 8, is_of_retry=False),
            Note("c", None, is_of_retry=True),
            None,
            None,
            None,
            None,
        ],
        ["a", "b", "c", "d", "e", "f", "g"],
    )
    batch.ended(0)
    batch.starting(3)
    batch.started(4, 9)
    batch.refused(5, "no")
    again = Batch.read(json.loads(json.dumps(batch.payload())))
    assert again.at(Stage.UNCERTAIN) == [2, 3]  # nobody comes back from the middle of a start
    batch.uncertain(3, "")
    again.uncertain(3, "")
    assert again.inputs == batch.inputs
    assert again.plan(None) == batch.plan(None)


@pytest.mark.parametrize(
    "payload",
    [None, 5, {}, {"inputs": ["a"], "runs": []}, {**batch_of(1).payload(), "ended": [4]}],
)
def test_a_state_that_is_none(payload: Any) -> None:
    with pytest.raises(PromptLayerInvalidInputError):
        Batch.read(payload)


@given(total=st.integers(0, 2000), numerator=st.integers(0, 100))
def test_needed_is_the_least_that_is_enough(total: int, numerator: int) -> None:
    """Also where the fraction cannot be written in binary."""
    exact = -(-total * Fraction(numerator, 100) // 1)
    assert needed(total, numerator / 100) == exact


class TestJudge:
    def test_all_have_to_succeed_by_default_of_one(self) -> None:
        judge_batch([None, None], 1.0)
        judge_batch([], 1.0)
        with pytest.raises(PromptLayerBatchFailedError):
            judge_batch([None, "why"], 1.0)

    @pytest.mark.parametrize(("rate", "passes"), [(0.0, True), (0.5, True), (0.51, False)])
    def test_a_part_may_be_enough(self, rate: float, passes: bool) -> None:
        errors = [None, "why"]
        if passes:
            judge_batch(errors, rate)
        else:
            with pytest.raises(PromptLayerBatchFailedError):
                judge_batch(errors, rate)

    def test_says_how_many_and_names_the_first(self) -> None:
        errors = [None if index == 1 else f"why\n{index}" for index in range(9)]
        with pytest.raises(PromptLayerBatchFailedError) as raised:
            judge_batch(errors, 0.25)
        message = str(raised.value)
        assert message.startswith("1 of 9 inputs succeeded, and min_success_rate=0.25 asks for 3.")
        assert "input 0: why 0; input 2: why 2; " in message
        assert message.endswith("; and 3 more")
        assert raised.value.errors == tuple(errors)


def test_runs_are_called_the_same_wherever_they_are_made() -> None:
    runs = WorkflowRuns([1, 2], 1)
    assert runs.id == WorkflowRuns((1, 2), 1).id
    assert len({runs.id, WorkflowRuns([1, 2], 0).id, WorkflowRuns([12], 1).id}) == 3
    assert str(runs) == "Batch of 2 workflow runs"


def test_a_look_is_complete_when_few_enough_are_left() -> None:
    assert not BatchLook(2, 1, 3, 5).is_complete
    assert BatchLook(1, 1, 4, 5).is_complete


class Died(BaseException):
    """The worker is no more."""


class World:
    """A PromptLayer, an Airflow store, and workers that die between any two steps."""

    def __init__(self, size: int, happens: Callable[[str], bool]) -> None:
        self.size = size
        self.happens = happens
        self.store: dict[str, Any] = {}
        self.lifecycle = 2
        self.input_of: dict[int, int] = {}  # run → input
        self.lifecycle_of: dict[int, int] = {}  # run → when it was started
        self.failed: set[int] = set()  # runs
        self.dead = 0

    def get(self, key: str) -> Any:
        return self.store.get(key)

    def set(self, key: str, value: Any) -> None:
        self.may_die()
        self.store[key] = json.loads(json.dumps(value))
        self.may_die()

    def may_die(self) -> None:
        if self.happens("death"):
            self.dead += 1
            raise Died

    def work(self, max_active: int | None) -> Batch:
        """Do what the operator does, as far as the state of the batch is concerned."""
        memory = BatchMemory(self, self.lifecycle)
        batch = memory.open(fingerprints(self.size))
        while step := batch.plan(max_active):
            if isinstance(step, Start):
                self.start(batch, memory, step.index)
                continue
            for run_id in batch.going[step.until :]:
                index = batch.run_ids.index(run_id)
                batch.ended(index)
                if self.happens("failure"):
                    self.failed.add(run_id)
                if run_id in self.failed:
                    batch.replace(index)
            if self.happens("deferral"):
                batch = Batch.read(json.loads(json.dumps(batch.payload())))
        memory.write(batch)
        return batch

    def start(self, batch: Batch, memory: BatchMemory, index: int) -> None:
        for run_id in self.runs_of(index):
            is_of_now = self.lifecycle_of[run_id] == self.lifecycle
            assert run_id in self.failed or not is_of_now, "started twice"
        batch.starting(index)
        memory.write(batch, index)
        memory.mark(index)
        page = self.store[f"promptlayer_batch_{index // 100 * 100}"]
        assert page["runs"][index % 100] == "starting", "sent without a note"
        self.may_die()
        if self.happens("refusal"):
            batch.refused(index, "no")
            return
        run_id = len(self.input_of) + 1
        self.input_of[run_id] = index
        self.lifecycle_of[run_id] = self.lifecycle
        self.may_die()
        if self.happens("lost answer"):
            batch.uncertain(index, "lost")
        else:
            batch.started(index, run_id)

    def runs_of(self, index: int) -> list[int]:
        return [run_id for run_id, input_ in self.input_of.items() if input_ == index]


@settings(max_examples=300)
@given(
    size=st.sampled_from([1, 2, 3, 5, 101]),
    max_active=st.sampled_from([None, 1, 2, 60]),
    # Rare, or nothing ever comes to an end.
    chance=st.sampled_from([0, 0.01, 0.1, 0.3]),
    is_cleared_after_death=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_whatever_dies_nothing_is_started_twice_and_no_run_is_lost(
    size: int, max_active: int | None, chance: float, is_cleared_after_death: bool, random: Random
) -> None:
    world = World(size, lambda _: random.random() < chance)
    for _ in range(30):
        try:
            batch = world.work(max_active)
            break
        except Died:
            if is_cleared_after_death and random.random() < 0.5:
                world.lifecycle += 3
    else:
        return
    for index, each in enumerate(batch.inputs):
        runs = world.runs_of(index)
        if each.stage is Stage.ENDED:
            assert each.run_id == runs[-1], "it is the last run that counts"
            # Others were started before somebody cleared the task, without knowing their ids.
            if world.lifecycle == 2:
                assert set(runs[:-1]) <= world.failed
        elif each.stage is Stage.UNCERTAIN:
            assert world.dead or world.lifecycle_of.get(runs[-1]) == world.lifecycle
        else:
            assert each.stage is Stage.REFUSED
            assert world.lifecycle > 2 or set(runs) <= world.failed


def test_a_task_that_was_cleared_after_delivery_knows_nothing_of_old() -> None:
    world = World(150, lambda _: False)
    world.work(None)
    BatchMemory(world, 2).deliver()
    assert BatchMemory(world, 2).open(fingerprints(150)).going == list(range(1, 151))
    assert BatchMemory(world, 5).open(fingerprints(150)).going == []
    # Nor does a later try of the same, whatever was written in between.
    assert BatchMemory(world, 5).open(fingerprints(150)).going == []


def test_a_crash_while_old_notes_are_written_anew_loses_none() -> None:
    world = World(250, lambda _: False)
    world.work(None)
    deaths = iter([False, False, True])
    world.happens = lambda _: next(deaths, False)
    with pytest.raises(Died):
        BatchMemory(world, 5).open(fingerprints(250))
    assert BatchMemory(world, 5).open(fingerprints(250)).going == list(range(1, 251))


@pytest.mark.parametrize("junk", [None, 5, "x", [], {}, {"lifecycle": 2, "runs": 5, "inputs": []}])
def test_notes_that_are_none(junk: Any) -> None:
    world = World(2, lambda _: False)
    world.store = {"promptlayer_batch": junk, "promptlayer_batch_0": junk}
    assert BatchMemory(world, 2).open(fingerprints(2)).run_ids == [None, None]
