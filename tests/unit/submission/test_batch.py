# SPDX-License-Identifier: Apache-2.0
"""The state of a batch: the next step, and which input is which."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from support.batches import HERE, fingerprints, noted

from airflow_provider_promptlayer.exceptions import PromptLayerEventError
from airflow_provider_promptlayer.submission.batch import (
    Batch,
    BatchStatus,
    Start,
    WaitUntil,
    WorkflowRuns,
)
from airflow_provider_promptlayer.submission.batch_input import Input, Note, Stage, Starter
from airflow_provider_promptlayer.submission.batch_persisted import batch_payload, read_batch
from airflow_provider_promptlayer.submission.task_state import BatchState


def batch_of(size: int) -> Batch:
    return Batch([Input(text) for text in fingerprints(size)])


def start_all(batch: Batch, max_active: int | None = None) -> None:
    while isinstance(step := batch.plan(max_active), Start):
        for index in step.indexes:
            batch.starting(index)
            batch.started(index, 100 + index)


def through_json(batch: Batch) -> Batch:
    return read_batch(json.loads(json.dumps(batch_payload(batch))))


def opened(
    notes: Sequence[tuple[str, Note]], now: Sequence[str], *, is_retry: bool = True
) -> Batch:
    """Return what a retry, or a try after a clear, makes of what an earlier try has noted."""
    return BatchState(noted(notes), "a" if is_retry else "b").open(now, HERE)


class TestPlan:
    @pytest.mark.parametrize(
        ("places", "started", "left"),
        # A wait for half of the places; for all runs, where there are as many places as inputs.
        [(1, 1, 0), (2, 2, 1), (3, 3, 1), (4, 4, 2), *((n, 5, 0) for n in (5, 6, 1000, None))],
    )
    def test_starts_what_may_go_on_and_waits(
        self, places: int | None, started: int, left: int
    ) -> None:
        batch = batch_of(5)
        start_all(batch, places)
        assert batch.run_ids == [*range(100, 100 + started), *[None] * (5 - started)]
        assert batch.plan(places) == WaitUntil(left)
        batch.end_all()
        assert batch.plan(places) == (None if started == 5 else Start([started]))

    @pytest.mark.parametrize(
        ("places", "at_once", "under_way", "started"),
        [
            (None, 3, 0, [0, 1, 2]),
            (None, 3, 2, [2]),
            (None, 3, 3, None),
            (None, 8, 0, [0, 1, 2, 3, 4]),
            (2, 3, 0, [0, 1]),
            (2, 3, 1, [1]),
            (2, 3, 2, None),
        ],
    )
    def test_starts_several_at_once(
        self, places: int | None, at_once: int, under_way: int, started: list[int] | None
    ) -> None:
        batch = batch_of(5)
        for index in range(under_way):
            batch.starting(index)
        step = batch.plan(places, at_once)
        assert (step.indexes if isinstance(step, Start) else None) == started

    def test_a_failed_start_waits_for_one_end_at_least(self) -> None:
        batch = batch_of(10)
        assert batch.plan(10, may_start=False) is None
        for index in range(2):
            batch.started(index, 100 + index)
            assert batch.plan(10, may_start=False) == WaitUntil(index)
        assert batch.plan(10) == Start([2])


@pytest.mark.parametrize("is_retry", [True, False])
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
    known: str, now: str, run_ids: list[int | None], is_retry: bool
) -> None:
    batch = opened([*zip(known, range(1, 9), strict=False)], now, is_retry=is_retry)
    assert batch.run_ids == run_ids
    assert len(batch) == len(now)
    assert sorted(batch.dropped) == sorted({*range(1, len(known) + 1)} - {*run_ids})
    again = through_json(batch)
    again.arrange(known)  # as it was before
    assert again.run_ids == list(range(1, len(known) + 1))


@pytest.mark.parametrize(
    ("notes", "now", "run_ids", "uncertain"),
    [
        # What was sent counts before what was not, so that none of the equal ones is sent again.
        ([("a", None), ("a", "sent"), ("a", 7)], "aa", [None, 7], 1),
        ([("a", "sent"), ("a", 7)], "a", [7], 0),  # a result before a question
        ([("a", 7), ("b", "sent"), ("c", None)], "cba", [None, None, 7], 1),
        # An input that is not recognized is the one at its place, unless that is elsewhere.
        ([("a", 7), ("b", 8)], "ax", [7, 8], 0),
        ([("a", 7), ("b", 8)], "bx", [8, None], 0),
        ([("a", 7), ("b", 8)], "axy", [7, None, None], 0),
    ],
)
def test_what_a_retry_takes_inputs_for(
    notes: list[tuple[str, Note]], now: str, run_ids: list[int | None], uncertain: int
) -> None:
    batch = opened(notes, now)
    assert batch.run_ids == run_ids
    assert batch.count(Stage.UNCERTAIN) == uncertain


@pytest.mark.parametrize(
    ("starter", "is_gone", "replaced"),
    [
        (Starter.THIS_TRY, False, False),
        (Starter.EARLIER_TRY, False, True),
        (Starter.EARLIER_TRY, True, False),
        (Starter.BEFORE_CLEAR, False, True),
        (Starter.BEFORE_CLEAR, True, True),
    ],
)
def test_which_failed_runs_are_replaced(starter: Starter, is_gone: bool, replaced: bool) -> None:
    batch = Batch([Input("a", Stage.ENDED, 7, starter=starter)])
    assert batch.failed(0, retry_helps=not is_gone, is_gone=is_gone) is replaced
    assert batch.plan(None) == (Start([0]) if replaced else None)
    assert batch.attainable == (not is_gone and not replaced)


def test_the_state_survives_the_way_through_the_database() -> None:
    batch = opened([("a", 7), ("b", 8), ("c", "reported"), ("d", "sent")], "gfedcbahi")
    batch.ended(0)
    batch.failed(0, retry_helps=False)
    batch.inputs[1].starter = Starter.BEFORE_CLEAR
    batch.started(4, 9)
    batch.refused(5, "no")
    again = through_json(batch)
    assert (again.inputs, again.order) == (batch.inputs, batch.order)
    assert again.plan(None) == batch.plan(None)
    batch.withhold("late")
    assert through_json(batch).attainable == batch.attainable


@pytest.mark.parametrize(
    "kept",
    [
        None,
        5,
        {},
        [],
        *(
            batch_payload(batch_of(2)) | change
            for change in (
                {"version": 2},
                {"inputs": ["a"]},
                {"runs": ["x", None]},
                {"stages": {"asleep": [0]}},
                {"stages": {"ended": [4]}},
                {"order": [0, 4]},
                {"order": [0, 0]},
                {"problems": None},
            )
        ),
    ],
    ids=str,
)
def test_a_state_that_cannot_be_read(kept: Any) -> None:
    with pytest.raises(PromptLayerEventError):
        read_batch(kept)


def test_the_runs_as_one_job() -> None:
    runs = WorkflowRuns([1, 2], 1)
    assert runs.id == WorkflowRuns((1, 2), 1).id
    assert len({runs.id, WorkflowRuns([1, 2], 0).id, WorkflowRuns([12], 1).id}) == 3
    assert str(runs) == "Batch of 2 workflow runs"
    assert not BatchStatus(2, 1, 3, 5).is_complete
    assert BatchStatus(1, 1, 4, 5).is_complete
