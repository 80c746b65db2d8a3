# SPDX-License-Identifier: Apache-2.0
"""What a batch remembers in Airflow's task state store: a crash loses no run and doubles none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import HERE, fingerprints, noted
from support.modes import Store

from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerStartUncertainError,
)
from airflow_provider_promptlayer.submission.batch import Batch, Start, WaitUntil, fingerprint
from airflow_provider_promptlayer.submission.batch_input import OVER, Stage
from airflow_provider_promptlayer.submission.batch_persisted import batch_payload, read_batch
from airflow_provider_promptlayer.submission.task_state import BatchState


class State(BatchState):
    """With small pages, so that a few inputs are more than one page."""

    PAGE: ClassVar[int] = 4


class Died(BaseException):
    """The worker is no more."""


class World(Store):
    """A PromptLayer, an Airflow store, and workers that die between any two steps.

    :param happens: whether something that may happen does now.
    :param shuffle: puts the inputs, which are rendered anew by each visit, into another order.
    """

    def __init__(
        self,
        size: int,
        happens: Callable[[str], bool] = lambda _: False,
        shuffle: Callable[[list[Any]], Any] = lambda _: None,
    ) -> None:
        super().__init__()
        self.size = size
        self.happens = happens
        self.shuffle = shuffle
        self.epoch = "a"
        self.input_of: dict[int, str] = {}  # run → input
        self.failed: set[int] = set()  # runs
        self.dead = 0

    def set(self, key: str, value: Any) -> None:
        self.may_die()
        super().set(key, value)
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

    def work(self, max_active: int | None = None, at_once: int = 1) -> Batch:
        """Do what the operator does, as far as the state of the batch is concerned."""
        state = State(self, self.epoch)
        batch = state.open(self.rendered(), HERE)
        while True:
            step = batch.plan(max_active, at_once)
            if isinstance(step, Start):
                self.send(batch, state, step.indexes)
            if starting := batch.at(Stage.STARTING):
                self.shuffle(starting)
                for index in starting[: 1 if self.happens("slow answers") else None]:
                    self.answer(batch, index)
                continue
            if step is None:
                break
            assert isinstance(step, WaitUntil)
            for run_id in batch.going[step.max_running :]:
                index = batch.order[batch.run_ids.index(run_id)]
                batch.ended(index)
                if self.happens("failure"):
                    self.failed.add(run_id)
                if run_id in self.failed:
                    batch.failed(index, retry_helps=True)
            if self.happens("deferral"):
                batch = read_batch(batch_payload(batch))
                state = State(self, self.epoch)
                state.base_url = HERE
                batch.arrange(self.rendered())
        state.write(batch)
        return batch

    def send(self, batch: Batch, state: State, indexes: Sequence[int]) -> None:
        for index in indexes:
            batch.starting(index)
        state.write(batch, *indexes)
        for index in indexes:
            text = batch.inputs[index].fingerprint
            assert {*self.runs_of(text)} <= self.failed, "started twice"
            page = self[f"promptlayer_batch_{index // 4 * 4}"]
            assert page["runs"][index % 4] == "sent", "sent without a note"
            self.may_die()
            if not self.happens("refusal"):
                self.input_of[len(self.input_of) + 1] = text
            self.may_die()

    def answer(self, batch: Batch, index: int) -> None:
        runs = self.runs_of(batch.inputs[index].fingerprint)
        going = [run_id for run_id in runs if run_id not in self.failed]
        if not going:
            batch.refused(index, "no")
        elif self.happens("lost answer"):
            batch.uncertain(index, "lost")
        else:
            batch.started(index, going[-1])

    def runs_of(self, text: str) -> list[int]:
        return [run_id for run_id, input_ in self.input_of.items() if input_ == text]


@settings(max_examples=300)
@given(
    size=st.sampled_from([1, 2, 3, 5, 9]),
    max_active=st.sampled_from([None, 1, 2, 6]),
    at_once=st.sampled_from([1, 3, 8]),
    # Rare, or nothing ever comes to an end.
    chance=st.sampled_from([0, 0.01, 0.1, 0.3]),
    is_cleared_after_death=st.booleans(),
    is_shuffled=st.booleans(),
    random=st.randoms(use_true_random=False),
)
def test_whatever_dies_nothing_is_started_twice_and_no_run_is_lost(
    size: int,
    max_active: int | None,
    at_once: int,
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
            batch = world.work(max_active, at_once)
            break
        except Died:
            if is_cleared_after_death and random.random() < 0.5:
                world.epoch += "a"
    else:
        return
    inputs = [batch.inputs[index] for index in batch.order]
    assert sorted(each.fingerprint for each in inputs) == sorted(fingerprints(size))
    for each in inputs:
        runs = world.runs_of(each.fingerprint)
        if each.stage in OVER:
            assert each.run_id == runs[-1], "it is the last run that counts"
            assert {*runs[:-1]} <= world.failed
        elif each.stage is Stage.UNCERTAIN:
            assert world.dead or runs
        else:
            assert each.stage is Stage.REFUSED
            assert {*runs} <= world.failed


def worked(size: int) -> World:
    """Return what a try has left that has started a run for each input."""
    world = World(size)
    world.work()
    return world


def runs(store: Store, epoch: str, inputs: list[str], base_url: str = HERE) -> list[int | None]:
    """Return the run of each input that another try finds.

    :param epoch: that of another try before it is a retry; a greater one is that of a clear.
    """
    return State(store, epoch).open(inputs, base_url).run_ids


class TestCleared:
    def test_after_delivery_it_starts_all_anew(self) -> None:
        world = worked(9)
        for _ in range(2):
            state = State(world, "a")
            batch = state.open(fingerprints(9), HERE)
            assert batch.going == list(range(1, 10))
            state.deliver(batch)
        for _ in range(2):  # also a later try of the same, whatever was written in between
            assert runs(world, "b", fingerprints(9)) == [None] * 9

    def test_while_a_retry_delivers_again_it_loses_no_run(self) -> None:
        world = worked(2)
        state = State(world, "a")
        state.deliver(state.open(fingerprints(2), HERE))
        runs(world, "a", fingerprints(2))
        assert runs(world, "b", fingerprints(2)) == [1, 2]

    @pytest.mark.parametrize("more", [[], ["another"]], ids=["the same list", "a longer list"])
    def test_a_retry_after_it_keeps_the_runs_of_inputs_that_tell_the_time(
        self, more: list[str]
    ) -> None:
        """Whatever was found of tries before the clear, and whatever it was taken for."""
        world = worked(10)
        at_nine, at_ten = (["the time is " + hour, *fingerprints(5), *more] for hour in ("9", "10"))
        state = State(world, "b")
        batch = state.open(at_nine, HERE)
        for index in batch.at(Stage.PENDING):
            batch.starting(index)
            state.write(batch, index)
            batch.started(index, 1000 + index)
        state.write(batch)
        assert runs(world, "b", at_ten) == batch.run_ids

    def test_a_retry_after_one_that_started_nothing_keeps_what_that_found(self) -> None:
        world = worked(2)
        runs(world, "b", fingerprints(2)[::-1])
        assert runs(world, "b", ["the time is 9", "input 0"]) == [2, 1]

    def test_again_and_again_it_loses_no_run(self) -> None:
        world = worked(10)
        for epoch in "bcd":
            assert runs(world, epoch, fingerprints(10)[::-1]) == list(range(10, 0, -1))


def test_what_is_no_longer_in_the_list_is_found_when_it_is_back() -> None:
    world = worked(10)
    assert runs(world, "a", fingerprints(10)[:2]) == list(range(1, 3))
    assert runs(world, "b", fingerprints(10)[4:]) == list(range(5, 11))
    assert runs(world, "c", fingerprints(10)) == list(range(1, 11))


def test_a_page_of_notes_is_small() -> None:
    """As one is written before each start."""
    runs_of = {
        fingerprint(str(run_id).encode()): run_id for run_id in range(1, BatchState.PAGE + 1)
    }
    assert len(json.dumps(noted([*runs_of.items()])["promptlayer_batch_0"])) < 5_000


HEAD, PAGE = "promptlayer_batch", "promptlayer_batch_0"


@pytest.fixture
def store() -> Store:
    return noted([("input 0", 7), ("input 1", None)])


class TestUnreadable:
    """What is there and cannot be read is never taken for nothing: it may be about runs."""

    @pytest.mark.parametrize("key", [HEAD, PAGE])
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
    def test_a_person_is_asked(self, key: str, change: dict[str, Any] | None, store: Store) -> None:
        store[key] = [5] if change is None else {**store[key], **change}
        before = dict(store)
        for epoch in ("a", "a", "b", "b"):
            if epoch == "b":  # a clear by a person whom no log had asked to look
                store.pop("promptlayer_question")
            with pytest.raises(PromptLayerStartUncertainError, match=rf"\({key}\)"):
                runs(store, epoch, fingerprints(2))
        assert {**store, **before} == store
        for _ in range(2):
            assert runs(store, "c", fingerprints(2)) == [None, None]

    def test_two_pages_are_one_question(self) -> None:
        world = worked(10)
        for first in (0, 4):
            world.set(f"promptlayer_batch_{first}", {})
        with pytest.raises(PromptLayerStartUncertainError, match="promptlayer_batch_4"):
            runs(world, "a", fingerprints(10))
        assert runs(world, "b", fingerprints(10)) == [None] * 8 + [9, 10]

    @pytest.mark.parametrize(
        ("key", "kept", "says"),
        [
            (HEAD, None, rf"\({HEAD}\) is not where"),
            (PAGE, None, rf"\({PAGE}\) is not where"),
            (PAGE, {"__airflow_state_ref__": "s3://bucket/page"}, "state_store_backend"),
        ],
        ids=["a head that is lost", "a page that is lost", "a page that this worker cannot read"],
    )
    def test_in_a_state_backend(self, key: str, kept: Any, says: str, store: Store) -> None:
        """However often it is cleared: with the backend it can be read, so it has to be."""
        readable, store[key] = store[key], kept
        for epoch in "abc":
            with pytest.raises(PromptLayerStartUncertainError, match=says):
                runs(store, epoch, fingerprints(2))
        store[key] = readable
        assert runs(store, "c", fingerprints(2)) == [7, None]


THERE = "https://there"


class TestElsewhere:
    """The connection leads to another PromptLayer, where the same ids are those of other runs."""

    @pytest.mark.parametrize("epoch", ["a", "b"], ids=["a retry", "a retry after a clear"])
    def test_a_retry_is_refused(self, epoch: str, store: Store) -> None:
        assert runs(store, epoch, fingerprints(2)) == [7, None]
        with pytest.raises(PromptLayerConfigurationError, match=rf"{HERE}.*{THERE}"):
            runs(store, epoch, fingerprints(2), THERE)
        assert runs(store, epoch, fingerprints(2)) == [7, None]

    def test_a_retry_that_has_sent_nothing_is_not(self, store: Store) -> None:
        store.delete(PAGE)
        assert runs(store, "a", fingerprints(2), THERE) == [None, None]
