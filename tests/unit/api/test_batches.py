# SPDX-License-Identifier: Apache-2.0
"""The state of a batch: what follows from it, and what a crash cannot take from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_promptlayer.api.batch_input import OVER, Stage, Starter
from airflow_provider_promptlayer.api.batch_notes import Head, Note, Page
from airflow_provider_promptlayer.api.batch_resume import batch_payload, read_batch
from airflow_provider_promptlayer.api.batches import (
    Await,
    Batch,
    BatchLook,
    Start,
    WorkflowRuns,
    judge_batch,
    needed,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerBatchFailedError,
    PromptLayerConfigurationError,
    PromptLayerEventError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.memory import BatchMemory


def fingerprints(size: int) -> list[str]:
    return [f"input {index}" for index in range(size)]


def batch_of(size: int) -> Batch:
    return Batch.take_over([], fingerprints(size))


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


def taken_over(notes: Sequence[Note | None], now: Sequence[str]) -> Batch:
    """Return what a retry, or a try after a clear, makes of the notes of a try before it."""
    is_retry = all(note is None or note.is_of_retry for note in notes)
    return Batch.take_over(notes, now, range(len(notes)) if is_retry else ())


def run_of(text: str, run_id: int = 7, *, is_of_retry: bool = True) -> Note:
    return Note(text, run_id, was_sent=True, is_of_retry=is_of_retry)


def sent(text: str, *, reported: bool = False, is_of_retry: bool = True) -> Note:
    return Note(text, was_sent=True, was_reported=reported, is_of_retry=is_of_retry)


@pytest.mark.parametrize(
    ("note", "stage", "starter"),
    [
        (None, Stage.LEFT, Starter.THIS_TRY),
        (Note("a"), Stage.LEFT, Starter.THIS_TRY),
        (run_of("a"), Stage.GOING, Starter.EARLIER_TRY),
        (run_of("x"), Stage.GOING, Starter.EARLIER_TRY),  # which may tell the time
        (run_of("a", is_of_retry=False), Stage.GOING, Starter.BEFORE_CLEAR),
        (run_of("x", is_of_retry=False), Stage.LEFT, Starter.THIS_TRY),  # of another input
        (sent("a"), Stage.UNCERTAIN, Starter.THIS_TRY),
        (sent("a", reported=True), Stage.UNCERTAIN, Starter.THIS_TRY),
        (sent("a", is_of_retry=False), Stage.UNCERTAIN, Starter.THIS_TRY),  # nobody was told
        (sent("a", reported=True, is_of_retry=False), Stage.LEFT, Starter.THIS_TRY),
    ],
)
def test_what_a_try_takes_over(note: Note | None, stage: Stage, starter: Starter) -> None:
    batch = taken_over([note], ["a"])
    taken = batch.inputs[batch.order[0]]
    assert (taken.stage, taken.starter) == (stage, starter)
    assert taken.run_id == (7 if stage is Stage.GOING else None)
    if stage is Stage.UNCERTAIN:
        assert "airflow_batch_index=0" in str(taken.problem)


@pytest.mark.parametrize("is_of_retry", [True, False])
@pytest.mark.parametrize(
    ("known", "now", "run_ids"),
    [
        ("abc", "abc", [1, 2, 3]),
        ("abc", "cab", [3, 1, 2]),
        ("abc", "xabc", [None, 1, 2, 3]),
        ("abc", "ac", [1, 3]),
        ("abc", "cx", [3, None]),
        ("aab", "baa", [3, 1, 2]),  # equal ones are as many as there are
        ("aa", "aaa", [1, 2, None]),
        ("aaa", "aa", [1, 2]),
        ("", "ab", [None, None]),
        ("ab", "", []),
    ],
)
def test_inputs_are_recognized_wherever_they_stand(
    known: str, now: str, run_ids: list[int | None], is_of_retry: bool
) -> None:
    notes = [run_of(text, index + 1, is_of_retry=is_of_retry) for index, text in enumerate(known)]
    batch = taken_over(notes, list(now))
    assert batch.run_ids == run_ids
    assert len(batch) == len(now)
    assert sorted(batch.dropped) == sorted({*range(1, len(known) + 1)} - {*run_ids})
    again = read_batch(json.loads(json.dumps(batch_payload(batch))))
    again.arrange(list(known))  # as it was before
    assert again.run_ids == list(range(1, len(known) + 1))


@pytest.mark.parametrize(
    ("notes", "now", "run_ids", "uncertain"),
    [
        # What was sent counts before what was not, so that none of the equal ones is sent again.
        ([Note("a"), sent("a"), run_of("a")], "aa", [None, 7], 1),
        ([sent("a"), run_of("a")], "a", [7], 0),  # a result before a question
        ([run_of("a"), sent("b"), Note("c")], "cba", [None, None, 7], 1),
        # An input that is not recognized is the one at its place, unless that is elsewhere.
        ([run_of("a"), run_of("b", 8)], "ax", [7, 8], 0),
        ([run_of("a"), run_of("b", 8)], "bx", [8, None], 0),
        ([run_of("a"), run_of("b", 8)], "axy", [7, None, None], 0),
    ],
)
def test_what_a_retry_takes_inputs_for(
    notes: list[Note], now: str, run_ids: list[int | None], uncertain: int
) -> None:
    batch = taken_over(notes, list(now))
    assert batch.run_ids == run_ids
    assert batch.count(Stage.UNCERTAIN) == uncertain


def test_an_input_keeps_its_index() -> None:
    """By which its run is found in PromptLayer."""
    batch = Batch.take_over([sent("a"), Note("b"), Note("c")], ["x", "c", "b", "a"])
    assert batch.order == [3, 2, 1, 0]
    assert "airflow_batch_index=0" in str(batch.inputs[0].problem)
    assert batch.plan(None) == Start(3)  # the first of the list, and not the lowest index


@pytest.mark.parametrize(
    ("note", "is_gone", "replaced"),
    [
        (run_of("a"), False, True),
        (run_of("a"), True, False),
        (run_of("a", is_of_retry=False), False, True),
        (run_of("a", is_of_retry=False), True, True),
    ],
)
def test_which_failed_runs_are_replaced(note: Note, is_gone: bool, replaced: bool) -> None:
    batch = Batch.take_over([note], ["a"])
    batch.ended(0)
    assert batch.failed(0, retry_helps=not is_gone, is_gone=is_gone) is replaced
    assert batch.plan(None) == (Start(0) if replaced else None)


def test_a_run_of_this_try_is_not_replaced() -> None:
    batch = batch_of(1)
    start_all(batch)
    batch.ended(0)
    assert not batch.failed(0, retry_helps=True)
    assert batch.attainable == 1


def test_the_state_survives_the_way_through_the_database() -> None:
    batch = Batch.take_over(
        [run_of("a"), run_of("b", 8, is_of_retry=False), sent("c", reported=True), sent("d")],
        list("gfedcbahi"),
    )
    batch.ended(0)
    batch.failed(0, retry_helps=False)
    batch.started(4, 9)
    batch.refused(5, "no")
    again = read_batch(json.loads(json.dumps(batch_payload(batch))))
    assert again.inputs == batch.inputs
    assert again.order == batch.order
    assert again.plan(None) == batch.plan(None)
    batch.withhold("late")
    assert read_batch(json.loads(json.dumps(batch_payload(batch)))).attainable == batch.attainable


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"inputs": ["a"]},
        {"runs": ["x", None]},
        {"stages": {"asleep": [0]}},
        {"stages": {"ended": [4]}},
        {"order": [0, 4]},
        {"order": [0, 0]},
        {"problems": None},
    ],
    ids=str,
)
def test_a_state_that_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(PromptLayerEventError):
        read_batch({**batch_payload(batch_of(2)), **change})


@pytest.mark.parametrize("kept", [None, 5, {}, []])
def test_no_state(kept: Any) -> None:
    with pytest.raises(PromptLayerEventError):
        read_batch(kept)


def test_how_many_more_may_fail() -> None:
    batch = batch_of(4)
    assert batch.spare(0.5) == 2
    batch.refused(0, "no")
    batch.uncertain(1, "lost")
    assert batch.spare(0.5) == 0
    batch.started(2, 7)
    batch.failed(2, retry_helps=True)
    assert batch.spare(0.5) == -1
    batch.withhold("late")
    assert batch.plan(None) is None
    assert batch.attainable == 2


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


HERE = "https://here"


class World:
    """A PromptLayer, an Airflow store, and workers that die between any two steps.

    :param shuffle: puts the inputs, which are rendered anew by each visit, into another order.
    """

    def __init__(
        self,
        size: int,
        happens: Callable[[str], bool],
        shuffle: Callable[[list[str]], Any] = lambda _: None,
    ) -> None:
        self.size = size
        self.happens = happens
        self.shuffle = shuffle
        self.store: dict[str, Any] = {}
        self.epoch = "a"
        self.input_of: dict[int, str] = {}  # run → input
        self.failed: set[int] = set()  # runs
        self.dead = 0

    def get(self, key: str, default: Any = None) -> Any:
        return self.store.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.may_die()
        self.store[key] = json.loads(json.dumps(value))
        self.may_die()

    def may_die(self) -> None:
        if self.happens("death"):
            self.dead += 1
            raise Died

    def rendered(self) -> list[str]:
        """Return the inputs as a visit of a worker finds them."""
        inputs = fingerprints(self.size)
        self.shuffle(inputs)
        return inputs

    def work(self, max_active: int | None) -> Batch:
        """Do what the operator does, as far as the state of the batch is concerned."""
        memory = BatchMemory(self, self.epoch)
        batch = memory.open(self.rendered(), HERE)
        while step := batch.plan(max_active):
            if isinstance(step, Start):
                self.start(batch, memory, step.index)
                continue
            for run_id in batch.going[step.until :]:
                index = batch.order[batch.run_ids.index(run_id)]
                batch.ended(index)
                if self.happens("failure"):
                    self.failed.add(run_id)
                if run_id in self.failed:
                    batch.failed(index, retry_helps=True)
            if self.happens("deferral"):
                batch = read_batch(json.loads(json.dumps(batch_payload(batch))))
                memory = BatchMemory(self, self.epoch)
                memory.resume(HERE)
                batch.arrange(self.rendered())
        memory.write(batch)
        return batch

    def start(self, batch: Batch, memory: BatchMemory, index: int) -> None:
        text = batch.inputs[index].fingerprint
        assert {*self.runs_of(text)} <= self.failed, "started twice"
        batch.starting(index)
        memory.write(batch, index)
        memory.mark(index)
        page: Any = self.store[f"promptlayer_batch_{index // 100 * 100}"]
        assert page["runs"][index % 100] == "sent", "sent without a note"
        self.may_die()
        if self.happens("refusal"):
            batch.refused(index, "no")
            return
        run_id = len(self.input_of) + 1
        self.input_of[run_id] = text
        self.may_die()
        if self.happens("lost answer"):
            batch.uncertain(index, "lost")
        else:
            batch.started(index, run_id)

    def runs_of(self, text: str) -> list[int]:
        return [run_id for run_id, input_ in self.input_of.items() if input_ == text]


@settings(max_examples=300)
@given(
    size=st.sampled_from([1, 2, 3, 5, 101]),
    max_active=st.sampled_from([None, 1, 2, 60]),
    # Rare, or nothing ever comes to an end.
    chance=st.sampled_from([0, 0.01, 0.1, 0.3]),
    is_cleared_after_death=st.booleans(),
    is_shuffled=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_whatever_dies_nothing_is_started_twice_and_no_run_is_lost(
    size: int,
    max_active: int | None,
    chance: float,
    is_cleared_after_death: bool,
    is_shuffled: bool,
    random: Random,
) -> None:
    world = World(
        size,
        lambda _: random.random() < chance,
        random.shuffle if is_shuffled else lambda _: None,
    )
    for _ in range(30):
        try:
            batch = world.work(max_active)
            break
        except Died:
            if is_cleared_after_death and random.random() < 0.5:
                world.epoch += "a"
    else:
        return
    assert sorted(batch.inputs[index].fingerprint for index in batch.order) == sorted(
        fingerprints(size)
    )
    for index in batch.order:
        each = batch.inputs[index]
        runs = world.runs_of(each.fingerprint)
        if each.stage in OVER:
            assert each.run_id == runs[-1], "it is the last run that counts"
            assert {*runs[:-1]} <= world.failed
        elif each.stage is Stage.UNCERTAIN:
            assert world.dead or runs
        else:
            assert each.stage is Stage.REFUSED
            assert {*runs} <= world.failed


def test_a_task_that_was_cleared_after_delivery_knows_nothing_of_old() -> None:
    world = World(150, lambda _: False)
    memory, batch = BatchMemory(world, "a"), world.work(None)
    memory.resume(HERE)
    memory.deliver(batch)
    memory = BatchMemory(world, "a")
    batch = memory.open(fingerprints(150), HERE)
    assert batch.going == list(range(1, 151))
    memory.deliver(batch)
    assert BatchMemory(world, "b").open(fingerprints(150), HERE).going == []
    # Nor does a later try of the same, whatever was written in between.
    assert BatchMemory(world, "b").open(fingerprints(150), HERE).going == []


def test_a_task_that_is_cleared_while_a_retry_delivers_again_loses_no_run() -> None:
    world = World(2, lambda _: False)
    memory, batch = BatchMemory(world, "a"), world.work(None)
    memory.resume(HERE)
    memory.deliver(batch)
    BatchMemory(world, "a").open(fingerprints(2), HERE)
    assert BatchMemory(world, "b").open(fingerprints(2), HERE).going == [1, 2]


@pytest.mark.parametrize("more", [[], ["another"]], ids=["the same list", "a longer list"])
def test_a_retry_after_a_clear_keeps_the_runs_of_inputs_that_tell_the_time(more: list[str]) -> None:
    """Whatever was found of tries before the clear, and whatever it was taken for."""
    world = World(250, lambda _: False)
    world.work(None)
    at_nine, at_ten = (["the time is " + hour, *fingerprints(9), *more] for hour in ("9", "10"))
    cleared = BatchMemory(world, "b")
    batch = cleared.open(at_nine, HERE)
    for index in batch.at(Stage.LEFT):
        batch.starting(index)
        cleared.write(batch, index)
        batch.started(index, 1000 + index)
        cleared.mark(index)
    cleared.write(batch)
    assert BatchMemory(world, "b").open(at_ten, HERE).run_ids == batch.run_ids


def test_a_retry_after_a_clear_that_started_nothing_keeps_what_that_found() -> None:
    world = World(2, lambda _: False)
    world.work(None)
    BatchMemory(world, "b").open(fingerprints(2)[::-1], HERE)
    assert BatchMemory(world, "b").open(["the time is 9", "input 0"], HERE).run_ids == [2, 1]


def test_a_task_that_is_cleared_again_and_again_loses_no_run() -> None:
    world = World(250, lambda _: False)
    world.work(None)
    for epoch in "bcd":
        batch = BatchMemory(world, epoch).open(fingerprints(250)[::-1], HERE)
        assert batch.run_ids == list(range(250, 0, -1))


def test_what_is_no_longer_in_the_list_is_found_when_it_is_back() -> None:
    world = World(250, lambda _: False)
    world.work(None)
    few = BatchMemory(world, "a").open(fingerprints(250)[:20], HERE)
    assert len(few) == 20
    more = BatchMemory(world, "b").open(fingerprints(250)[100:], HERE)
    assert more.run_ids == list(range(101, 251))
    assert BatchMemory(world, "c").open(fingerprints(250), HERE).run_ids == [*range(1, 251)]


KEPT = {
    "promptlayer_batch": Head(["a"], 2, HERE, [0, 1]).payload(),
    "promptlayer_batch_0": Page("a", HERE, [run_of("input 0"), Note("input 1")]).payload(),
}


class TestUnreadable:
    """What is there and cannot be read is never taken for nothing: runs may hang on it."""

    @pytest.mark.parametrize("key", KEPT)
    @pytest.mark.parametrize(
        "change",
        [
            None,
            {"version": 2},
            {"version": None},
            {"clear_epoch": None, "clear_epochs": []},
            {"size": -1, "runs": [7]},
            {"size": None, "runs": [7, "asleep"]},
            {"clear_epochs": [5], "inputs": [1, 2]},
            {"clear_epochs": "a", "base_url": None},
            {"base_url": None},
            {"order": [2], "runs": None},
            {"order": [0, 0], "runs": None},
        ],
        ids=str,
    )
    def test_a_person_is_asked(self, key: str, change: dict[str, Any] | None) -> None:
        world = World(2, lambda _: False)
        world.store = {**KEPT, key: [5] if change is None else {**KEPT[key], **change}}
        before = dict(world.store)
        for epoch in ("a", "a", "b", "b"):  # a clear of a person whom nobody had told to look
            if epoch == "b":
                world.store.pop("promptlayer_question")
            with pytest.raises(PromptLayerStartUncertainError, match=rf"\({key}\)"):
                BatchMemory(world, epoch).open(fingerprints(2), HERE)
        assert {**world.store, **before} == world.store
        batch = BatchMemory(world, "c").open(fingerprints(2), HERE)
        assert batch.run_ids == [None, None]
        assert BatchMemory(world, "c").open(fingerprints(2), HERE).run_ids == [None, None]

    def test_two_pages_are_one_question(self) -> None:
        world = World(250, lambda _: False)
        world.work(None)
        for first in (0, 100):
            world.store[f"promptlayer_batch_{first}"] = {}
        with pytest.raises(PromptLayerStartUncertainError, match="promptlayer_batch_100"):
            BatchMemory(world, "a").open(fingerprints(250), HERE)
        batch = BatchMemory(world, "b").open(fingerprints(250), HERE)
        assert batch.run_ids == [None] * 200 + list(range(201, 251))

    @pytest.mark.parametrize("key", KEPT)
    def test_in_a_state_backend_that_has_lost_it(self, key: str) -> None:
        world = World(2, lambda _: False)
        world.store = {**KEPT, key: None}
        for epoch in "abc":
            with pytest.raises(PromptLayerStartUncertainError, match=rf"\({key}\) is not where"):
                BatchMemory(world, epoch).open(fingerprints(2), HERE)

    def test_in_a_state_backend_that_this_worker_lacks(self) -> None:
        """However often it is cleared: with the backend it can be read, so it has to be."""
        world = World(2, lambda _: False)
        page = {"__airflow_state_ref__": "s3://bucket/page"}
        world.store = {**KEPT, "promptlayer_batch_0": page}
        for epoch in "abc":
            with pytest.raises(PromptLayerStartUncertainError, match="state_store_backend"):
                BatchMemory(world, epoch).open(fingerprints(2), HERE)
        world.store["promptlayer_batch_0"] = KEPT["promptlayer_batch_0"]
        assert BatchMemory(world, "c").open(fingerprints(2), HERE).run_ids == [7, None]


class TestElsewhere:
    """The connection leads to another PromptLayer, where the same ids are those of other runs."""

    def test_a_retry_is_refused(self) -> None:
        world = World(2, lambda _: False)
        world.store = dict(KEPT)
        with pytest.raises(PromptLayerConfigurationError, match=r"https://here.*https://there"):
            BatchMemory(world, "a").open(fingerprints(2), "https://there")
        assert BatchMemory(world, "a").open(fingerprints(2), HERE).run_ids == [7, None]

    def test_a_retry_that_has_sent_nothing_is_not(self) -> None:
        world = World(2, lambda _: False)
        world.store = {"promptlayer_batch": Head(["a"], 2, HERE, [0, 1]).payload()}
        BatchMemory(world, "a").open(fingerprints(2), "https://there")

    def test_a_clear_starts_others(self) -> None:
        world = World(2, lambda _: False)
        world.store = dict(KEPT)
        memory = BatchMemory(world, "b")
        assert memory.open(fingerprints(2), "https://there").run_ids == [None, None]
        assert memory.left_elsewhere == [7]
        assert BatchMemory(world, "b").open(fingerprints(2), "https://there").run_ids == [None] * 2

    def test_a_retry_after_a_clear_that_went_back_is_refused(self) -> None:
        world = World(2, lambda _: False)
        world.store = dict(KEPT)
        assert BatchMemory(world, "b").open(fingerprints(2), HERE).run_ids == [7, None]
        with pytest.raises(PromptLayerConfigurationError, match=r"https://here.*https://there"):
            BatchMemory(world, "b").open(fingerprints(2), "https://there")
